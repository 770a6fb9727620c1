//! From `+switch-master` to the first write that the new master takes: seawall beside the redis
//! crate's `SentinelClient`, used as its documentation does.
//!
//! Both have a caller that tries again each millisecond, live through the same failovers in the same
//! run, and are measured from the moment at which the first sentinel announces the new master to a
//! subscriber of the bench's own. A contender that asks a sentinel before it has announced anything
//! can be early. `cargo bench --features chaos --bench failover`

mod report;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{
    Client, Pipeline, PushInfo, PushKind,
    aio::MultiplexedConnection,
    sentinel::{SentinelClient, SentinelServerType},
};
use seawall::{
    RedisCall,
    chaos::SentinelSet,
    connect::{ConnectOptions, Connection},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;

use report::{Goal, Report, Rounds, Row, Unit};

#[tokio::main]
async fn main() {
    let mut report = Report::new("failover");
    let rounds = report.sized(10, 1);
    let mut set = SentinelSet::builder()
        .replicas(1)
        .start()
        .await
        .expect("redis-server starts");
    report.condition("redis", &report::redis_version(set.node(0)).await);
    report.condition("set", &"1 master, 1 replica, 3 sentinels");
    report.condition("rounds", &format!("{rounds} of each kind"));

    for by in [By::Command, By::Kill, By::Freeze] {
        let mut times: [Rounds; 2] = Default::default();
        for _ in 0..rounds {
            let [ours, theirs] = one_failover(&mut set, by).await;
            times[0].push(ours);
            times[1].push(theirs);
        }
        for (what, share) in [("median", 0.5), ("worst", 1.0)] {
            let [ours, theirs] = times.each_mut().map(|times| times.quantile(share));
            report.row(
                Row::new(
                    format!("{by:?}, {what}").to_lowercase(),
                    Unit::Seconds,
                    ours,
                )
                .against("redis, SentinelClient", theirs)
                .goal(Goal::Below(0.1)),
            );
        }
    }
    report.finish();
}

#[derive(Clone, Copy, Debug)]
enum By {
    Command,
    Kill,
    Freeze,
}

/// Seconds from the announcement to the first write of each contender.
async fn one_failover(set: &mut SentinelSet, by: By) -> [f64; 2] {
    set.wait_until_healthy().await.expect("the set is healthy");
    let seawall = Seawall::connect(set).await;
    let mut redis = Redis::connect(set).await;
    // Fresh ones each time, so that neither is in the middle of something.
    let announcement = Announcement::subscribe(set).await;

    let old = match by {
        By::Command => {
            let old = set.primary().await.expect("there is a primary");
            set.failover().await.expect("a sentinel agrees");
            old
        }
        By::Kill => set.kill_primary().await.expect("there is a primary"),
        By::Freeze => set.freeze_primary().await.expect("there is a primary"),
    };
    let new = set.node(1 - old).port();
    let (announced, ours, theirs) = tokio::join!(
        announcement.heard(),
        first_write(new, async |port| seawall.write(port).await),
        first_write(new, async |port| redis.write(port).await),
    );
    set.revive().await.expect("all start again");
    [ours, theirs].map(|written| {
        let late = written.saturating_duration_since(announced).as_secs_f64();
        late - announced.saturating_duration_since(written).as_secs_f64()
    })
}

async fn first_write(port: u16, mut write: impl AsyncFnMut(u16) -> bool) -> Instant {
    let writing = async {
        while !write(port).await {
            sleep(Duration::from_millis(1)).await;
        }
        Instant::now()
    };
    timeout(PATIENCE, writing)
        .await
        .expect("the new master is found")
}

const PATIENCE: Duration = Duration::from_secs(60);

/// A write, and who has taken it.
fn write() -> Pipeline {
    let mut write = redis::pipe();
    write
        .cmd("SET")
        .arg("k")
        .arg(1)
        .ignore()
        .cmd("CONFIG")
        .arg("GET")
        .arg("port");
    write
}

type Answer = ((String, u16),);

struct Seawall(Connection);

impl Seawall {
    async fn connect(set: &SentinelSet) -> Self {
        let options = ConnectOptions::from_url(&set.url()).expect("the URL is right");
        let connection = Connection::open(options).expect("the settings are right");
        let ready = connection.wait_ready(PATIENCE).await;
        ready.expect("there is a master");
        Self(connection)
    }

    async fn write(&self, port: u16) -> bool {
        let call = RedisCall::new("write", write());
        let Ok(reply) = self.0.clone().oneshot(call).await else {
            return false;
        };
        let ((_, of),): Answer = reply.decode().expect("a port");
        of == port
    }
}

struct Redis {
    client: SentinelClient,
    connection: Option<MultiplexedConnection>,
}

impl Redis {
    async fn connect(set: &SentinelSet) -> Self {
        let sentinels = set.sentinel_addrs();
        let sentinels: Vec<_> = sentinels
            .iter()
            .map(|addr| format!("redis://{addr}"))
            .collect();
        let name = set.master_name().to_owned();
        let mut client = SentinelClient::build(sentinels, name, None, SentinelServerType::Master)
            .expect("the settings are right");
        let connection = client.get_async_connection().await;
        Self {
            client,
            connection: Some(connection.expect("there is a master")),
        }
    }

    async fn write(&mut self, port: u16) -> bool {
        if self.connection.is_none() {
            self.connection = self.client.get_async_connection().await.ok();
        }
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let written: redis::RedisResult<Answer> = write().query_async(connection).await;
        match written {
            Ok(((_, of),)) => of == port,
            Err(_) => {
                self.connection = None;
                false
            }
        }
    }
}

/// The first `+switch-master` of any sentinel.
struct Announcement {
    heard: watch::Receiver<Option<Instant>>,
    _sentinels: Vec<MultiplexedConnection>,
}

impl Announcement {
    async fn subscribe(set: &SentinelSet) -> Self {
        let (first, heard) = watch::channel(None);
        let first = Arc::new(Mutex::new(first));
        let mut sentinels = Vec::new();
        for addr in set.sentinel_addrs() {
            let first = Arc::clone(&first);
            let hear = move |push: PushInfo| -> Result<(), ()> {
                if push.kind == PushKind::Message {
                    let now = Instant::now();
                    let first = first.lock();
                    first.send_if_modified(|heard| {
                        let is_first = heard.is_none();
                        heard.get_or_insert(now);
                        is_first
                    });
                }
                Ok(())
            };
            let config = redis::AsyncConnectionConfig::new().set_push_sender(hear);
            let client = Client::open(format!("redis://{addr}/?protocol=resp3"));
            let client = client.expect("the URL is right");
            let connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await;
            let mut connection = connection.expect("the sentinel answers");
            let subscribed = connection.subscribe("+switch-master").await;
            subscribed.expect("the sentinel lets us listen");
            sentinels.push(connection);
        }
        Self {
            heard,
            _sentinels: sentinels,
        }
    }

    async fn heard(mut self) -> Instant {
        let heard = self.heard.wait_for(Option::is_some);
        let heard = timeout(PATIENCE, heard)
            .await
            .expect("it is announced")
            .expect("its sender is held by the connections");
        heard.expect("it is there")
    }
}
