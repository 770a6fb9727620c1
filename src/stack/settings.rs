//! Settings as text: the keys of a URL's query, and the variables of the environment.

use std::{ffi::OsString, time::Duration};

use percent_encoding::percent_decode_str;

use super::{BuildError, Builder};
use crate::{
    connect::ConnectOptions,
    spool::{Ack, Durability, Overflow, Replay, SpoolDir, WhenOld},
};

/// The settings that can be given as text, with what each is for.
///
/// In a URL's query by this name, in the environment as `SEAWALL_` and the name in capitals. Times are
/// `250ms`, `2s`, `5m` or `1h`; sizes are bytes, or `64KiB`, `64MiB`, `1GiB`.
///
/// What else the query may hold is the connection's: see
/// [`ConnectOptions`](crate::connect::ConnectOptions#urls). Everything that can't be said in text is on
/// the [`Builder`].
pub const SETTINGS: &[(&str, &str)] = &[
    ("ack", "primary or spooled: when a receipt is given"),
    (
        "breaker_failures",
        "failures in a row that open the circuit breaker",
    ),
    ("breaker_open_time", "how long it stays open the first time"),
    ("connect_timeout", "how long making a connection may take"),
    ("max_retries", "attempts after the first"),
    (
        "replay_rate",
        "records a second and queue that replay sends at most",
    ),
    (
        "response_timeout",
        "how long one attempt waits for its answer",
    ),
    (
        "retry_deadline",
        "how long all attempts of a call may take together",
    ),
    (
        "spool_after",
        "how long a job waits for Redis before it goes to disk",
    ),
    ("spool_dir", "the spool's directory"),
    (
        "spool_durability",
        "power_loss or process_crash: what a spooled job survives",
    ),
    (
        "spool_max_age",
        "expire:<time> or keep:<time>: what happens to a job that is on disk for longer",
    ),
    ("spool_max_bytes", "bytes of jobs on disk"),
    ("spool_max_disk_bytes", "bytes of the spool's files"),
    ("spool_max_parked", "jobs kept that Redis refused for good"),
    ("spool_max_record_bytes", "bytes of one job"),
    ("spool_max_records", "jobs on disk"),
    (
        "spool_overflow",
        "reject, block:<time>, drop_oldest or drop_newest: what happens when the spool is full",
    ),
    (
        "spool_shared",
        "true or false: whether many processes share spool_dir",
    ),
    (
        "spool_watermark",
        "how full a bound may be before the log has a warning, such as 80%",
    ),
];

/// Reads the URL, then `others`, which override what its query says.
pub(super) fn read(
    url: &str,
    spool_dir: Option<SpoolDir>,
    others: Vec<(String, String)>,
) -> Result<Builder, BuildError> {
    let (connection, mut settings) = split(url)?;
    settings.extend(others);
    let dir = settings
        .iter()
        .rev()
        .find(|(name, _)| is(name, "spool_dir"))
        .map(|(_, dir)| dir.into());
    let Some(dir) = spool_dir.or(dir) else {
        return Err(BuildError::Missing {
            name: "spool_dir",
            why: "jobs wait there while Redis is out; \
                  add spool_dir=/var/lib/app/spool to the URL's query, or set SEAWALL_SPOOL_DIR",
        });
    };
    settings
        .into_iter()
        .try_fold(Builder::of(connection, dir), |builder, (name, value)| {
            apply(builder, &key(&name), &value).map_err(|why| BuildError::Setting { name, why })
        })
}

