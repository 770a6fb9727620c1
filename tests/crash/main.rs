//! The application dies, the disk fills, callers go away: and the books balance.
//!
//! An application that is to die is this test binary run again ([`app`]); it says on its standard
//! output what it was promised, and the test holds the promises against what Redis has
//! ([`scene`]). `SEAWALL_SEEDS=2000` runs ten times as many seeds as usual, 200 being the measure for all
//! tests; `SEAWALL_SEED=7` runs that one only.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that unwraps an error fails, as it should, and speaks on its standard output"
)]

mod adopting;
mod app;
mod cancel;
mod cycles;
mod deque;
mod direct;
mod disk;
mod ending;
mod full;
mod model;
mod neighbours;
mod opening;
mod replaying;
mod scene;
mod slots;
mod spooling;
mod unparking;
mod unreadable;

use std::{env, ops::Range, time::Duration};

use rand::{SeedableRng, rngs::SmallRng};

/// Ends a test that would hang; no test passes or fails by it otherwise.
const PLENTY: Duration = Duration::from_secs(60);

/// So many seeds, times `SEAWALL_SEEDS` / 200; or the one that `SEAWALL_SEED` names.
fn seeds(count: u64) -> Range<u64> {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("SEAWALL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..(count * number("SEAWALL_SEEDS").unwrap_or(200)).div_ceil(200),
    }
}

fn dice(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}
