//! Which queues there are: [`queues`].

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;
use tower::{Service, ServiceExt};

use crate::{
    call::{RedisCall, Reply},
    error::{Error, ErrorKind},
    job::task::Keys,
};

/// The names of the queues of workers that there are in a Redis, sorted: of those that have a job, a worker, or a job or
/// worker of before.
///
/// Redis keeps no list of them, so this looks at the names of all keys of the database, in steps of 1,000. It is for
/// people who look around, and not for every request. A queue that is made or emptied meanwhile may be missed.
///
/// # Errors
///
/// Those of `line`; [`Timeout`](crate::error::ErrorKind::Timeout) if it is not through after a minute; and
/// [`Invalid`](crate::error::ErrorKind::Invalid) with a Redis Cluster, where each node knows the names of its own keys only:
/// name the queue there.
///
/// # Cancel safety
///
/// It changes nothing.
pub async fn queues<S>(line: S) -> Result<Vec<String>, Error>
where
    S: Service<RedisCall, Response = Reply, Error = Error> + Clone,
{
    let ask = |body: redis::Cmd| {
        let call = RedisCall::new("queue_names", body).with_timeout(STEP);
        line.clone().oneshot(call)
    };
    let info = redis::cmd("INFO").arg("cluster").take();
    let info: String = ask(info).await?.decode()?;
    if info.contains("cluster_enabled:1") {
        return Err(Error::invalid(
            "each node of a cluster knows its own keys only, so there is no list of the queues: name the queue",
        ));
    }
    let until = Instant::now() + MOST;
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg("seawall:{*}:*");
        scan.arg("COUNT").arg(1_000);
        let (next, keys): (String, Vec<Vec<u8>>) = ask(scan).await?.decode()?;
        found.extend(keys.iter().filter_map(|key| queue_of(key)));
        if next == "0" {
            return Ok(found.into_iter().collect());
        }
        if Instant::now() >= until {
            return Err(too_many());
        }
        cursor = next;
    }
}

/// Long enough for some ten million keys.
const MOST: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(5);

/// The queue that a key is of.
fn queue_of(key: &[u8]) -> Option<String> {
    let key = std::str::from_utf8(key).ok()?;
    let (tag, rest) = key.strip_prefix("seawall:{")?.split_once("}:")?;
    let queue = rest.rsplit_once(':').map_or(tag, |(queue, _)| queue);
    // A lane's key looks like that, too.
    let is_key = Keys::of(queue).all().iter().any(|known| known == key);
    is_key.then(|| queue.to_owned())
}

fn too_many() -> Error {
    let verdict = crate::classify::Verdict::new(
        crate::classify::Class::Permanent,
        crate::classify::Landed::No,
    );
    Error::new(ErrorKind::Timeout, verdict)
        .with_cause("the database has too many keys to look at all their names: name the queue")
        .with_call("queue_names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_known_by_each_of_its_keys_and_by_no_other() {
        for queue in [
            "emails",
            "app:{emails}:high",
            "{}emails",
            "a}b",
            "{a",
            "a:b",
        ] {
            for key in Keys::of(queue).all() {
                assert_eq!(queue_of(key.as_bytes()).as_deref(), Some(queue), "{key}");
            }
        }
        for other in [
            "seawall:{emails}:lane:019a0000-0000-7000-8000-000000000001",
            "seawall:{emails}:emails:jobs",
            "seawall:{emails}:nonsense",
            "seawall:{emails}",
            "emails",
        ] {
            assert_eq!(queue_of(other.as_bytes()), None, "{other}");
        }
    }
}
