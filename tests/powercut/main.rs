//! The power goes, or the process, at any moment: what was acknowledged is there, once and in order.
//!
//! A worker, which is this test binary run again ([`worker`]), uses a spool while a shim under it
//! (`shim.c`) writes down each change of a file. [`disk`] makes of the log what may be on the disk if
//! the power is cut at some moment, [`judge`] opens that and looks. [`kills`] are real ones, before
//! each system call that changes something.
//!
//! `SEAWALL_STATES=2000` looks at so many states of the disk where 150 are usual; `SEAWALL_KILLS=all`
//! kills at every call where a sample is usual; `SEAWALL_SEED=7` throws other dice. `SEAWALL_KEEP=1`
//! keeps the states that were wrong, and
//! shows what the spool logs.
#![cfg(all(feature = "chaos", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that unwraps an error fails, as it should, and speaks on its standard output"
)]

mod disk;
mod explore;
mod facts;
mod judge;
mod kills;
mod log;
mod note;
mod scenes;
mod shim;
mod worker;

use std::{env, time::Duration};

use rand::{SeedableRng, rngs::SmallRng};
use tokio::sync::RwLock;

/// Ends a test that would hang; no test passes or fails by it otherwise.
const PLENTY: Duration = Duration::from_secs(40);

/// Panics are counted in the whole process: who wants to see some is alone.
static RUNNING: RwLock<()> = RwLock::const_new(());

fn states() -> u64 {
    setting("SEAWALL_STATES").unwrap_or(150)
}

/// `all` if all is wanted, `usual` otherwise.
fn sampled(all: u64, usual: u64) -> u64 {
    let wanted = env::var("SEAWALL_KILLS").is_ok_and(|kills| kills == "all");
    if wanted { all } else { usual }
}

fn dice(salt: u64) -> SmallRng {
    SmallRng::seed_from_u64(setting("SEAWALL_SEED").unwrap_or(0) << 32 | salt)
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}
