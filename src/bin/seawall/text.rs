//! How things are written for people: numbers, sizes, times, and words that others have chosen.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3 records`, `1 record`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", count(number))
}

/// `1536` as `1.5 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if scaled < 1024.0 {
            break;
        }
        scaled /= 1024.0;
        unit = larger;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{scaled:.1} {unit}")
    }
}

/// Milliseconds since 1970, UTC, to the second.
pub(crate) fn moment(ms: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ms.min(YEAR_9999_MS));
    humantime::format_rfc3339_seconds(at).to_string()
}

/// What can be written with a year of four digits.
const YEAR_9999_MS: u64 = 253_402_300_799_999;

/// How long ago that was, in its two largest units.
pub(crate) fn age(ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(ms) / 1000;
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

/// What others have chosen, a queue's name say, without anything that a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || c == '\u{202e}' {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Bytes as the text they are, or else in base64.
pub(crate) fn payload(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => plain(text),
        Err(_) => format!("base64:{}", encode(bytes)),
    }
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

/// Takes user and password out of all URLs.
pub(crate) fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let _ = write!(clean, "{before}://");
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\''))
            .unwrap_or(after.len());
        // A password may have an @ in it: the last one counts.
        match after[..end].rfind('@') {
            Some(at) => {
                clean.push_str("***");
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn no_time_is_too_late_to_be_shown() {
        assert_eq!(moment(0), "1970-01-01T00:00:00Z");
        assert_eq!(moment(u64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(age(0, 93_784_000), "1day 2h");
        assert_eq!(age(5, 0), "0s");
    }

    #[test]
    fn a_password_is_taken_out_of_every_url() {
        assert_eq!(redact("no url"), "no url");
        assert_eq!(redact("redis://h/1"), "redis://h/1");
        assert_eq!(
            redact("'redis://:p@ss@h/1', rediss://u:p@h and a@b"),
            "'redis://***@h/1', rediss://***@h and a@b"
        );
    }

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        assert_eq!(plain("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(payload(&[0xff, 0xfe]), "base64://4=");
    }
}
