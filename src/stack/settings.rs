//! Settings as text: the keys of a URL's query, and the variables of the environment.

mod values;

use std::ffi::OsString;

use percent_encoding::percent_decode_str;

use self::values::{NUMBER, choice, count, size, time};
use super::{BuildError, Builder, Topology};
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
    (
        "ack",
        "primary, spooled, or replicated:<replicas>:<time>: when a receipt is given",
    ),
    (
        "breaker_failures",
        "failures in a row that open the circuit breaker",
    ),
    ("breaker_open_time", "how long it stays open the first time"),
    ("connect_timeout", "how long making a connection may take"),
    (
        "failover_grace",
        "how long the primary must be healthy before it is gone back to from a standby, or never",
    ),
    (
        "failover_threshold",
        "how long the active target may be out before a standby is used",
    ),
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
    (
        "standby_url",
        "URLs of other deployments, separated by spaces, for while this one is out",
    ),
    (
        "target_names",
        "names of the deployments, this one's first, separated by commas",
    ),
];

/// Reads the URLs, then `others`, which override what the first one's query says.
pub(super) fn read(
    topology: Topology,
    spool_dir: Option<SpoolDir>,
    others: Vec<(String, String)>,
) -> Result<Builder, BuildError> {
    let first = topology.urls().first().map_or("", String::as_str);
    let (connection, mut settings) = split(first)?;
    settings.extend(others);
    let last = |name: &str| settings.iter().rev().find(|(known, _)| is(known, name));
    let Some(dir) = spool_dir.or_else(|| last("spool_dir").map(|(_, dir)| dir.into())) else {
        return Err(BuildError::Missing {
            name: "spool_dir",
            why: "jobs wait there while Redis is out; \
                  add spool_dir=/var/lib/app/spool to the URL's query, or set SEAWALL_SPOOL_DIR",
        });
    };
    let mut topology = topology;
    for known in OF_TOPOLOGY {
        if let Some((name, value)) = last(known) {
            let set = of_topology(topology, known, value);
            topology = set.map_err(|why| wrong(name, why))?;
        }
    }
    let mut connections = vec![connection];
    for (at, url) in topology.urls().iter().enumerate().skip(1) {
        let standby = standby(url);
        connections.push(standby.map_err(|error| error.of_target(format!("number {}", at + 1)))?);
    }
    let builder = Builder::of(topology, connections, dir)?;
    settings
        .into_iter()
        .try_fold(builder, |builder, (name, value)| {
            apply(builder, &key(&name), &value).map_err(|why| wrong(&name, why))
        })
}

fn wrong(name: &str, why: String) -> BuildError {
    let name = name.to_owned();
    BuildError::Setting { name, why }
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
    read(Topology::single(url), None, settings)
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

/// The connection to one that is not the first.
fn standby(url: &str) -> Result<ConnectOptions, BuildError> {
    let (connection, settings) = split(url)?;
    match settings.first() {
        None => Ok(connection),
        Some((name, _)) => Err(wrong(
            name,
            "it is for all deployments: give it with the first one's URL".to_owned(),
        )),
    }
}

/// In the order in which they are set.
const OF_TOPOLOGY: [&str; 4] = [
    "standby_url",
    "target_names",
    "failover_threshold",
    "failover_grace",
];

fn of_topology(topology: Topology, name: &str, value: &str) -> Result<Topology, String> {
    if name == "standby_url" {
        if topology.failover {
            return Err("the program names its standbys itself".to_owned());
        }
        return Ok(topology.with_standbys(value.split_whitespace().map(str::to_owned)));
    }
    if !topology.failover {
        return Err("there is one deployment only; it goes with standby_url".to_owned());
    }
    Ok(match name {
        "target_names" => topology.with_names(value.split(',').map(str::trim)),
        "failover_threshold" => topology.with_threshold(time(value)?),
        _ if value == "never" => topology.without_failback(),
        _ => topology.with_grace(time(value).map_err(|why| format!("{why}, or never"))?),
    })
}

fn apply(builder: Builder, name: &str, value: &str) -> Result<Builder, String> {
    Ok(match name {
        "ack" => {
            let ack = ack(value)?;
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
        // Read before there was a builder.
        "spool_dir" => builder,
        of_topology if OF_TOPOLOGY.contains(&of_topology) => builder,
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

fn ack(value: &str) -> Result<Ack, String> {
    let known = [("primary", Ack::Primary), ("spooled", Ack::Spooled)];
    let must = || {
        "must be primary or spooled or replicated:<replicas>:<time>, such as replicated:1:500ms"
            .to_owned()
    };
    let Some(("replicated", rest)) = value.split_once(':') else {
        return choice(value, &known).map_err(|_| must());
    };
    let (replicas, timeout) = rest.split_once(':').ok_or_else(must)?;
    Ok(Ack::Replicated {
        replicas: count(replicas)?,
        timeout: time(timeout)?,
    })
}

#[cfg(test)]
mod tests;