pub(super) fn from_vars(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Builder, BuildError> {
    let mut url = None;
    let mut settings = Vec::new();
    for (name, value) in vars {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        let Some(value) = value.to_str() else {
            let why = "it is not UTF-8".to_owned();
            return Err(BuildError::Setting {
                name: name.to_owned(),
                why,
            });
        };
        if name == URL {
            url = Some(value.to_owned());
        } else if SETTINGS.iter().any(|(known, _)| is(name, known)) {
            settings.push((name.to_owned(), value.to_owned()));
        } else {
            // Not an error: a container platform makes up such names for a service called seawall.
            tracing::warn!(
                name,
                "unknown variable; the settings are those of stack::SETTINGS"
            );
        }
    }
    let Some(url) = url else {
        return Err(BuildError::Missing {
            name: URL,
            why: "set it to redis://host:port",
        });
    };
    read(&url, None, settings)
}

const PREFIX: &str = "SEAWALL_";
const URL: &str = "SEAWALL_REDIS_URL";

/// Whether `name`, a query key or a variable, is the setting `known`.
fn is(name: &str, known: &str) -> bool {
    key(name) == known
}

fn key(name: &str) -> String {
    name.strip_prefix(PREFIX)
        .map_or_else(|| name.to_owned(), str::to_ascii_lowercase)
}

/// The connection's part of the URL, and ours.
///
/// As text, and as it was written: a list of hosts is no URL to a parser, and a space encoded anew
/// would be a plus.
fn split(text: &str) -> Result<(ConnectOptions, Vec<(String, String)>), BuildError> {
    let (url, fragment) = match text.find('#') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    let known = |name: &str| SETTINGS.iter().any(|(known, _)| *known == name);
    let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if known(name) {
            ours.push((name.to_owned(), decoded(value)));
        } else {
            theirs.push(pair);
        }
    }
    let mark = if theirs.is_empty() { "" } else { "?" };
    let url = format!("{before}{mark}{}{fragment}", theirs.join("&"));
    Ok((ConnectOptions::from_url(&url)?, ours))
}

fn apply(builder: Builder, name: &str, value: &str) -> Result<Builder, String> {
    Ok(match name {
        "ack" => {
            let ack = choice(
                value,
                &[("primary", Ack::Primary), ("spooled", Ack::Spooled)],
            )?;
            builder.spool(|spool| spool.with_ack(ack))
        }
        "breaker_failures" => {
            let options = builder
                .breaker
                .clone()
                .with_consecutive_failures(count(value)?);
            builder.breaker(options)
        }
        "breaker_open_time" => {
            let options = builder.breaker.clone().with_open_time(time(value)?);
            builder.breaker(options)
        }
        "connect_timeout" => {
            let timeout = time(value)?;
            builder.connection(|connection| connection.with_connect_timeout(timeout))
        }
        "max_retries" => {
            let retries = value.parse().map_err(|_| NUMBER.to_owned())?;
            let policy = builder.retry.clone().with_max_retries(retries);
            builder.retry(policy)
        }
        "replay_rate" => {
            let rate = count(value)?;
            builder.spool(|spool| spool.with_replay(Replay::new().with_rate(rate)))
        }
        "response_timeout" => {
            let timeout = time(value)?;
            builder.connection(|connection| connection.with_response_timeout(timeout))
        }
        "retry_deadline" => {
            let policy = builder.retry.clone().with_deadline(time(value)?);
            builder.retry(policy)
        }
        "spool_after" => {
            let after = time(value)?;
            builder.spool(|spool| spool.with_spool_after(after))
        }
        "spool_dir" => builder,
        "spool_durability" => {
            let known = [
                ("power_loss", Durability::PowerLoss),
                ("process_crash", Durability::ProcessCrash),
            ];
            let durability = choice(value, &known)?;
            builder.spool(|spool| spool.with_durability(durability))
        }
        "spool_max_age" => {
            let known = [("expire", WhenOld::Expire), ("keep", WhenOld::Keep)];
            let (when_old, age) = value.split_once(':').unwrap_or((value, ""));
            let when_old = choice(when_old, &known).map_err(|_| {
                "must be expire:<time> or keep:<time>, such as expire:24h".to_owned()
            })?;
            let age = time(age)?;
            builder.spool(|spool| spool.with_max_age(age, when_old))
        }
        "spool_max_bytes" => {
            let bytes = size(value)?;
            builder.spool(|spool| spool.with_max_bytes(bytes))
        }
        "spool_max_parked" => {
            let records = count(value)?;
            builder.spool(|spool| spool.with_max_parked(records.into()))
        }
        "spool_max_disk_bytes" => {
            let bytes = size(value)?;
            builder.spool(|spool| spool.with_max_disk_bytes(bytes))
        }
        "spool_max_record_bytes" => {
            let bytes = usize::try_from(size(value)?).unwrap_or(usize::MAX);
            builder.spool(|spool| spool.with_max_record_bytes(bytes))
        }
        "spool_max_records" => {
            let records = count(value)?;
            builder.spool(|spool| spool.with_max_records(records.into()))
        }
        "spool_overflow" => {
            let overflow = match value.split_once(':') {
                Some(("block", timeout)) => Overflow::Block {
                    timeout: time(timeout)?,
                },
                _ => {
                    let known = [
                        ("reject", Overflow::Reject),
                        ("drop_oldest", Overflow::DropOldest),
                        ("drop_newest", Overflow::DropNewest),
                    ];
                    choice(value, &known).map_err(|_| {
                        "must be reject, block:<time> such as block:2s, drop_oldest or drop_newest"
                            .to_owned()
                    })?
                }
            };
            builder.spool(|spool| spool.with_overflow(overflow))
        }
        "spool_shared" => {
            let shared = choice(value, &[("true", true), ("false", false)])?;
            let dir = builder.spool.dir().clone();
            let dir = match shared {
                true if dir.is_shared() => dir,
                true => SpoolDir::shared(dir.path()),
                false => SpoolDir::alone(dir.path()),
            };
            builder.spool(|spool| spool.with_dir(dir))
        }
        "spool_watermark" => {
            let percent = value.strip_suffix('%').and_then(|value| value.parse().ok());
            let percent: u8 = percent
                .filter(|percent| *percent <= 100)
                .ok_or_else(|| "must be from 0% to 100%, such as 80%".to_owned())?;
            builder.spool(|spool| spool.with_watermark(f64::from(percent) / 100.0))
        }
        _ => return Err("there is no such setting".to_owned()),
    })
}

