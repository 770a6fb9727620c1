//! What an error's source said, without what it may quote.

use std::{borrow::Cow, error::Error as StdError, fmt};

use redis::RedisError;

/// What a foreign error said, in so far as it can be repeated.
#[derive(Debug)]
pub(super) struct Cause(pub(super) Cow<'static, str>);

impl Cause {
    /// In Redis' own words, which operators know and search for; the redis crate has others.
    pub(super) fn of(error: &RedisError) -> Self {
        let Some(refusals) = error.clone().into_server_errors() else {
            return Self(unquoted(&error.to_string()).into());
        };
        let mut reasons: Vec<String> = Vec::new();
        for (_, refusal) in refusals.iter() {
            // Of an aborted transaction: the reason stands beside it.
            if refusal.code() == "EXECABORT" && refusals.len() > 1 {
                continue;
            }
            let details = refusal.details().unwrap_or_default();
            let reason = unquoted(&format!("{} {details}", refusal.code()));
            if !reasons.contains(&reason) && reasons.len() < MOST_REASONS {
                reasons.push(reason);
            }
        }
        Self(reasons.join("; ").into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Cause {}

/// The part that quotes nothing. Redis puts the caller's own words between quotation marks:
/// `ERR unknown command 'x', with args beginning with: 'secret'`. One inside a word opens nothing:
/// `READONLY You can't write against a read only replica`.
pub(super) fn unquoted(message: &str) -> String {
    let mut before = ' ';
    let quotes = |next: char| {
        let opens = matches!(next, '\'' | '"' | '`') && !before.is_alphanumeric();
        before = next;
        opens
    };
    let words = message.split(quotes).next().unwrap_or_default();
    let words: String = words.chars().take(LONGEST).collect();
    words.trim_end().to_owned()
}

const LONGEST: usize = 200;

/// A pipeline can be refused for as many reasons as it has commands.
const MOST_REASONS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apostrophe_is_not_a_quotation_mark() {
        for message in [
            "READONLY You can't write against a read only replica.",
            "CROSSSLOT Keys in request don't hash to the same slot",
        ] {
            assert_eq!(unquoted(message), message);
        }
        for (message, kept) in [
            ("ERR unknown command 'k3y'", "ERR unknown command"),
            ("ERR unknown command `k3y`", "ERR unknown command"),
            ("ERR (\"k3y\" isn't it)", "ERR ("),
            ("'k3y'", ""),
        ] {
            assert_eq!(unquoted(message), kept);
        }
    }
}
