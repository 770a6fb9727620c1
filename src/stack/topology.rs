//! Which deployments there are, and when to go from one to another: [`Topology`].

use std::{
    collections::BTreeSet, fmt, future::Future, ops::RangeInclusive, sync::Arc, time::Duration,
};

use futures_util::future::BoxFuture;

use super::{
    BuildError,
    failover::Rules,
    identity::{self, Identity},
};
use crate::connect::Connection;

/// One Redis deployment, or several that are independent of each other, of which one is used at a time.
///
/// A deployment is a server, a set behind Sentinel, or a cluster: whatever one URL leads to. Most have
/// one: `Seawall::builder("redis://localhost", ..)` is all there is to it.
///
/// # Several
///
/// ```no_run
/// use std::time::Duration;
/// use seawall::{Seawall, stack::Topology};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let topology = Topology::failover(["redis://redis.eu.example", "redis://redis.us.example"])
///     .with_names(["eu", "us"])
///     .with_threshold(Duration::from_secs(5))
///     .with_grace(Duration::from_secs(300));
/// let seawall = Seawall::builder(topology, "/var/lib/app/spool")?.connect().await?;
/// for target in seawall.targets() {
///     println!("{} {} {}", target.name(), target.is_active(), target.is_healthy());
/// }
/// # Ok(())
/// # }
/// ```
///
/// Calls and new jobs go to the first one that is named, the *primary*, and go to the next that is healthy
/// once it has been out for the threshold. When it has been healthy for the grace period they go back.
/// Nothing is copied from one to the other: a job is in the one that was active when it was handed in.
///
/// - **Healthy** is a target with a connection that was checked to lead to a master and answers its probes,
///   whose circuit breaker lets calls through, and that passes the [check](Self::with_check) of your own, if
///   there is one.
/// - **A call that is under way stays where it is.** So does a job: one that may have landed in a target, or
///   that went to disk while that was active, is delivered there, once it is back, and nowhere else. To
///   give it up, see [`Seawall::move_spooled`](super::Seawall::move_spooled).
/// - **Exactly once and in order is per queue and target.** Who reads both has the jobs of one before or
///   after those of the other.
/// - **With all of them out nothing changes**: jobs go to disk for the active one.
/// - **A start begins with the primary**, whichever was active before; what waits on disk for each goes to each.
/// - **A target that comes and goes** is left as well, since the time for which it is out is added up, less a
///   quarter of the time for which it is not. Each time it fails again soon after it was gone back to, the next
///   return takes twice as long.
/// - **Bounds are per target**: each has the memory, the disk, the connections and the retry budget that are set.
///
/// Each target has a spool of its own, in a directory of its name in the spool's directory. What its URL leads
/// to is noted beside it: see [`with_moved`](Self::with_moved).
///
/// # Default
///
/// - names: of the hosts and ports, such as `redis.eu.example-6379`
/// - threshold: 10 s, long enough for a failover behind Sentinel, or a restart
/// - grace: 60 s; it doubles up to 30 minutes
/// - a check of your own: none
#[derive(Clone)]
#[must_use]
pub struct Topology {
    urls: Vec<String>,
    pub(super) failover: bool,
    names: Option<Vec<String>>,
    moved: BTreeSet<String>,
    pub(super) threshold: Duration,
    pub(super) grace: Option<Duration>,
    pub(super) longest_hold: Duration,
    pub(super) check: Option<Check>,
}

impl Topology {
    /// The deployment at `url`, and no other.
    pub fn single(url: impl Into<String>) -> Self {
        Self::of(vec![url.into()], false)
    }

    /// The deployments at these URLs, the most preferred one first: two at least, 16 at most.
    ///
    /// The first URL's query may hold [`SETTINGS`](super::SETTINGS), which are for all of them.
    pub fn failover<U: Into<String>>(urls: impl IntoIterator<Item = U>) -> Self {
        Self::of(urls.into_iter().map(Into::into).collect(), true)
    }

    fn of(urls: Vec<String>, failover: bool) -> Self {
        Self {
            urls,
            failover,
            names: None,
            moved: BTreeSet::new(),
            threshold: Duration::from_secs(10),
            grace: Some(Duration::from_secs(60)),
            longest_hold: Duration::from_secs(30 * 60),
            check: None,
        }
    }

