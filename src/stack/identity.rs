//! Which deployment a URL leads to, without who we are to it.

use std::fmt;

/// What tells one deployment from another: its kind, its hosts, and the master and the database there.
///
/// No user, password or setting is part of it: those may change and it is still the same data. Its text is
/// one line without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    kind: Kind,
    /// Sorted, as the URL has them: `host:port`, or the path of a unix socket.
    hosts: Vec<String>,
    /// `0`, or `mymaster/0`; `-` for a cluster.
    inside: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Standalone,
    Sentinel,
    Cluster,
    Unix,
}

impl Identity {
    /// Of a URL that the connection has found to be sound.
    pub(super) fn of(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let kind = match scheme {
            "unix" | "redis+unix" => Kind::Unix,
            _ if scheme.ends_with("+sentinel") => Kind::Sentinel,
            _ if scheme.ends_with("+cluster") => Kind::Cluster,
            _ => Kind::Standalone,
        };
        if kind == Kind::Unix {
            let mut keys = query.split('&').filter_map(|pair| pair.split_once('='));
            let database = keys.find(|(key, _)| *key == "db").map(|(_, db)| db);
            return Self {
                kind,
                hosts: vec![rest.to_owned()],
                inside: database.unwrap_or("0").to_owned(),
            };
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts = authority
            .rsplit_once('@')
            .map_or(authority, |(_, hosts)| hosts);
        let port = if kind == Kind::Sentinel {
            SENTINEL_PORT
        } else {
            PORT
        };
        let mut hosts: Vec<_> = hosts.split(',').map(|host| with_port(host, port)).collect();
        hosts.sort();
        hosts.dedup();
        let path = path.trim_matches('/');
        let inside = match kind {
            Kind::Cluster => "-".to_owned(),
            Kind::Sentinel if !path.contains('/') => format!("{path}/0"),
            Kind::Standalone if path.is_empty() => "0".to_owned(),
            _ => path.to_owned(),
        };
        Self {
            kind,
            hosts,
            inside,
        }
    }

    /// Reads back the text that it is written as.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let kind = words.next()?;
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        let inside = words.next()?.to_owned();
        let hosts = words.next()?;
        let hosts = match kind {
            Kind::Unix => vec![hosts.to_owned()],
            _ => hosts.split(',').map(str::to_owned).collect(),
        };
        Some(Self {
            kind,
            hosts,
            inside,
        })
    }

    /// Whether it is the same one. Of several sentinels or nodes some may have been replaced.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.inside == other.inside
            && self.hosts.iter().any(|host| other.hosts.contains(host))
    }

    /// A name for it that can be a directory's and a label's: see [`is_name`].
    pub(super) fn name(&self) -> String {
        let host = self.hosts.first().map_or("", String::as_str);
        let whole = match (self.kind, &*self.inside) {
            (Kind::Sentinel, inside) => {
                format!("{}-{host}", inside.strip_suffix("/0").unwrap_or(inside))
            }
            (Kind::Cluster, _) | (_, "0") => host.to_owned(),
            (_, inside) => format!("{host}-{inside}"),
        };
        let whole = whole.to_lowercase();
        let name: String = whole
            .chars()
            .map(|c| if is_plain(c) { c } else { '-' })
            .collect();
        let name = name.trim_matches(|c| matches!(c, '-' | '.'));
        let name: String = name.chars().take(LONGEST_NAME).collect();
        if name.is_empty() {
            "redis".to_owned()
        } else {
            name
        }
    }
}

/// Whether a target can have this name: it is a directory's name, and a label's value.
pub(super) fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.chars().all(is_plain)
        && !name.starts_with(['.', '-'])
        // What else can be in a spool's directory.
        && !["slot-", "gen-"].iter().any(|ours| name.starts_with(ours))
        && name != "quarantine"
}

/// What [`is_name`] asks for, in words.
pub(super) const NAME: &str = "a name is of 1 to 64 small letters, digits, - _ and . , does not begin with - or . , \
     and is not one that a spool's own directories have";

