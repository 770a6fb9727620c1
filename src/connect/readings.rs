//! How far the primary's replicas are: asked again and again, for [`crate::replicas`].
//!
//! ROLE tells the primary's offset in its replication stream and those that its replicas have acknowledged.
//! They do so once a second by themselves. Who is in a hurry has them asked by a WAIT, on a connection of
//! its own, since that holds up all that comes behind it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use redis::{RedisError, Value, aio::MultiplexedConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{dial::Dialer, generation::Generation, shared::Shared, status::Trouble};

/// Takes readings for as long as somebody wants them; ends when the server turns out to be a replica.
pub(super) async fn watch(shared: &Shared, generation: &Generation) -> Trouble {
    let teller = &shared.teller;
    let mut progress = Progress::default();
    let mut waiter = None;
    let mut told = false;
    loop {
        teller.wanted().await;
        let hurried = teller.is_hurried();
        let reading = teller.begin_reading();
        let within = shared.options.probe_timeout;
        match timeout(within, roles(generation)).await {
            Ok(Ok(roles)) => match roles.iter().map(Role::read).collect::<Result<Vec<_>, _>>() {
                Ok(roles) => {
                    if roles.iter().any(|role| !role.replicas.is_empty()) {
                        shared.saw_replicas();
                        teller.expect_replicas(true);
                    }
                    if let Some((reading, replicas)) = progress.note(reading, roles, Instant::now())
                    {
                        teller.reached(reading, replicas);
                    }
                }
                Err(NotAPrimary::Replica) => return Trouble::Replica,
                Err(NotAPrimary::Unreadable) => {}
            },
            // Forbidden, or not there under this name.
            Ok(Err(error)) if matches!(error.code(), Some("NOPERM" | "ERR")) && !told => {
                told = true;
                tracing::warn!(
                    "Redis may not be asked for its ROLE: \
                     what its replicas lack is not known, and is kept for a short time only"
                );
                teller.expect_replicas(false);
            }
            // Whether the connection is any good is for the probe to say.
            _ => {}
        }
        if hurried && progress.has_replicas() {
            press(&shared.dialer, generation, &mut waiter).await;
        } else {
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = teller.hurried() => sleep(SHORTEST).await,
            }
        }
    }
}

/// Has the replicas acknowledge what they have.
pub(super) async fn press(
    dialer: &Dialer,
    generation: &Generation,
    waiter: &mut Option<MultiplexedConnection>,
) {
    if waiter.is_none() {
        let dialed = dialer.dial(&generation.address, generation.cut().child_token(), || {});
        *waiter = dialed.await.ok();
    }
    let Some(connection) = waiter else {
        return sleep(INTERVAL).await;
    };
    // More than there are, so that Redis asks them all and gives up when the time is over.
    let mut wait = redis::cmd("WAIT");
    wait.arg(1_000_000).arg(PRESS.as_millis() as u64);
    let answer = timeout(PRESS * 4, connection.send_packed_command(&wait)).await;
    match answer {
        Ok(Ok(Value::Int(_))) => {}
        // It may not be allowed: without it the replicas speak up once a second.
        Ok(Ok(_)) => sleep(INTERVAL).await,
        Ok(Err(_)) | Err(_) => {
            *waiter = None;
            sleep(INTERVAL).await;
        }
    }
}

pub(super) async fn roles(generation: &Generation) -> Result<Vec<Value>, RedisError> {
    let role = generation
        .line()
        .send_packed_command(&redis::cmd("ROLE"))
        .await?;
    match role {
        Value::ServerError(refusal) => Err(refusal.into()),
        role => Ok(vec![role]),
    }
}

/// Names the server and the history of its data: a process that has been a primary since, and has lost
/// nothing. `None` if it can't be known.
pub(super) async fn history(mut line: MultiplexedConnection, within: Duration) -> Option<Arc<str>> {
    let mut questions = redis::Pipeline::with_capacity(2);
    questions.cmd("INFO").arg("server");
    questions.cmd("INFO").arg("replication");
    let asked = line.send_packed_commands(&questions, 0, 2);
    let answers = timeout(within, asked).await.ok()?.ok()?;
    let text = |at: usize| redis::from_redis_value::<String>(answers.get(at)?.clone()).ok();
    let (server, replication) = (text(0)?, text(1)?);
    let run = field(&server, "run_id:")?;
    let data = field(&replication, "master_replid:")?;
    Some(format!("{run} {data}").into())
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_end()).filter(|value| !value.is_empty())
}

