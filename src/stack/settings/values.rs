//! What a value means: numbers, times, sizes and choices.

use std::time::Duration;

pub(super) const NUMBER: &str = "must be a whole number";

pub(super) fn choice<T: Copy>(value: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        format!("must be {}", names.join(" or "))
    })
}

pub(super) fn count(value: &str) -> Result<u32, String> {
    let count = value.parse().map_err(|_| NUMBER.to_owned())?;
    if count == 0 {
        Err("must be at least 1".to_owned())
    } else {
        Ok(count)
    }
}

pub(super) fn time(value: &str) -> Result<Duration, String> {
    let millis = scaled(
        value,
        &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)],
    );
    match millis {
        Some(0) | None => Err("must be a time such as 250ms, 2s, 5m or 1h".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
    }
}

pub(super) fn size(value: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("", 1),
    ];
    scaled(value, &units).ok_or_else(|| "must be bytes, such as 1048576, 64MiB or 1GiB".to_owned())
}

fn scaled(value: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(scale)
}
