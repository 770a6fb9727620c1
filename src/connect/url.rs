//! Redis URLs: which parts mean what, and which are refused.

use std::{borrow::Cow, path::PathBuf};

use ::url::{Host, Url};
use percent_encoding::percent_decode_str;
use redis::ProtocolVersion;

use super::{
    ConnectError, ConnectOptions,
    deployment::{Address, Deployment, Endpoint},
    hosts,
};

/// Reads a URL's text.
pub(super) fn parse(text: &str) -> Result<ConnectOptions, ConnectError> {
    // Lists of hosts are no URL to the parser, so the scheme comes first.
    let (scheme, rest) = text.split_once("://").ok_or(ConnectError::url(SCHEMES))?;
    let tls = scheme.starts_with("rediss");
    if tls && !cfg!(feature = "tls") {
        return Err(ConnectError::MissingFeature {
            scheme: "rediss",
            feature: "tls",
        });
    }
    match scheme {
        "redis" | "rediss" => tcp(&parsed(text)?, tls),
        "unix" | "redis+unix" => unix(&parsed(text)?),
        "redis+sentinel" | "rediss+sentinel" => hosts::sentinel(rest, tls),
        "redis+cluster" | "rediss+cluster" => hosts::cluster(rest, tls),
        _ => Err(ConnectError::url(SCHEMES)),
    }
}

fn parsed(text: &str) -> Result<Url, ConnectError> {
    // The parser's reason names no part of the text.
    Url::parse(text).map_err(|reason| ConnectError::url(format!("{reason}. {ENCODE}")))
}

const SCHEMES: &str = "the scheme must be one of redis://, rediss://, unix:///path, redis+unix:///path, \
     redis+sentinel:// and redis+cluster:// (with TLS: rediss+sentinel://, rediss+cluster://)";

/// Unencoded, they end the password early, and the rest of it turns up in another part of the URL.
pub(super) const ENCODE: &str =
    "In a user or password, `/`, `?`, `#`, `@` and `%` must be percent-encoded";

fn tcp(url: &Url, tls: bool) -> Result<ConnectOptions, ConnectError> {
    let path = url.path().trim_matches('/');
    let query = url.query().unwrap_or_default();
    let fragment = url.fragment().unwrap_or_default();
    if [path, query, fragment]
        .iter()
        .any(|part| part.contains('@'))
    {
        return Err(ConnectError::url(ENCODE));
    }
    if !fragment.is_empty() {
        return Err(ConnectError::url(
            "it has a fragment (#..), and none means anything: certificates are always checked",
        ));
    }
    let host = match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => decoded("the host", name)?.into_owned(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        _ => return Err(ConnectError::url("it names no host")),
    };
    let port = match url.port() {
        Some(0) => return Err(ConnectError::url("port 0 cannot be connected to")),
        Some(port) => port,
        None => PORT,
    };
    let address = Endpoint::new(host, port).address(tls);
    let mut options = ConnectOptions::new(Deployment::Standalone(address));
    if !url.username().is_empty() {
        options = options.with_username(decoded("the user", url.username())?);
    }
    if let Some(password) = url.password() {
        options = options.with_password(decoded("the password", password)?);
    }
    if !path.is_empty() {
        options = options.with_database(database(path)?);
    }
    apply(options, query, &["protocol", "client_name"])
}

pub(super) const PORT: u16 = 6379;

fn unix(url: &Url) -> Result<ConnectOptions, ConnectError> {
    if url.has_host() {
        return Err(ConnectError::url(
            "the path of a unix socket starts with a third slash: unix:///path",
        ));
    }
    if url.fragment().is_some() {
        return Err(ConnectError::url(ENCODE));
    }
    let path = PathBuf::from(decoded("the path", url.path())?.into_owned());
    if path.file_name().is_none() {
        return Err(ConnectError::url("it has no path to a socket"));
    }
    apply(
        ConnectOptions::new(Deployment::Standalone(Address::Unix { path })),
        url.query().unwrap_or_default(),
        &["db", "user", "pass", "protocol", "client_name"],
    )
}

pub(super) fn apply(
    mut options: ConnectOptions,
    query: &str,
    known: &[&str],
) -> Result<ConnectOptions, ConnectError> {
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(key) = known.iter().find(|known| **known == key) else {
            // The key is not repeated: it may be what follows a `?` in a password.
            return Err(ConnectError::url(format!(
                "unknown key in the query; the known ones are {}",
                known.join(", ")
            )));
        };
        if seen.contains(key) {
            return Err(ConnectError::url(format!("{key} is given twice")));
        }
        seen.push(key);
        let value = decoded("a value in the query", value)?;
        options = match *key {
            "db" => options.with_database(database(&value)?),
            "user" => options.with_username(value),
            "pass" => options.with_password(value),
            "client_name" => options.with_client_name(value),
            "sentinel_user" => options.with_sentinel_username(value),
            "sentinel_pass" => options.with_sentinel_password(value),
            "sentinel_tls" => options.with_sentinel_tls(truth(&value)?),
            _ => options.with_protocol(protocol(&value)?),
        };
    }
    Ok(options)
}

