//! What a handler's own events can be found by.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use seawall::{
    Job,
    worker::{Delivery, Failure},
};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Bench, Run, text};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn what_a_handler_logs_has_the_jobs_id_and_the_trace_of_its_producer_and_no_payload() {
    let bench = Bench::new().await;
    let seawall = bench.seawall().await;
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    // Tests have one thread each, and so all that runs here is heard.
    let _heard = tracing::subscriber::set_default(subscriber);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let job = Job::new("q", "p4yload")
        .for_worker()
        .with_header("traceparent", trace);
    let id = job.id();
    let _ = seawall.enqueue(job).await.unwrap();
    let run = Run::start(seawall.worker("q"), |_: Delivery| async {
        tracing::info!("this is the handler");
        Ok::<_, Failure>(())
    });
    bench.emptied().await;
    run.stop().await;
    let log = text(&log.0.lock());
    let line = log
        .lines()
        .find(|line| line.contains("this is the handler"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in [&*id.to_string(), "queue=\"q\"", "attempt=1", trace] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!log.contains("p4yload"), "{log}");
}
