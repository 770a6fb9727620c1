//! How many seeds a test runs, and what is thrown with each.

use std::{env, ops::Range};

use rand::{SeedableRng, rngs::SmallRng};

/// So many seeds, times `SEAWALL_SEEDS` / 200; or the one that `SEAWALL_SEED` names.
pub(crate) fn seeds(count: u64) -> Range<u64> {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("SEAWALL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..(count * number("SEAWALL_SEEDS").unwrap_or(200)).div_ceil(200),
    }
}

pub(crate) fn dice(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}
