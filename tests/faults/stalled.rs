//! A disk that does not answer for seconds, and goes on.

use crate::{
    bounded,
    worker::{Orders, Worker},
};

/// Every sync takes its time, as on a disk that tries a bad sector again and again.
#[test]
fn a_sync_that_hangs_holds_up_neither_callers_nor_the_runtime_and_is_over_when_it_is_over() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("spool");
    let mut orders = Orders::new(&dir);
    orders.disk_timeout_ms = 500;
    orders.stalled_after_ms = 200;
    orders.rounds = 4;
    let hang = "inject=fdatasync:delay_enter=10000000:when=3";
    let arguments = ["-o", "/dev/null", "-e", "trace=fdatasync", "-e", hang];
    let mut worker = Worker::start(&orders, &arguments.map(str::to_owned));
    worker.until("loaded").unwrap();
    // They have heard while it still hangs.
    let slowest: u64 = worker.until("slowest").unwrap().parse().unwrap();
    assert_eq!(worker.until("ready").unwrap(), "DiskStalled");
    worker.go();
    worker.until("works").unwrap();
    let gap: u64 = worker.until("gap").unwrap().parse().unwrap();
    assert_eq!(worker.until("ready").unwrap(), "Ready");
    assert_eq!(worker.until("drained").unwrap(), "0");
    assert_eq!(worker.until("left").unwrap(), "0");
    worker.end().unwrap();
    let said = std::mem::take(&mut worker.said);
    assert!(!said.uncertain.is_empty(), "{said:?}");
    // Half of what it hangs: who waits for the disk would be later, and so would a thread that does.
    assert!(slowest < 5000, "a caller waited {slowest} ms");
    assert!(gap < 5000, "the runtime stood still for {gap} ms");
    println!(
        "stalled: a sync of 10 s: {} callers were told within {slowest} ms, the runtime's longest pause was \
         {gap} ms, not ready meanwhile, ready again after",
        said.uncertain.len() + said.refused.len(),
    );
    bounded("settling", async move { said.settle(&dir).await }).unwrap();
}
