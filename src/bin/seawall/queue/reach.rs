//! The way to Redis: without a spool, since nothing is kept for later here.

use std::{sync::Arc, time::Duration};

use clap::Args;
use seawall::{
    Error, RedisCall, Reply,
    connect::{ConnectError, ConnectOptions, Connection, Status, Trouble},
    error::ErrorKind,
    retry::RetryLayer,
    stack::SETTINGS,
    worker::Queue,
};
use tower::{ServiceBuilder, util::BoxCloneSyncService};

use crate::{
    Result,
    failure::{Code, Failure, chain},
};

/// How Redis is reached.
#[derive(Args)]
pub(crate) struct Reach {
    /// The URL of Redis, as the application has it; out of sight of other users in SEAWALL_REDIS_URL
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// How long to wait for Redis, and for each of its answers
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Which queue.
#[derive(Args)]
pub(crate) struct OneQueue {
    /// The queue's name
    #[arg(value_name = "QUEUE")]
    pub(crate) name: String,
    #[command(flatten)]
    reach: Reach,
}

impl OneQueue {
    pub(crate) async fn open(&self) -> Result<Queue> {
        is_name(&self.name)?;
        Ok(self.reach.open().await?.queue(&self.name))
    }
}

/// A name, and not what was meant for another argument.
pub(crate) fn is_name(queue: &str) -> Result<()> {
    if queue.contains("://") {
        return Err(Failure::usage("the queue is given as a URL")
            .with_next("give the queue's name as QUEUE; the URL of Redis goes to --redis URL"));
    }
    Ok(())
}

/// A connection that has worked.
pub(crate) struct Reached {
    pub(crate) line: BoxCloneSyncService<RedisCall, Reply, Error>,
    timeout: Duration,
}

impl Reached {
    pub(crate) fn queue(&self, name: &str) -> Queue {
        Queue::new(Arc::<str>::from(name), self.line.clone()).with_timeout(self.timeout)
    }
}

impl Reach {
    pub(crate) async fn open(&self) -> Result<Reached> {
        let from_environment = || std::env::var("SEAWALL_REDIS_URL").ok();
        let url = self.redis.clone().or_else(from_environment);
        let url = url.filter(|url| !url.is_empty()).ok_or_else(|| {
            Failure::usage("in which Redis?")
                .with_next("give its URL as --redis URL, or in SEAWALL_REDIS_URL")
        })?;
        let options = ConnectOptions::from_url(&without_settings(&url))?
            .with_response_timeout(self.timeout)
            .with_client_name("seawall-cli");
        let connection = Connection::open(options)?;
        connection.check(self.timeout).await?;
        let mut status = connection.status();
        let hopeless = async {
            let stays = |status: &Status| !status.up && status.trouble.is_some_and(stays);
            if status.wait_for(stays).await.is_err() {
                std::future::pending().await
            }
        };
        let ready = tokio::select! {
            ready = connection.wait_ready(self.timeout) => ready,
            () = hopeless => connection.wait_ready(Duration::ZERO).await,
        };
        if let Err(error) = ready {
            let trouble = connection.status().borrow().trouble;
            return Err(away(&error, trouble));
        }
        let line = ServiceBuilder::new()
            .layer(RetryLayer::default())
            .service(connection);
        Ok(Reached {
            line: BoxCloneSyncService::new(line),
            timeout: self.timeout,
        })
    }
}

/// The application's URL may hold settings of the spool and others that mean nothing here.
fn without_settings(url: &str) -> String {
    let Some((before, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let is_setting = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        SETTINGS.iter().any(|(known, _)| *known == name)
    };
    let left: Vec<_> = query.split('&').filter(|pair| !is_setting(pair)).collect();
    match left[..] {
        [] => before.to_owned(),
        _ => format!("{before}?{}", left.join("&")),
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::usage(chain(&error))
    }
}

/// Whether it is none that goes away by itself.
fn stays(trouble: Trouble) -> bool {
    matches!(
        trouble,
        Trouble::Credentials
            | Trouble::Database
            | Trouble::NoCluster
            | Trouble::Protocol
            | Trouble::SentinelCredentials
            | Trouble::Tls
            | Trouble::UnknownMaster
    )
}

/// There is no connection.
fn away(error: &Error, trouble: Option<Trouble>) -> Failure {
    let failure = match trouble {
        Some(trouble) => Failure::new(format!("Redis is away: {trouble}")),
        None => Failure::new(format!("Redis is away: {}", chain(error))),
    };
    let next = match trouble {
        Some(Trouble::Credentials | Trouble::SentinelCredentials) => {
            "give the URL with the user and password that the application has"
        }
        _ => NEXT,
    };
    failure.with_code(Code::Away).with_next(next)
}

const NEXT: &str = "see that the URL is right and Redis is up; then run it again, or with a longer --timeout. What \
     applications enqueue meanwhile is kept on their disks: see `seawall spool stat`";

/// A call has failed.
pub(crate) fn failed(error: &Error) -> Failure {
    let failure = Failure::new(chain(error));
    let refused = |code: &str| {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        cause.is_some_and(|cause| cause.starts_with(code))
    };
    match error.kind() {
        ErrorKind::Invalid => failure,
        _ if refused("NOPERM") => failure.with_next(
            "give the user of the URL the commands EVALSHA, SCRIPT LOAD, and those of docs/operations.md, on the keys seawall:*",
        ),
        _ if refused("WRONGTYPE") => {
            failure.with_next("find out who else uses keys that begin with seawall: in this database")
        }
        _ if error.is_permanent() => failure,
        _ => failure.with_code(Code::Away).with_next(NEXT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_applications_is_taken_out_of_the_url() {
        for (url, left) in [
            ("redis://h", "redis://h"),
            ("redis://h/1?spool_dir=/a&spool_after=1ms", "redis://h/1"),
            (
                "redis://h?protocol=resp3&ack=spooled",
                "redis://h?protocol=resp3",
            ),
        ] {
            assert_eq!(without_settings(url), left);
        }
    }
}
