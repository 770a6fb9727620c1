//! Five hundred clients that lose their server in the same moment, and how many connections a second
//! they make until all are back: while it is away, when it comes back, and when it fails over.
//!
//! Every attempt that a client makes is counted, in steps of 50 ms; the histogram shows the busiest
//! second of each phase too. `cargo bench --features chaos --bench reconnect`

mod report;

use std::time::Duration;

use prometheus::Registry;
use seawall::{
    chaos::{RedisServer, SentinelSet},
    connect::{ConnectOptions, Connection},
    metrics::Metrics,
};
use tokio::time::{Instant, sleep_until};

use report::{Goal, Report, Row, Unit};

#[tokio::main]
async fn main() {
    let mut report = Report::new("reconnect");
    let clients = report.sized(500, 50);
    let away = report.sized(Duration::from_secs(10), Duration::from_secs(2));
    report.condition("clients", &clients);
    report.condition("away for", &format!("{away:?}"));

    let mut redis = RedisServer::start().await.expect("redis-server starts");
    report.condition("redis", &report::redis_version(&redis).await);
    let crowd = Crowd::gather(clients, &redis.url()).await;
    let count = tokio::spawn(attempts(crowd.registry.clone(), away + AFTER));
    redis.kill().await.expect("it is killed");
    tokio::time::sleep(away).await;
    redis.restart().await.expect("it starts again");
    crowd.up_again().await;
    row(&mut report, "killed, and back", clients, count.await);
    drop(crowd);

    let set = SentinelSet::builder().replicas(1).start().await;
    let set = set.expect("redis-server starts");
    set.wait_until_healthy().await.expect("the set is healthy");
    let crowd = Crowd::gather(clients, &set.url()).await;
    let old = set.primary().await.expect("there is a primary");
    let count = tokio::spawn(attempts(crowd.registry.clone(), AFTER));
    set.failover().await.expect("a sentinel agrees");
    let new = set.wait_for_primary_other_than(old).await;
    new.expect("it fails over");
    crowd.up_again().await;
    row(&mut report, "failed over", clients, count.await);
    report.finish();
}

const AFTER: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(50);
const STEPS_A_SECOND: usize = 20;

/// Clients that count into the same metrics.
struct Crowd {
    clients: Vec<Connection>,
    registry: Registry,
}

impl Crowd {
    async fn gather(clients: usize, url: &str) -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).expect("the registry is new");
        let options = ConnectOptions::from_url(url).expect("the URL is right");
        let options = options.with_metrics(metrics.connect);
        let clients: Vec<_> = (0..clients)
            .map(|_| Connection::open(options.clone()).expect("the settings are right"))
            .collect();
        let crowd = Self { clients, registry };
        crowd.up_again().await;
        // A connection that has not lasted is not made again at once.
        tokio::time::sleep(Duration::from_secs(2)).await;
        crowd
    }

    async fn up_again(&self) {
        for client in &self.clients {
            let ready = client.wait_ready(Duration::from_secs(60)).await;
            ready.expect("there is a server");
        }
    }
}

/// How many attempts there were in each step.
async fn attempts(registry: Registry, during: Duration) -> Vec<u64> {
    let mut next = Instant::now();
    let end = next + during;
    let mut before = total(&registry);
    let mut steps = Vec::new();
    while next < end {
        next += STEP;
        sleep_until(next).await;
        let now = total(&registry);
        steps.push(now - before);
        before = now;
    }
    steps
}

/// Attempts that led to a connection, and those that did not.
fn total(registry: &Registry) -> u64 {
    let counts = [
        "seawall_connection_generation",
        "seawall_connects_failed_total",
    ];
    let families = registry.gather();
    let of_ours = families
        .iter()
        .filter(|family| counts.contains(&family.name()));
    let values = of_ours
        .flat_map(|family| family.get_metric())
        .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value());
    values.sum::<f64>() as u64
}

fn row(
    report: &mut Report,
    what: &str,
    clients: usize,
    steps: Result<Vec<u64>, tokio::task::JoinError>,
) {
    let steps = steps.expect("it counts");
    histogram(what, &steps);
    let busiest = |length: usize| {
        let sums = steps.windows(length.min(steps.len()));
        sums.map(|steps| steps.iter().sum::<u64>())
            .max()
            .unwrap_or(0) as f64
    };
    // The first second has the short delays in it.
    report.row(
        Row::new(
            format!("{what}: busiest second"),
            Unit::Count,
            busiest(STEPS_A_SECOND),
        )
        .goal(Goal::AtMost(clients as f64 * 7.0)),
    );
    let steady = steps.get(2 * STEPS_A_SECOND..).unwrap_or_default();
    let sums = steady.windows(STEPS_A_SECOND);
    let steady = sums
        .map(|steps| steps.iter().sum::<u64>())
        .max()
        .unwrap_or(0);
    report.row(
        Row::new(
            format!("{what}: busiest second after the first two"),
            Unit::Count,
            steady as f64,
        )
        .goal(Goal::AtMost(clients as f64 * 2.0)),
    );
    report.row(Row::new(
        format!("{what}: busiest 50 ms"),
        Unit::Count,
        busiest(1),
    ));
}

#[allow(clippy::print_stdout, reason = "a bench speaks on the screen")]
fn histogram(what: &str, steps: &[u64]) {
    println!("\n{what}: attempts to connect in each 50 ms");
    let most = steps.iter().copied().max().unwrap_or(0).max(1);
    for (at, count) in steps.iter().enumerate().filter(|(_, count)| **count > 0) {
        let bar = "#".repeat((count * 60).div_ceil(most) as usize);
        println!("{:>6} ms {count:>5} {bar}", at * 50);
    }
}
