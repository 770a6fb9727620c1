//! What the log says.

use std::sync::Arc;

use parking_lot::Mutex;
use seawall::chaos::wait_until;
use tracing_subscriber::fmt::MakeWriter;

use super::PLENTY;

/// The events of this thread, and of the tasks on it, until it is dropped.
pub(crate) struct Heard {
    text: Lines,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Heard {
    pub(crate) fn listen() -> Self {
        let text = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(text.clone())
            .finish();
        Self {
            text,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    fn lines(&self, event: &str) -> Vec<String> {
        let text = String::from_utf8(self.text.0.lock().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(event));
        lines.map(str::to_owned).collect()
    }

    pub(crate) fn count(&self, event: &str) -> usize {
        self.lines(event).len()
    }

    /// A field's values of all these events together.
    pub(crate) fn sum(&self, event: &str, field: &str) -> u64 {
        let lines = self.lines(event);
        let values = lines.iter().map(|line| {
            let after = line.split(&format!(" {field}=")).nth(1).unwrap();
            after.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        values.sum()
    }

    pub(crate) async fn wait_for(&self, event: &str) {
        self.wait_for_times(event, 1).await;
    }

    pub(crate) async fn wait_for_times(&self, event: &str, times: usize) {
        wait_until(event, PLENTY, || async { self.count(event) >= times })
            .await
            .unwrap();
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
