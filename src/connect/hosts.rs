//! URLs that name several hosts: `redis+sentinel://` and `redis+cluster://`.
//!
//! A list of hosts is no URL to the `url` crate, so these are taken apart by hand.

use std::net::Ipv6Addr;

use super::{
    ConnectError, ConnectOptions,
    deployment::{Deployment, Endpoint, SentinelGroup},
    url::{ENCODE, PORT, apply, database, decoded},
};

/// Reads the text after `redis+sentinel://`.
pub(super) fn sentinel(rest: &str, tls: bool) -> Result<ConnectOptions, ConnectError> {
    let parts = Parts::of(rest)?;
    let (master, db) = match parts.path.split_once('/') {
        Some((master, db)) => (master, Some(db)),
        None => (parts.path, None),
    };
    let master = decoded("the master's name", master)?;
    if master.is_empty() {
        return Err(ConnectError::url(
            "the path must be the name that the sentinels have for the master, as in \
             redis+sentinel://host1,host2,host3/mymaster/0",
        ));
    }
    if master.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(ConnectError::url(
            "the master's name has blanks in it, which no sentinel allows",
        ));
    }
    let deployment = Deployment::Sentinel(SentinelGroup {
        seeds: endpoints(parts.hosts, SENTINEL_PORT)?,
        master: (&*master).into(),
        tls,
    });
    let mut options = parts.log_in(ConnectOptions::new(deployment).with_sentinel_tls(tls))?;
    if let Some(db) = db.filter(|db| !db.is_empty()) {
        options = options.with_database(database(db)?);
    }
    let known = [
        "protocol",
        "client_name",
        "sentinel_user",
        "sentinel_pass",
        "sentinel_tls",
    ];
    apply(options, parts.query, &known)
}

const SENTINEL_PORT: u16 = 26379;

/// Reads the text after `redis+cluster://`.
pub(super) fn cluster(rest: &str, tls: bool) -> Result<ConnectOptions, ConnectError> {
    let parts = Parts::of(rest)?;
    if !parts.path.is_empty() && database(parts.path)? != 0 {
        return Err(ConnectError::url("a cluster has no database other than 0"));
    }
    let seeds = endpoints(parts.hosts, PORT)?;
    let seeds = seeds.into_iter().map(|seed| seed.address(tls)).collect();
    let options = parts.log_in(ConnectOptions::new(Deployment::Cluster(seeds)))?;
    apply(options, parts.query, &["protocol", "client_name"])
}

struct Parts<'a> {
    login: Option<&'a str>,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(rest: &'a str) -> Result<Self, ConnectError> {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if tail.contains('@') {
            return Err(ConnectError::url(ENCODE));
        }
        if tail.contains('#') {
            return Err(ConnectError::url(
                "it has a fragment (#..), and none means anything: certificates are always checked",
            ));
        }
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        Ok(Self {
            login,
            hosts,
            path: path
                .strip_prefix('/')
                .map_or("", |path| path.strip_suffix('/').unwrap_or(path)),
            query,
        })
    }

    fn log_in(&self, mut options: ConnectOptions) -> Result<ConnectOptions, ConnectError> {
        let Some(login) = self.login else {
            return Ok(options);
        };
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        if !user.is_empty() {
            options = options.with_username(decoded("the user", user)?);
        }
        if let Some(password) = password.filter(|password| !password.is_empty()) {
            options = options.with_password(decoded("the password", password)?);
        }
        Ok(options)
    }
}

/// No error repeats a host: it may be the rest of a password that was not encoded.
fn endpoints(hosts: &str, default_port: u16) -> Result<Vec<Endpoint>, ConnectError> {
    let mut found: Vec<Endpoint> = Vec::new();
    for host in hosts.split(',') {
        let endpoint = endpoint(host.trim(), default_port)?;
        if !found.contains(&endpoint) {
            found.push(endpoint);
        }
    }
    if found.len() > MOST_HOSTS {
        return Err(ConnectError::url(format!(
            "it names more than {MOST_HOSTS} hosts; a few are enough, the others are learnt"
        )));
    }
    Ok(found)
}

const MOST_HOSTS: usize = 32;

