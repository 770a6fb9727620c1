//! Two Redis deployments, one of them for while the other is out.
//!
//! ```text
//! cargo run --features chaos --example standby
//! ```
//!
//! It starts two servers of its own, enqueues, kills the primary, goes on enqueueing while the standby takes over,
//! starts the primary again, and goes back to it. Expect jobs 1 to 10 in the primary, the next ones on disk for it,
//! those after the switch in the standby, and at the end each job in one of the two, in order:
//! `lost=0 duplicated=0 out_of_order=0`.
#![allow(clippy::print_stdout, reason = "a program, not the library")]

use std::time::Duration;

use seawall::{
    Job, Seawall,
    chaos::{Books, RedisServer, wait_until},
    error::BoxError,
    stack::Topology,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut primary = RedisServer::builder().durable().start().await?;
    let standby = RedisServer::builder().durable().start().await?;
    let dir = tempfile::tempdir()?;
    let topology = Topology::failover([primary.url(), standby.url()])
        .with_names(["primary", "standby"])
        // A real one waits for longer: the defaults are 10 s and 60 s.
        .with_threshold(Duration::from_secs(1))
        .with_grace(Duration::from_secs(1));
    let seawall = Seawall::builder(topology, dir.path())?.connect().await?;
    seawall.connection().wait_ready(PATIENCE).await?;

    let mut producer = Producer::default();
    producer.enqueue(&seawall, 10).await?;
    primary.kill().await?;
    println!("the primary is killed");
    producer.enqueue(&seawall, 10).await?;
    until_active(&seawall, "standby").await?;
    producer.enqueue(&seawall, 10).await?;
    primary.restart().await?;
    println!("the primary is back");
    until_active(&seawall, "primary").await?;
    seawall.flush().await;
    producer.enqueue(&seawall, 10).await?;
    let left = seawall.shutdown(PATIENCE).await?;

    for redis in [&primary, &standby] {
        let all = redis::cmd("LRANGE").arg("emails").arg(0).arg(-1).to_owned();
        let jobs: Vec<String> = redis.command(&all).await?;
        println!("in {}: {}", redis.addr(), jobs.join(" "));
        for job in jobs {
            let (target, number) = job.split_once('-').ok_or("not one of ours")?;
            producer.books.deliver((target, number.parse()?));
        }
    }
    println!("left on disk: {left}");
    println!("books: {}", producer.books.balance());
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers the jobs of each target, and keeps the books.
#[derive(Default)]
struct Producer {
    books: Books,
    last: u64,
}

impl Producer {
    async fn enqueue(&mut self, seawall: &Seawall, count: usize) -> Result<(), BoxError> {
        for _ in 0..count {
            self.last += 1;
            // With one thread nothing changes between this look and the enqueue.
            let target = active(seawall);
            self.books.attempt((target, self.last));
            let receipt = seawall.enqueue(Job::new("emails", format!("{target}-{}", self.last)));
            let receipt = receipt.await?;
            self.books.acknowledge((target, self.last));
            println!("{target}-{}: {:?}", self.last, receipt.place());
        }
        Ok(())
    }
}

async fn until_active(seawall: &Seawall, name: &str) -> Result<(), BoxError> {
    let switched = || async { active(seawall) == name };
    wait_until("the other target", PATIENCE, switched).await?;
    println!("-> {name}");
    Ok(())
}

fn active(seawall: &Seawall) -> &str {
    let mut targets = seawall.targets();
    let active = targets.find(|target| target.is_active());
    active.map_or("", |target| target.name())
}
