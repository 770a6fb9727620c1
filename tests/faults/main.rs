//! The disk lies, fails, fills and stalls: and the spool says so, and loses nothing that it need not.
//!
//! `SEAWALL_SEEDS=2000` runs ten times as many cases as usual, 200 being the measure for all tests;
//! `SEAWALL_SEED=7` runs that one only. Faults are injected by strace into this test binary run again
//! ([`worker`]); full disks are file systems of their own, mounted where nobody else sees them
//! ([`mounted`]), for which the tests have to run as root.
#![cfg(feature = "chaos")]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that unwraps an error fails, as it should, and shows its figures"
)]

mod carver;
#[path = "../shared/copied.rs"]
mod copied;
mod damage;
mod far;
mod injected;
mod mounted;
mod record;
mod room;
#[path = "../shared/seeds.rs"]
mod seeds;
mod stalled;
mod taken_away;
mod template;
mod torn;
mod worker;

use std::{sync::mpsc, thread, time::Duration};

use tokio::runtime;

use self::seeds::{dice, seeds};

/// Ends a test that would hang; no test passes or fails by it otherwise.
const PLENTY: Duration = Duration::from_secs(60);

/// Runs `test` in a thread and a runtime of its own, so that what hangs there hangs no more than that.
fn bounded<T: Send + 'static>(what: &str, test: impl Future<Output = T> + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    let run = move || {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let _ = done.send(runtime.block_on(test));
    };
    thread::Builder::new()
        .name(what.to_owned())
        .spawn(run)
        .unwrap();
    match ended.recv_timeout(PLENTY * 2) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{what} panicked"),
    }
}