const NUMBER: &str = "must be a whole number";

fn choice<T: Copy>(value: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        format!("must be {}", names.join(" or "))
    })
}

fn count(value: &str) -> Result<u32, String> {
    let count = value.parse().map_err(|_| NUMBER.to_owned())?;
    if count == 0 {
        Err("must be at least 1".to_owned())
    } else {
        Ok(count)
    }
}

fn time(value: &str) -> Result<Duration, String> {
    let millis = scaled(
        value,
        &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)],
    );
    match millis {
        Some(0) | None => Err("must be a time such as 250ms, 2s, 5m or 1h".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
    }
}

fn size(value: &str) -> Result<u64, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        let error = read(url, Some("/tmp/spool".into()), Vec::new()).expect_err("it is wrong");
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    #[test]
    fn every_setting_listed_can_be_given() {
        let examples = [
            ("ack", "spooled"),
            ("breaker_failures", "3"),
            ("breaker_open_time", "500ms"),
            ("connect_timeout", "2s"),
            ("max_retries", "0"),
            ("replay_rate", "1000"),
            ("response_timeout", "200ms"),
            ("retry_deadline", "5m"),
            ("spool_after", "100ms"),
            ("spool_dir", "/tmp/spool"),
            ("spool_durability", "process_crash"),
            ("spool_max_age", "expire:24h"),
            ("spool_max_bytes", "64MiB"),
            ("spool_max_disk_bytes", "1GiB"),
            ("spool_max_parked", "1000"),
            ("spool_max_record_bytes", "1MiB"),
            ("spool_max_records", "10000"),
            ("spool_overflow", "block:2s"),
            ("spool_shared", "true"),
            ("spool_watermark", "75%25"),
        ];
        let listed: Vec<_> = SETTINGS.iter().map(|(name, _)| *name).collect();
        assert_eq!(examples.map(|(name, _)| name).as_slice(), listed);
        for (name, value) in examples {
            let url = format!("redis://localhost/1?{name}={value}&protocol=resp3");
            let read = read(&url, Some("/tmp/spool".into()), Vec::new());
            assert!(read.is_ok(), "{name}: {read:?}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_it_must_be() {
        assert!(refusal("redis://h?spool_after=fast").contains("spool_after: must be a time"));
        assert!(refusal("redis://h?spool_max_bytes=99999999999TiB").contains("must be bytes"));
        assert!(refusal("redis://h?ack=maybe").contains("must be primary or spooled"));
        assert!(refusal("redis://h?spool_max_records=0").contains("at least 1"));
        assert!(refusal("redis://h?spool_overflow=drop").contains("drop_oldest or drop_newest"));
        assert!(refusal("redis://h?spool_max_age=24h").contains("must be expire:<time>"));
        assert!(refusal("redis://h?spool_max_age=keep:long").contains("must be a time"));
        assert!(refusal("redis://h?spool_watermark=101%25").contains("from 0% to 100%"));
        assert!(
            refusal("redis://h?spol_after=1s").contains("protocol"),
            "lists what it knows"
        );
    }

    #[test]
    fn no_refusal_shows_the_password() {
        for url in [
            "redis://u:s3cret@h?ack=x",
            "redis://u:s3cret@h?x=y",
            "bogus://u:s3cret@h",
        ] {
            assert!(!refusal(url).contains("s3cret"), "{url}");
        }
    }

    #[test]
    fn a_variable_overrides_the_urls_query() {
        let vars = |extra: &[(&str, &str)]| {
            let all = [(URL, "redis://h?spool_dir=/a&spool_after=1s")];
            let all = all
                .iter()
                .chain(extra)
                .map(|(n, v)| ((*n).into(), (*v).into()));
            from_vars(all.collect::<Vec<(OsString, OsString)>>())
        };
        let builder = vars(&[
            ("SEAWALL_SPOOL_DIR", "/b"),
            ("SEAWALL_PORT", "1"),
            ("HOME", "/"),
        ]);
        assert!(format!("{:?}", builder.expect("it is right").spool).contains("\"/b\""));
        let error = vars(&[("SEAWALL_SPOOL_AFTER", "never")]).expect_err("it is wrong");
        assert!(error.to_string().contains("SEAWALL_SPOOL_AFTER"));
    }

    #[test]
    fn a_setting_in_the_query_changes_no_other_part_of_it() {
        let plain = "unix:///run/s?user=ann&client_name=a%20b&pass=p%20q%2Br+s";
        let shown = |url: &str| {
            format!(
                "{:?}",
                read(url, Some("/s".into()), vec![]).map(|b| b.connection)
            )
        };
        assert!(shown(plain).contains("\"a b\""), "{}", shown(plain));
        assert_eq!(shown(&format!("{plain}&ack=spooled")), shown(plain));
        for plain in [
            "redis+sentinel://u:p@h1,h2/m/1",
            "redis+cluster://h1:1,h2:2",
        ] {
            assert!(shown(plain).starts_with("Ok"), "{}", shown(plain));
            assert_eq!(shown(&format!("{plain}?ack=spooled")), shown(plain));
            let more = format!("{plain}?protocol=resp3");
            assert_eq!(shown(&format!("{more}&spool_after=1s")), shown(&more));
        }
        let dir = read("redis://h?spool_dir=/a+b%20c", None, vec![]).expect("it is right");
        assert!(format!("{:?}", dir.spool).contains("\"/a+b c\""));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = read("redis://h", None, Vec::new()).expect_err("no directory");
        assert!(error.to_string().contains("SEAWALL_SPOOL_DIR"));
        let error = from_vars(Vec::new()).expect_err("no URL");
        assert!(error.to_string().contains(URL));
    }
}
