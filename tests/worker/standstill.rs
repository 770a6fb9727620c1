//! A worker whose process stands still in the middle of a turn, for longer than its lease.

use std::{sync::mpsc, thread, time::Duration};

use futures_util::future::BoxFuture;
use seawall::{
    Seawall,
    chaos::wait_until,
    worker::{Delivery, Failure},
};
use tempfile::TempDir;
use tokio::{runtime, sync::oneshot};

use crate::support::{Bench, Executed, PATIENCE, Run, connected, enqueue, text};

const LEASE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_job_that_is_handed_out_to_a_worker_that_stands_still_is_anothers_after_the_lease() {
    let scene = Scene::new().await;
    let (slow, pause) = scene.handed_out().await;
    let executed = &scene.executed;
    let other = scene.seawall.worker("q").lease(LEASE);
    let other = Run::start(other, noting("other", executed));
    executed.reach(1).await;
    scene.bench.emptied().await;
    assert_eq!(other.stop().await.claimed, 1);
    drop(pause);
    enqueue(&scene.seawall, "next").await;
    executed.reach(2).await;
    scene.bench.emptied().await;
    let report = slow.stop().await;
    assert_eq!(executed.all(), ["other job 2", "slow next 1"]);
    assert_eq!((report.started, report.succeeded), (1, 1));
}

#[tokio::test]
async fn a_job_that_is_handed_out_to_a_worker_that_stands_still_stays_its_own_if_nobody_wants_it() {
    let scene = Scene::new().await;
    let (slow, pause) = scene.handed_out().await;
    let executed = &scene.executed;
    wait_until("the lease to end", PATIENCE, || async {
        scene.bench.alive().await == 0
    })
    .await
    .unwrap();
    drop(pause);
    executed.reach(1).await;
    scene.bench.emptied().await;
    let report = slow.stop().await;
    assert_eq!(executed.all(), ["slow job 1"]);
    assert_eq!((report.started, report.released), (1, 0));
}

/// A queue with a job, and a process whose worker is to stand still.
struct Scene {
    bench: Bench,
    seawall: Seawall,
    process: Process,
    executed: Executed,
}

impl Scene {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let seawall = bench.seawall().await;
        // Redis has the scripts then, so that a turn is one call.
        let executed = Executed::default();
        let run = Run::start(seawall.worker("q"), noting("first", &executed));
        enqueue(&seawall, "first").await;
        executed.reach(1).await;
        run.stop().await;
        enqueue(&seawall, "job").await;
        Self {
            bench,
            seawall,
            process: Process::start(),
            executed: Executed::default(),
        }
    }

    /// A worker of the process, which stands still after it has asked for a job and before it has read the answer.
    async fn handed_out(&self) -> (Run, Pause) {
        let bench = &self.bench;
        let _: String = bench.ask(&["CLIENT", "PAUSE", "60000", "WRITE"]).await;
        let (url, handler) = (bench.redis.url(), noting("slow", &self.executed));
        let spool = self.process.spool.path().to_owned();
        let start = async move {
            let seawall = connected(Seawall::builder(&url, spool).unwrap()).await;
            Run::start(seawall.worker("q").lease(LEASE), handler)
        };
        let run = self.process.runtime.spawn(start).await.unwrap();
        wait_until("a turn to be on its way", PATIENCE, || async {
            let clients: String = bench.ask(&["INFO", "clients"]).await;
            !clients.contains("blocked_clients:0")
        })
        .await
        .unwrap();
        let pause = self.process.stand_still().await;
        let _: String = bench.ask(&["CLIENT", "UNPAUSE"]).await;
        wait_until("the job to be handed out", PATIENCE, || async {
            bench.places().await == [1, 0, 0, 1, 0]
        })
        .await
        .unwrap();
        (run, pause)
    }
}

fn noting(
    who: &'static str,
    executed: &Executed,
) -> impl Fn(Delivery) -> BoxFuture<'static, Result<(), Failure>> + use<> {
    let executed = executed.clone();
    move |job: Delivery| {
        executed.note(format!("{who} {} {}", text(job.payload()), job.attempt()));
        Box::pin(async { Ok(()) })
    }
}

/// A runtime of one thread, as good as a process that can be made to stand still.
struct Process {
    runtime: runtime::Handle,
    spool: TempDir,
    /// Ends it when it is dropped.
    _end: oneshot::Sender<()>,
}

/// Nothing goes on in the process until this is dropped.
type Pause = mpsc::Sender<()>;

impl Process {
    fn start() -> Self {
        let mut builder = runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        thread::spawn(move || runtime.block_on(ended));
        Self {
            runtime: handle,
            spool: tempfile::tempdir().unwrap(),
            _end: end,
        }
    }

    async fn stand_still(&self) -> Pause {
        let (pause, goes_on) = mpsc::channel();
        let (stands, standing) = oneshot::channel();
        self.runtime.spawn(async move {
            stands.send(()).unwrap();
            // An error, when the other end is dropped.
            let _ = goes_on.recv();
        });
        standing.await.unwrap();
        pause
    }
}