fn endpoint(text: &str, default_port: u16) -> Result<Endpoint, ConnectError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (ip, port) = text
                .split_once(']')
                .ok_or_else(|| ConnectError::url("a [ before an IPv6 address has no ] after it"))?;
            let ip: Ipv6Addr = ip
                .parse()
                .map_err(|_| ConnectError::url("what stands in [ ] is no IPv6 address"))?;
            (ip.to_string(), port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (decoded("a host", host)?.into_owned(), port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default_port,
        Some("") => default_port,
        Some(port) if port.contains(':') => {
            return Err(ConnectError::url("an IPv6 address must stand in [ ]"));
        }
        port => match port.and_then(|port| port.parse().ok()) {
            Some(0) => return Err(ConnectError::url("port 0 cannot be connected to")),
            Some(port) => port,
            None => {
                return Err(ConnectError::url(
                    "a port must be a number up to 65535, and hosts are separated by commas",
                ));
            }
        },
    };
    let strange = |c: char| c.is_whitespace() || c.is_control() || "/?#@[]<>\\^|%".contains(c);
    if host.is_empty() {
        return Err(ConnectError::url("one of its hosts is empty"));
    }
    if host.contains(strange) {
        return Err(ConnectError::url(
            "one of its hosts has characters that no host has",
        ));
    }
    Ok(Endpoint::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::url::parse;

    fn why(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    fn group(options: &ConnectOptions) -> (Vec<String>, String) {
        match &options.deployment {
            Deployment::Sentinel(group) => {
                let seeds = group.seeds.iter().map(ToString::to_string).collect();
                (seeds, group.master.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    fn nodes(options: &ConnectOptions) -> Vec<String> {
        match &options.deployment {
            Deployment::Cluster(nodes) => nodes.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_part_of_a_sentinel_url_arrives() {
        let options = parse(
            "redis+sentinel://us%40er:p%2Fa%3Ass+@h1:1,h2.example:2,[::1]:3/my%2Dmaster/4\
             ?sentinel_user=watcher&sentinel_pass=w%40tch&protocol=resp3&client_name=app",
        );
        let options = options.unwrap();
        let (seeds, master) = group(&options);
        assert_eq!(seeds, ["h1:1", "h2.example:2", "[::1]:3"]);
        assert_eq!(master, "my-master");
        assert_eq!(options.username.as_deref(), Some("us@er"));
        assert_eq!(options.password.as_ref().unwrap().expose(), "p/a:ss+");
        assert_eq!(options.database, 4);
        assert_eq!(options.sentinel_username.as_deref(), Some("watcher"));
        let password = options.sentinel_password.as_ref().unwrap();
        assert_eq!(password.expose(), "w@tch");
        assert!(options.protocol.supports_resp3());
        assert_eq!(options.client_name, "app");
        options.check().unwrap();
    }

    #[test]
    fn what_a_sentinel_url_leaves_out_has_its_default() {
        let options = parse("redis+sentinel://h1,[2001:db8::1],h1/m").unwrap();
        let (seeds, _) = group(&options);
        assert_eq!(seeds, ["h1:26379", "[2001:db8::1]:26379"]);
        assert_eq!(options.database, 0);
        assert!(options.password.is_none() && options.sentinel_password.is_none());
        assert_eq!(parse("redis+sentinel://h/m/").unwrap().database, 0);
    }

    #[test]
    fn every_part_of_a_cluster_url_arrives() {
        let options = parse("redis+cluster://ann:pw@h1:1,h2,[::1]?protocol=resp3").unwrap();
        assert_eq!(nodes(&options), ["h1:1", "h2:6379", "[::1]:6379"]);
        assert_eq!(options.username.as_deref(), Some("ann"));
        assert_eq!(options.password.as_ref().unwrap().expose(), "pw");
        assert!(options.protocol.supports_resp3());
        for path in ["", "/", "/0"] {
            let _ = parse(&format!("redis+cluster://h1,h2{path}")).unwrap();
        }
        assert!(why("redis+cluster://h1,h2/1").contains("no database other than 0"));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_is_for_the_sentinels_too_unless_said_otherwise() {
        let of = |text: &str| {
            let options = parse(text).unwrap();
            match &options.deployment {
                Deployment::Sentinel(group) => (group.tls, options.sentinel_tls),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of("redis+sentinel://h/m"), (false, Some(false)));
        assert_eq!(of("rediss+sentinel://h/m"), (true, Some(true)));
        assert_eq!(
            of("rediss+sentinel://h/m?sentinel_tls=false"),
            (true, Some(false))
        );
        assert!(why("rediss+sentinel://h/m?sentinel_tls=maybe").contains("true or false"));
        let nodes = parse("rediss+cluster://h").unwrap();
        assert!(format!("{:?}", nodes.deployment).contains("Tls"));
    }

    #[test]
    fn a_wrong_url_is_refused_with_what_to_change() {
        for (url, hint) in [
            ("redis+sentinel://h1,h2", "mymaster"),
            ("redis+sentinel://h1,h2/", "mymaster"),
            ("redis+sentinel://h1,h2//0", "mymaster"),
            ("redis+sentinel://h1,h2/m/one", "a number"),
            ("redis+sentinel://h1,h2/m/1/2", "a number"),
            ("redis+sentinel://h1,,h2/m", "empty"),
            ("redis+sentinel://h1,/m", "empty"),
            ("redis+sentinel:///m", "empty"),
            ("redis+sentinel://:1/m", "empty"),
            ("redis+sentinel://h:0/m", "port 0"),
            ("redis+sentinel://h:99999/m", "65535"),
            ("redis+sentinel://h:1;h:2/m", "[ ]"),
            ("redis+sentinel://::1/m", "[ ]"),
            ("redis+sentinel://[::1/m", "no ]"),
            ("redis+sentinel://[h]/m", "IPv6"),
            ("redis+sentinel://h/m#x", "fragment"),
            ("redis+sentinel://h/m?db=1", "sentinel_pass"),
            ("redis+sentinel://h 1/m", "characters"),
            ("redis+cluster://", "empty"),
            ("redis+cluster://h/x", "a number"),
            ("redis+cluster://h?sentinel_user=x", "protocol, client_name"),
        ] {
            let why = why(url);
            assert!(why.contains(hint), "{url}: {why}");
        }
    }

    #[test]
    fn no_error_repeats_a_password_however_badly_it_was_encoded() {
        for mangled in [
            "redis+sentinel://u:s3cret/x@h1:1,h2:2/m",
            "redis+sentinel://u:1/s3cret@h1:1,h2:2/m",
            "redis+sentinel://u:1?s3cret@h1/m",
            "redis+sentinel://u:1#s3cret@h1/m",
            "redis+sentinel://u,p:s3cret",
            "redis+sentinel://:s3cret%ff@h1,h2/m",
            "redis+sentinel://:s3cret@h1,h2",
            "redis+sentinel://h/m?sentinel_pass=s3&cret=1",
            "redis+sentinel://h/m?sentinel_pass=s3cret&sentinel_pass=s3cret",
            "redis+sentinel://h/m?sentinel_tls=s3cret",
            "redis+cluster://u:s3cret/x@h",
            "redis+cluster://:s3cret@h/1",
        ] {
            let error = parse(mangled).expect_err(mangled);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("cret"), "{mangled}: {shown}");
        }
    }
}