    /// What the targets are called, in their order: in directories, metrics, events and
    /// [`Seawall::target`](super::Seawall::target).
    ///
    /// A name is of 1 to 64 small letters, digits, `-`, `_` and `.`. A target that keeps its name keeps its
    /// spool, wherever it is in the order.
    pub fn with_names<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// How long the active target may be out before the next one is used. From 10 ms to an hour.
    ///
    /// Until then jobs go to disk, for the target that is out, and calls fail.
    pub fn with_threshold(mut self, threshold: Duration) -> Self {
        self.threshold = threshold;
        self
    }

    /// How long a preferred target must have been healthy, without a break, before it is gone back to. From
    /// 10 ms to 7 days.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Does not go back to a preferred target until the active one is out: for when somebody is to look first.
    pub fn without_failback(mut self) -> Self {
        self.grace = None;
        self
    }

    /// What the grace period grows to for a target that fails again and again. From 10 ms to 7 days; the
    /// grace period itself if that is longer.
    pub fn with_longest_hold(mut self, longest: Duration) -> Self {
        self.longest_hold = longest;
        self
    }

    /// Asks `check` as well whether a target is healthy: each of them that has a connection, every `interval`,
    /// and no answer within `timeout` is a no. Both from 10 ms to an hour.
    ///
    /// For what a probe can't see: that replication is not far behind, that a key is there.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use seawall::{RedisCall, stack::Topology};
    /// use tower::ServiceExt;
    ///
    /// let topology = Topology::failover(["redis://a", "redis://b"]).with_check(
    ///     Duration::from_secs(1),
    ///     Duration::from_millis(500),
    ///     async |connection| {
    ///         let call = RedisCall::new("is_open", redis::cmd("EXISTS").arg("open_for_business"));
    ///         let reply = connection.oneshot(call).await;
    ///         reply.is_ok_and(|reply| reply.decode().unwrap_or(false))
    ///     },
    /// );
    /// ```
    pub fn with_check<F, A>(mut self, interval: Duration, timeout: Duration, check: F) -> Self
    where
        F: Fn(Connection) -> A + Send + Sync + 'static,
        A: Future<Output = bool> + Send + 'static,
    {
        let ask =
            Arc::new(move |connection| Box::pin(check(connection)) as BoxFuture<'static, bool>);
        self.check = Some(Check {
            interval,
            timeout,
            ask,
        });
        self
    }

    /// Says that the deployment of this name has moved: what waits on disk for it is for where its URL leads now.
    ///
    /// Without that, a spool with records that was written for another host, port, database or master is not
    /// opened ([`BuildError::OtherDeployment`]), since what is in it may have landed there. User, password and
    /// settings may change at will, and so may some of several sentinels or cluster nodes.
    ///
    /// It may stay: once it has been noted where the target is now, it changes nothing.
    pub fn with_moved(mut self, name: impl Into<String>) -> Self {
        self.moved.insert(name.into());
        self
    }

    pub(super) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The same primary with these as standbys.
    pub(super) fn with_standbys(mut self, urls: impl IntoIterator<Item = String>) -> Self {
        self.urls.extend(urls);
        self.failover = true;
        self
    }

    /// The names and identities of the targets.
    pub(super) fn targets(&self) -> Result<Vec<Named>, BuildError> {
        let identities = self.urls.iter().map(|url| Identity::of(url));
        let identities: Vec<_> = identities.collect();
        let names = match &self.names {
            Some(names) if names.len() == identities.len() => names.clone(),
            Some(_) => return Err(wrong("there must be one name for each URL")),
            None => identities.iter().map(Identity::name).collect(),
        };
        if let Some(name) = names.iter().find(|name| !identity::is_name(name)) {
            return Err(wrong(format!(
                "{name:?} can't be the name of a target: {}",
                identity::NAME
            )));
        }
        let distinct: BTreeSet<_> = names.iter().collect();
        if distinct.len() < names.len() {
            return Err(wrong(
                "two targets have the same name: see Topology::with_names",
            ));
        }
        if let Some(name) = self.moved.iter().find(|name| !names.contains(name)) {
            return Err(wrong(format!(
                "{name:?} is said to have moved, and is not the name of a target"
            )));
        }
        let moved = |name: &String| self.moved.contains(name);
        let named = names
            .into_iter()
            .zip(identities)
            .map(|(name, identity)| Named {
                moved: moved(&name),
                name,
                identity,
            });
        Ok(named.collect())
    }

    /// Refuses what makes no sense, before anything is opened.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        if !self.failover {
            return Ok(());
        }
        if !TARGETS.contains(&self.urls.len()) {
            return Err(wrong("a failover is between 2 to 16 URLs"));
        }
        let identities: Vec<_> = self.urls.iter().map(|url| Identity::of(url)).collect();
        for (at, one) in identities.iter().enumerate() {
            if identities
                .iter()
                .skip(at + 1)
                .any(|other| one.is_same(other))
            {
                return Err(wrong(format!(
                    "two URLs lead to the same deployment, {one}"
                )));
            }
        }
        span("the threshold", self.threshold, SHORT..=HOUR)?;
        span("the grace period", self.grace.unwrap_or(HOUR), SHORT..=WEEK)?;
        span("the longest hold", self.longest_hold, SHORT..=WEEK)?;
        if let Some(check) = &self.check {
            span("the interval of the check", check.interval, SHORT..=HOUR)?;
            span("the timeout of the check", check.timeout, SHORT..=HOUR)?;
        }
        Ok(())
    }

    pub(super) fn rules(&self) -> Rules {
        Rules {
            threshold: self.threshold,
            grace: self.grace,
            longest_hold: self.longest_hold,
        }
    }
}