pub(super) fn database(text: &str) -> Result<u32, ConnectError> {
    text.parse()
        .map_err(|_| ConnectError::url("the database must be a number from 0, as in /1"))
}

fn protocol(text: &str) -> Result<ProtocolVersion, ConnectError> {
    match text {
        "2" | "resp2" => Ok(ProtocolVersion::RESP2),
        "3" | "resp3" => Ok(ProtocolVersion::RESP3),
        _ => Err(ConnectError::url("protocol must be resp2 or resp3")),
    }
}

fn truth(text: &str) -> Result<bool, ConnectError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ConnectError::url("sentinel_tls must be true or false")),
    }
}

pub(super) fn decoded<'a>(what: &str, text: &'a str) -> Result<Cow<'a, str>, ConnectError> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| ConnectError::url(format!("{what} is not UTF-8 once percent-decoded")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    fn address(options: &ConnectOptions) -> String {
        match &options.deployment {
            Deployment::Standalone(address) => address.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_part_of_a_tcp_url_arrives() {
        let options = parse("redis://us%40er:p%2Fa%3Ass+@example.com:7000/3?protocol=resp3");
        let options = options.unwrap();
        assert_eq!(address(&options), "example.com:7000");
        assert_eq!(options.username.as_deref(), Some("us@er"));
        assert_eq!(options.password.as_ref().unwrap().expose(), "p/a:ss+");
        assert_eq!(options.database, 3);
        assert!(options.protocol.supports_resp3());
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let options = parse("redis://localhost").unwrap();
        assert_eq!(address(&options), "localhost:6379");
        assert!(options.username.is_none() && options.password.is_none());
        assert_eq!(options.database, 0);
        assert!(!options.protocol.supports_resp3());
        assert_eq!(address(&parse("redis://[::1]:1/").unwrap()), "[::1]:1");
    }

    #[test]
    fn every_part_of_a_unix_url_arrives() {
        for scheme in ["unix", "redis+unix"] {
            let text = format!("{scheme}:///run/my%20redis.sock?db=1&user=ann&pass=p%40ss+1");
            let options = parse(&text).unwrap();
            assert_eq!(address(&options), "/run/my redis.sock");
            assert_eq!(options.username.as_deref(), Some("ann"));
            assert_eq!(options.password.as_ref().unwrap().expose(), "p@ss+1");
            assert_eq!(options.database, 1);
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_the_known_ones() {
        assert!(why("redis://h/?protcol=resp3").contains("protocol, client_name"));
        assert!(why("unix:///s?timeout=1").contains("db, user, pass, protocol, client_name"));
        assert!(why("redis://h/?protocol=2&protocol=3").contains("twice"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for url in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis://:6379",
            "redis://h:0",
            "redis://h:70000",
            "redis://h/one",
            "redis://h/-1",
            "redis://h/1/2",
            "redis://h/?protocol=4",
            "rediss://h/#insecure",
            "redis://%ff@h",
            "unix://run/s",
            "unix:///",
            "unix:relative",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn no_error_repeats_a_password_however_badly_it_was_encoded() {
        for mangled in [
            "redis://u:s3cret/x@h:1",
            "redis://u:s3cret?x@h:1",
            "redis://u:s3cret#x@h:1",
            "redis://u:1/s3cret@h:1",
            "redis://u:1?s3cret@h:1",
            "redis://u:1?s3cret=@h:1",
            "redis://u:1?s3cret",
            "redis://u:1#s3cret@h:1",
            "redis://:s3cret@h:99999",
            "redis://:s3cret%ff@h",
            "redis://:s3cret@h/db",
            "redis://:s3cret@",
            "http://:s3cret@h",
            "s3cret",
            "unix:///s?pass=s3cret&pass=s3cret",
            "unix:///s?pass=s3&cret=1",
            "unix:///s?pass=1#s3cret",
        ] {
            let error = parse(mangled).expect_err(mangled);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("cret"), "{mangled}: {shown}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_without_the_feature_names_the_feature() {
        assert!(why("rediss://h").contains("feature `tls`"));
    }
}
