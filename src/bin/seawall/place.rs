//! Which spool, and which of its lanes.

use std::path::{Path, PathBuf};

use clap::Args;
use seawall::spool::{
    LaneId, OpenError,
    stopped::{Lane, Look, Stopped, look},
};

use crate::failure::{Failure, Result};

/// The directory of the spool.
#[derive(Args)]
pub(crate) struct Place {
    /// The spool's directory [env: SEAWALL_SPOOL_DIR]
    #[arg(value_name = "DIR")]
    positional: Option<PathBuf>,
    /// The spool's directory, by name
    #[arg(long = "dir", value_name = "DIR", conflicts_with = "positional")]
    named: Option<PathBuf>,
    /// Go on with what is left, if records are lost
    #[arg(long)]
    damaged: bool,
}

impl Place {
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let given = self.positional.as_ref().or(self.named.as_ref()).cloned();
        let path = given
            .or_else(|| std::env::var_os("SEAWALL_SPOOL_DIR").map(Into::into))
            .filter(|path| !path.as_os_str().is_empty())
            .ok_or_else(|| {
                Failure::usage("which spool?")
                    .with_next("give its directory as DIR, as --dir DIR, or in SEAWALL_SPOOL_DIR")
            })?;
        if path.to_string_lossy().contains("://") {
            return Err(
                Failure::usage("the spool's directory is given as a URL").with_next(
                    "give the directory as DIR; the URL of Redis goes to drain, as --to URL",
                ),
            );
        }
        Ok(path)
    }

    /// Looks at the spool, and opens it unless a process has it open.
    pub(crate) async fn open(&self) -> Result<Stopped> {
        let path = self.path()?;
        is_ours(&look(&path)?)?;
        Ok(self.open_at(&path).await?)
    }

    pub(crate) async fn open_at(&self, path: &Path) -> std::result::Result<Stopped, OpenError> {
        if self.damaged {
            return Ok(Stopped::open_damaged(path).await?.0);
        }
        Stopped::open(path).await
    }

    /// Whether what is left is wanted, if records are lost.
    pub(crate) fn takes_damaged(&self) -> bool {
        self.damaged
    }
}

/// Refuses the spool of another user: what is made in it now would be closed to that user.
pub(crate) fn is_ours(look: &Look) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if look.owner == user {
        return Ok(());
    }
    let Look { path, owner, .. } = look;
    Err(
        Failure::new(format!("the spool in {path:?} belongs to user {owner}, and this is user {user}"))
            .with_next(format!(
                "run this as its owner, sudo -u '#{owner}' seawall ..: files made by another user would keep the application out"
            )),
    )
}

/// Which lanes.
#[derive(Args)]
pub(crate) struct Choice {
    /// Only this queue
    #[arg(long)]
    queue: Option<String>,
    /// Only this lane
    #[arg(long, value_name = "ID")]
    lane: Option<LaneId>,
}

impl Choice {
    pub(crate) fn takes(&self, queue: &str, lane: LaneId) -> bool {
        self.queue.as_deref().is_none_or(|only| only == queue)
            && self.lane.is_none_or(|only| only == lane)
    }

    /// The lanes that were asked for: all, or some of those that there are.
    pub(crate) fn of<'a>(&self, spool: &'a Stopped) -> Vec<&'a Lane> {
        let lanes = spool.lanes().iter();
        lanes
            .filter(|lane| self.takes(&lane.queue, lane.id))
            .collect()
    }

    pub(crate) fn is_all(&self) -> bool {
        self.queue.is_none() && self.lane.is_none()
    }
}

/// A lane's queue as it is shown.
pub(crate) fn named(lane: &Lane) -> String {
    queue_named(&lane.queue, lane.tail)
}

/// A queue, or its tail, as it is shown.
pub(crate) fn queue_named(queue: &str, tail: bool) -> String {
    let queue = crate::text::plain(queue);
    if tail {
        format!("tail of {queue}")
    } else {
        queue
    }
}

/// A path as it is shown.
pub(crate) fn shown(path: &Path) -> String {
    crate::text::plain(&path.to_string_lossy())
}