const LONGEST_NAME: usize = 64;

/// No capitals: there are file systems that take them for small letters.
fn is_plain(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.')
}

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

fn with_port(host: &str, port: u16) -> String {
    let host = host.to_lowercase();
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(name, _)| !name.contains(':') || name.ends_with(']'));
    if has_port {
        host
    } else {
        format!("{host}:{port}")
    }
}

impl Kind {
    const ALL: [Self; 4] = [Self::Standalone, Self::Sentinel, Self::Cluster, Self::Unix];

    fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "redis",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
            Self::Unix => "unix",
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}",
            self.kind.as_str(),
            self.inside,
            self.hosts.join(",")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        Identity::of(one).is_same(&Identity::of(other))
    }

    #[test]
    fn who_we_are_and_what_is_set_is_no_part_of_it() {
        let plain = Identity::of("redis://cache.example");
        for url in [
            "redis://cache.example:6379/0",
            "redis://ann:p%40ss@Cache.Example/?protocol=resp3",
            "rediss://cache.example:6379",
            "redis://:a@cache.example/0?spool_after=1s&standby_url=redis%3A%2F%2Fh",
        ] {
            assert_eq!(Identity::of(url), plain, "{url}");
        }
        assert_eq!(plain.to_string(), "redis 0 cache.example:6379");
    }

    #[test]
    fn another_host_port_database_or_master_is_another_one() {
        for (one, other) in [
            ("redis://a", "redis://b"),
            ("redis://a", "redis://a:7000"),
            ("redis://a/0", "redis://a/1"),
            ("redis+sentinel://a,b/m", "redis+sentinel://a,b/n"),
            ("redis+sentinel://a,b/m/0", "redis+sentinel://a,b/m/1"),
            ("redis+sentinel://a,b/m", "redis+sentinel://c,d/m"),
            ("redis+cluster://a:1", "redis://a:1"),
            ("unix:///run/a", "unix:///run/b"),
            ("unix:///run/a", "unix:///run/a?db=1"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn sentinels_and_nodes_may_be_replaced_one_by_one() {
        assert!(same(
            "redis+sentinel://u:p@a:1,b:2/m",
            "redis+sentinel://b:2,c:3/m/0"
        ));
        assert!(same("redis+sentinel://a/m", "rediss+sentinel://a:26379/m"));
        assert!(same("redis+cluster://a:1,b:2", "redis+cluster://b:2,c:3"));
    }

    #[test]
    fn it_can_be_read_back() {
        for url in [
            "redis://[::1]:7000/3",
            "redis+sentinel://b,a/m",
            "redis+cluster://a:1,b:2",
            "unix:///run/my%20redis.sock?user=a&db=2&pass=s3cret",
        ] {
            let identity = Identity::of(url);
            let text = identity.to_string();
            assert!(!text.contains("s3cret"));
            let back = Identity::parse(&text).expect(&text);
            assert!(
                back.is_same(&identity) && back.to_string() == text,
                "{text}"
            );
        }
        assert!(Identity::parse("").is_none() && Identity::parse("http 0 a").is_none());
    }

    #[test]
    fn its_name_can_be_a_directorys() {
        for (url, name) in [
            ("redis://10.0.0.1", "10.0.0.1-6379"),
            ("redis://[::1]:7000/3", "1--7000-3"),
            ("redis+sentinel://s2,s1:5/mymaster", "mymaster-s1-5"),
            ("redis+cluster://b:2,a:1", "a-1"),
            ("unix:///run/my%20redis.sock", "run-my-20redis.sock"),
        ] {
            assert_eq!(Identity::of(url).name(), name);
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "A",
            "slot-1",
            "gen-2",
            "quarantine",
            "-a",
            "a b",
        ] {
            assert!(!is_name(name), "{name}");
        }
        assert!(!is_name(&"a".repeat(65)));
    }
}