/// What a primary says of itself and its replicas.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Role {
    offset: u64,
    /// The address of each, and the offset that it has acknowledged.
    pub(super) replicas: Vec<(String, u64)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotAPrimary {
    Replica,
    Unreadable,
}

impl Role {
    /// Reads an answer to ROLE.
    pub(super) fn read(answer: &Value) -> Result<Self, NotAPrimary> {
        let Value::Array(parts) = answer else {
            return Err(NotAPrimary::Unreadable);
        };
        match parts.first().and_then(text) {
            Some("master") => {}
            Some("slave") => return Err(NotAPrimary::Replica),
            _ => return Err(NotAPrimary::Unreadable),
        }
        let (Some(Value::Int(offset)), Some(Value::Array(replicas))) = (parts.get(1), parts.get(2))
        else {
            return Err(NotAPrimary::Unreadable);
        };
        let replicas = replicas.iter().map(|replica| {
            let Value::Array(replica) = replica else {
                return None;
            };
            let (host, port) = (
                replica.first().and_then(text)?,
                replica.get(1).and_then(text)?,
            );
            let offset = replica.get(2).and_then(text)?.parse().ok()?;
            Some((format!("{host} {port}"), offset))
        });
        let replicas = replicas.collect::<Option<_>>();
        Ok(Self {
            offset: u64::try_from(*offset).map_err(|_| NotAPrimary::Unreadable)?,
            replicas: replicas.ok_or(NotAPrimary::Unreadable)?,
        })
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// Readings, and which of them the replicas have passed.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of each, and the offset that each primary had.
    pending: VecDeque<(u64, Vec<u64>)>,
    /// The replicas of each primary.
    primaries: Vec<HashMap<String, Replica>>,
}

#[derive(Debug)]
struct Replica {
    offset: u64,
    seen: Instant,
}

impl Progress {
    /// Takes in what the primaries said at `reading`, always the same ones. Gives the last reading that all
    /// replicas have passed, and how many those are of the primary that has the fewest.
    ///
    /// A replica that was there within the last [`GRACE`] counts with what it had: it may be back soon, and
    /// be the one that is promoted.
    pub(super) fn note(
        &mut self,
        reading: u64,
        roles: Vec<Role>,
        now: Instant,
    ) -> Option<(u64, usize)> {
        self.primaries.resize_with(roles.len(), HashMap::new);
        let offsets = roles.iter().map(|role| role.offset).collect();
        let mut online = usize::MAX;
        for (known, role) in self.primaries.iter_mut().zip(roles) {
            online = online.min(role.replicas.len());
            // Behind an address translation several may have the same one: the last of them counts.
            let mut offsets = HashMap::new();
            for (address, offset) in role.replicas {
                let least = offsets.entry(address).or_insert(offset);
                *least = offset.min(*least);
            }
            let seen = |(address, offset)| (address, Replica { offset, seen: now });
            known.extend(offsets.into_iter().map(seen));
            known.retain(|_, replica| now.saturating_duration_since(replica.seen) < GRACE);
        }
        self.pending.push_back((reading, offsets));
        let mut passed = None;
        while let Some((number, offsets)) = self.pending.front() {
            let all = self.primaries.iter().zip(offsets).all(|(known, offset)| {
                !known.is_empty() && known.values().all(|replica| replica.offset >= *offset)
            });
            if !all {
                break;
            }
            passed = Some(*number);
            self.pending.pop_front();
        }
        // One in two is enough to go by.
        if self.pending.len() > MOST_PENDING {
            let mut keep = false;
            self.pending.retain(|_| {
                keep = !keep;
                keep
            });
        }
        passed.map(|reading| (reading, online))
    }