/// A target before it is opened.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) identity: Identity,
    /// What waits for it is for this deployment, whatever was noted.
    pub(super) moved: bool,
}

/// A question of the user's own.
#[derive(Clone)]
pub(super) struct Check {
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) ask: Arc<dyn Fn(Connection) -> BoxFuture<'static, bool> + Send + Sync>,
}

const TARGETS: RangeInclusive<usize> = 2..=16;
const SHORT: Duration = Duration::from_millis(10);
const HOUR: Duration = Duration::from_secs(60 * 60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

fn span(what: &str, value: Duration, allowed: RangeInclusive<Duration>) -> Result<(), BuildError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = (allowed.start(), allowed.end());
    Err(wrong(format!(
        "{what} must be between {least:?} and {most:?}"
    )))
}

fn wrong(why: impl Into<String>) -> BuildError {
    BuildError::Topology { why: why.into() }
}

impl From<&str> for Topology {
    fn from(url: &str) -> Self {
        Self::single(url)
    }
}

impl From<&String> for Topology {
    fn from(url: &String) -> Self {
        Self::single(url)
    }
}

/// Shows what tells the targets apart, not their URLs, which may hold passwords.
impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Topology");
        shown.field("targets", &self.urls.len());
        if self.failover {
            shown
                .field("names", &self.names)
                .field("moved", &self.moved)
                .field("threshold", &self.threshold)
                .field("grace", &self.grace)
                .field("longest_hold", &self.longest_hold)
                .field("check", &self.check.is_some());
        }
        shown.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Topology {
        Topology::failover(["redis://u:s3cret@a", "redis://b"])
    }

    fn why(topology: &Topology) -> String {
        let refused = topology.check().and_then(|()| topology.targets().map(drop));
        refused.expect_err("it is refused").to_string()
    }

    #[test]
    fn names_are_of_the_hosts_unless_they_are_given() {
        let names = |topology: Topology| -> Vec<String> {
            let targets = topology.targets().expect("they are sound");
            targets.into_iter().map(|target| target.name).collect()
        };
        assert_eq!(names(two()), ["a-6379", "b-6379"]);
        assert_eq!(names(two().with_names(["eu", "us"])), ["eu", "us"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (topology, part) in [
            (Topology::failover(["redis://a"]), "2 to 16 URLs"),
            (Topology::failover(vec!["redis://a"; 17]), "2 to 16 URLs"),
            (
                Topology::failover(["redis://a/0", "rediss://u:p@A:6379"]),
                "same deployment",
            ),
            (two().with_names(["eu"]), "one name for each"),
            (two().with_names(["eu", "eu"]), "same name"),
            (two().with_names(["eu", "../us"]), "can't be the name"),
            (two().with_moved("eu"), "said to have moved"),
            (two().with_threshold(Duration::ZERO), "threshold"),
            (two().with_threshold(Duration::MAX), "threshold"),
            (two().with_grace(Duration::MAX), "grace"),
            (two().with_longest_hold(Duration::ZERO), "longest hold"),
            (
                two().with_check(Duration::ZERO, HOUR, async |_| true),
                "interval",
            ),
            (
                two().with_check(HOUR, Duration::MAX, async |_| true),
                "timeout",
            ),
        ] {
            let why = why(&topology);
            assert!(why.contains(part), "{why}");
        }
        two().check().expect("the defaults are sound");
    }

    #[test]
    fn no_password_is_shown() {
        let shown = format!("{:?}", two().with_names(["a", "b"]));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
