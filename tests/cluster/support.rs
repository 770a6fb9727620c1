//! What the tests of a cluster share.

use std::time::Duration;

/// Ends a test that would hang; no test passes or fails by it otherwise.
pub const PLENTY: Duration = Duration::from_secs(60);

pub fn cmd(line: &str) -> redis::Cmd {
    let mut words = line.split_whitespace();
    let mut cmd = redis::cmd(words.next().unwrap());
    cmd.arg(words.collect::<Vec<_>>());
    cmd
}
