//! Waiting for a thing itself, not for time to pass.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Asks `met` again and again until it says yes, for at most `within`.
///
/// The time limit only ends a test that would otherwise hang, so make it generous: it is no part of
/// what the test asserts. The pauses between two questions grow from 1 ms to 50 ms.
///
/// # Errors
///
/// [`NotMet`], which names `what` was awaited. A question that never answers is given up too.
///
/// # Cancel safety
///
/// Nothing is left behind when it is dropped, but the question being asked is dropped with it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use seawall::chaos::wait_until;
///
/// let jobs = tokio::sync::Semaphore::new(0);
/// let (met, ()) = tokio::join!(
///     wait_until("a job", Duration::from_secs(10), || async { jobs.available_permits() > 0 }),
///     async { jobs.add_permits(1) },
/// );
/// met?;
/// # Ok::<(), seawall::chaos::NotMet>(()) }).unwrap();
/// ```
pub async fn wait_until<F>(
    what: &str,
    within: Duration,
    mut met: impl FnMut() -> F,
) -> Result<(), NotMet>
where
    F: Future<Output = bool>,
{
    let end = Instant::now() + within;
    let mut pause = SHORTEST;
    let asking = async {
        while !met().await {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    };
    timeout_at(end, asking).await.map_err(|_| NotMet {
        what: what.to_owned(),
        within,
    })
}

/// What was awaited did not come about in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waited {within:?} for {what}")]
pub struct NotMet {
    what: String,
    within: Duration,
}

impl NotMet {
    /// The same, with what was found instead.
    pub(super) fn since(mut self, found: &str) -> Self {
        self.what = format!("{} ({found})", self.what);
        self
    }

    /// What was awaited, in the caller's words.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// How long it was awaited.
    #[must_use]
    pub const fn within(&self) -> Duration {
        self.within
    }
}

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_is_named() {
        let within = Duration::from_secs(3);
        let error = wait_until("godot", within, || async { false })
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "waited 3s for godot");
        assert_eq!(error.what(), "godot");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_hangs_is_given_up() {
        let asked = wait_until("an answer", Duration::from_secs(3), async || {
            pending().await
        });
        assert!(asked.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_awaited_in_a_task_of_its_own() {
        let mut left = 5;
        let met = tokio::spawn(async move {
            let counted = || {
                left -= 1;
                ready(left == 0)
            };
            wait_until("zero", Duration::from_secs(3), counted).await
        });
        assert_eq!(met.await.unwrap(), Ok(()));
    }
}