    pub(super) fn has_replicas(&self) -> bool {
        self.primaries.iter().any(|known| !known.is_empty())
    }
}

/// Between two readings that nobody is in a hurry for.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);
pub(super) const SHORTEST: Duration = Duration::from_millis(5);

/// How long replicas that are asked have to answer.
const PRESS: Duration = Duration::from_millis(20);

/// How long a replica that has gone is waited for.
const GRACE: Duration = Duration::from_secs(60);

const MOST_PENDING: usize = 1024;

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn role(offset: u64, replicas: &[(&str, u64)]) -> Role {
        let replicas = replicas
            .iter()
            .map(|(name, offset)| ((*name).to_owned(), *offset));
        Role {
            offset,
            replicas: replicas.collect(),
        }
    }

    #[test]
    fn what_a_primary_says_is_read() {
        let primary = "*3\r\n$6\r\nmaster\r\n:700\r\n*2\r\n*3\r\n$1\r\na\r\n$4\r\n6380\r\n$3\r\n700\r\n\
                       *3\r\n$1\r\nb\r\n$4\r\n6381\r\n$1\r\n7\r\n";
        let read = |wire: &str| Role::read(&parse_redis_value(wire.as_bytes()).unwrap());
        assert_eq!(
            read(primary),
            Ok(role(700, &[("a 6380", 700), ("b 6381", 7)]))
        );
        let replica = "*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$7\r\nconnect\r\n:-1\r\n";
        assert_eq!(read(replica), Err(NotAPrimary::Replica));
        assert_eq!(read("+master\r\n"), Err(NotAPrimary::Unreadable));
    }

    #[test]
    fn a_reading_is_reached_when_every_replica_has_passed_it() {
        let mut progress = Progress::default();
        let now = Instant::now();
        let mut note = |reading, offset, replicas: &[(&str, u64)]| {
            progress.note(reading, vec![role(offset, replicas)], now)
        };
        assert_eq!(note(1, 100, &[("a", 90), ("b", 100)]), None);
        assert_eq!(note(2, 200, &[("a", 100), ("b", 100)]), Some((1, 2)));
        assert_eq!(note(3, 300, &[("a", 250), ("b", 199)]), None);
        assert_eq!(note(4, 300, &[("a", 250), ("b", 200)]), Some((2, 2)));
    }

    #[test]
    fn a_replica_that_has_just_gone_holds_the_others_up() {
        let mut progress = Progress::default();
        let now = Instant::now();
        let mut note = |reading, replicas: &[(&str, u64)], now| {
            progress.note(reading, vec![role(100, replicas)], now)
        };
        assert_eq!(note(1, &[("a", 50), ("b", 100)], now), None);
        assert_eq!(note(2, &[("b", 100)], now + GRACE / 2), None);
        assert_eq!(note(3, &[("b", 100)], now + GRACE), Some((3, 1)));
    }

    #[test]
    fn of_replicas_with_one_address_the_last_one_counts() {
        let mut progress = Progress::default();
        let now = Instant::now();
        let mut note = |reading, one, other, now| {
            let roles = role(100, &[("gateway", one), ("gateway", other)]);
            progress.note(reading, vec![roles], now)
        };
        assert_eq!(note(1, 50, 100, now), None);
        assert_eq!(note(2, 100, 50, now + INTERVAL), None);
        let later = now + INTERVAL * 2;
        assert_eq!(note(3, 100, 100, later), Some((3, 2)));
    }

    #[test]
    fn without_replicas_nothing_is_reached() {
        let mut progress = Progress::default();
        for reading in 1..5000 {
            let reached = progress.note(reading, vec![role(reading, &[])], Instant::now());
            assert_eq!(reached, None);
        }
        assert!(progress.pending.len() <= MOST_PENDING);
    }

    #[test]
    fn every_primary_must_have_replicas_that_have_passed() {
        let mut progress = Progress::default();
        let now = Instant::now();
        let mut note = |reading, one: u64, other: u64| {
            let roles = vec![role(100, &[("a", one)]), role(100, &[("b", other)])];
            progress.note(reading, roles, now)
        };
        assert_eq!(note(1, 100, 99), None);
        assert_eq!(note(2, 100, 100), Some((2, 1)));
    }
}
