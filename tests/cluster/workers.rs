//! Workers on a cluster: each queue is in a slot of its own, and its primary may go.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use seawall::{
    Job,
    chaos::{RedisCluster, wait_until},
    worker::{Delivery, Failure, WorkerReport},
};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::support::{Line, PLENTY, key_of_each};

/// How often each job has been executed, by queue and payload.
type Executions = Arc<Mutex<BTreeMap<(String, String), u32>>>;

async fn enqueue(line: &Line, queues: &[String], numbers: std::ops::Range<u32>) {
    for number in numbers {
        for queue in queues {
            let job = Job::new(queue.as_str(), number.to_string()).for_worker();
            let _receipt = line.seawall.enqueue(job).await.unwrap();
        }
    }
}

/// A worker on all these queues, that counts.
fn work(
    line: &Line,
    queues: &[String],
    executions: &Executions,
    stopped: oneshot::Receiver<()>,
) -> JoinHandle<WorkerReport> {
    let executions = executions.clone();
    let handler = move |job: Delivery| {
        let payload = String::from_utf8(job.payload().to_vec()).unwrap();
        let key = (job.queue().to_owned(), payload);
        *executions.lock().entry(key).or_default() += 1;
        async { Ok::<_, Failure>(()) }
    };
    let mut worker = line.seawall.worker(queues[0].as_str());
    for queue in &queues[1..] {
        worker = worker.queue(queue.as_str(), 1);
    }
    let worker = worker.lease(Duration::from_secs(2)).shutdown_on(stopped);
    tokio::spawn(async move { worker.run(handler).await.unwrap() })
}

#[tokio::test]
async fn the_jobs_of_a_queue_whose_primary_goes_are_done_by_way_of_its_replica() {
    let mut cluster = RedisCluster::start().await.unwrap();
    let line = Line::to(&cluster).await;
    let mut queues = key_of_each(&cluster, 3).await;
    // Its tag is another's as well, so that its slot is.
    queues.push(format!("of:{{{}}}:too", queues[1]));
    let executions = Executions::default();
    let (stop, stopped) = oneshot::channel::<()>();
    let run = work(&line, &queues, &executions, stopped);

    enqueue(&line, &queues, 0..50).await;
    cluster.kill(0).await.unwrap();
    enqueue(&line, &queues, 50..100).await;
    line.drained().await;
    wait_until("all jobs", PLENTY, || async {
        executions.lock().len() == 100 * queues.len()
    })
    .await
    .unwrap();
    stop.send(()).unwrap();
    let report = run.await.unwrap();
    line.drained().await;
    for queue in &queues {
        let stat = line.seawall.queue(queue.as_str()).stat().await.unwrap();
        let left = [stat.ready, stat.running, stat.dead];
        assert_eq!(left, [0; 3], "{queue}: {stat:?} {report:?}");
    }
    for ((queue, number), count) in executions.lock().iter() {
        // Where the primary died, a start or an end may have died with it.
        let most = if *queue == queues[0] { 2 } else { 1 };
        assert!(*count <= most, "{queue} {number}: {count} executions");
    }
}

#[tokio::test]
async fn while_a_primary_is_away_the_jobs_of_the_others_are_done() {
    let cluster = RedisCluster::builder().replicas(0).durable();
    let cluster = cluster.arg("cluster-require-full-coverage", "no");
    let mut cluster = cluster.start().await.unwrap();
    let line = Line::to(&cluster).await;
    let queues = key_of_each(&cluster, 3).await;
    let executions = Executions::default();
    let (stop, stopped) = oneshot::channel::<()>();
    let run = work(&line, &queues, &executions, stopped);

    cluster.kill(0).await.unwrap();
    wait_until("the others to notice", PLENTY, || async {
        let ask = redis::cmd("CLUSTER").arg("NODES").to_owned();
        let nodes: String = cluster.node(1).command(&ask).await.unwrap();
        nodes.contains("master,fail ")
    })
    .await
    .unwrap();
    enqueue(&line, &queues, 0..50).await;
    wait_until("the jobs of the others", PLENTY, || async {
        executions.lock().len() == 50 * 2
    })
    .await
    .unwrap();
    let away = |(queue, _): &(String, String)| *queue == queues[0];
    assert!(!executions.lock().keys().any(away));
    cluster.restart(0).await.unwrap();
    line.drained().await;
    wait_until("all jobs", PLENTY, || async {
        executions.lock().len() == 50 * 3
    })
    .await
    .unwrap();
    stop.send(()).unwrap();
    run.await.unwrap();
    assert!(executions.lock().values().all(|count| *count == 1));
}

#[tokio::test]
async fn a_queue_whose_slot_moves_is_worked_on_wherever_it_is() {
    let cluster = RedisCluster::start().await.unwrap();
    let line = Line::to(&cluster).await;
    let queue = key_of_each(&cluster, 3).await.swap_remove(0);
    let queues = [queue.clone()];
    let executions = Arc::new(Mutex::new(Vec::new()));
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = line.seawall.worker(queue.as_str()).concurrency(4);
    let worker = worker.shutdown_on(stopped);
    let seen = executions.clone();
    let run = tokio::spawn(async move {
        worker
            .run(move |job: Delivery| {
                let number = std::str::from_utf8(job.payload()).unwrap().to_owned();
                seen.lock().push(number.parse::<u32>().unwrap());
                async { Ok::<_, Failure>(()) }
            })
            .await
    });
    enqueue(&line, &queues, 0..100).await;
    let slot = cluster.slot_of(&queue).await.unwrap();
    let migration = cluster.begin_migration(slot, 0, 1).await.unwrap();
    enqueue(&line, &queues, 100..150).await;
    migration.move_keys(&cluster, 2).await.unwrap();
    // Its keys are on two nodes, of which neither can take all that a job needs.
    enqueue(&line, &queues, 150..200).await;
    while migration.move_keys(&cluster, 10).await.unwrap() > 0 {}
    migration.finish(&cluster).await.unwrap();
    enqueue(&line, &queues, 200..300).await;
    line.drained().await;
    wait_until("all jobs", PLENTY, || async {
        executions.lock().len() >= 300
    })
    .await
    .unwrap();
    stop.send(()).unwrap();
    run.await.unwrap().unwrap();
    line.drained().await;
    let stat = line.seawall.queue(queue.as_str()).stat().await.unwrap();
    assert_eq!([stat.ready, stat.running, stat.dead], [0; 3], "{stat:?}");
    let mut executions = executions.lock().clone();
    executions.sort_unstable();
    assert_eq!(executions, (0..300).collect::<Vec<_>>(), "each once");
}
