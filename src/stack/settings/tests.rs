//! Settings as text, right and wrong.

use super::*;

fn refusal(url: &str) -> String {
    let error = read(url.into(), Some("/tmp/spool".into()), Vec::new()).expect_err("it is wrong");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn every_setting_listed_can_be_given() {
    let examples = [
        ("ack", "spooled"),
        ("breaker_failures", "3"),
        ("breaker_open_time", "500ms"),
        ("connect_timeout", "2s"),
        ("failover_grace", "never"),
        ("failover_threshold", "5s"),
        ("max_retries", "0"),
        ("replay_rate", "1000"),
        ("response_timeout", "200ms"),
        ("retry_deadline", "5m"),
        ("spool_after", "100ms"),
        ("spool_dir", "/tmp/spool"),
        ("spool_durability", "process_crash"),
        ("spool_max_age", "expire:24h"),
        ("spool_max_bytes", "64MiB"),
        ("spool_max_disk_bytes", "1GiB"),
        ("spool_max_parked", "1000"),
        ("spool_max_record_bytes", "1MiB"),
        ("spool_max_records", "10000"),
        ("spool_overflow", "block:2s"),
        ("spool_shared", "true"),
        ("spool_watermark", "75%25"),
        ("standby_url", "redis://other"),
        ("target_names", "eu,us"),
    ];
    let listed: Vec<_> = SETTINGS.iter().map(|(name, _)| *name).collect();
    assert_eq!(examples.map(|(name, _)| name).as_slice(), listed);
    for (name, value) in examples {
        // Those of a failover make sense with a standby only.
        let standby = match name {
            "failover_grace" | "failover_threshold" | "target_names" => "&standby_url=redis://b",
            _ => "",
        };
        let url = format!("redis://localhost/1?{name}={value}&protocol=resp3{standby}");
        let read = read((&url).into(), Some("/tmp/spool".into()), Vec::new());
        assert!(read.is_ok(), "{name}: {read:?}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_what_it_must_be() {
    assert!(refusal("redis://h?spool_after=fast").contains("spool_after: must be a time"));
    assert!(refusal("redis://h?spool_max_bytes=99999999999TiB").contains("must be bytes"));
    assert!(refusal("redis://h?ack=maybe").contains("must be primary or spooled"));
    assert!(refusal("redis://h?ack=replicated").contains("replicated:1:500ms"));
    assert!(refusal("redis://h?ack=replicated:0:1s").contains("at least 1"));
    assert!(refusal("redis://h?ack=replicated:1:soon").contains("must be a time"));
    assert!(refusal("redis://h?spool_max_records=0").contains("at least 1"));
    assert!(refusal("redis://h?spool_overflow=drop").contains("drop_oldest or drop_newest"));
    assert!(refusal("redis://h?spool_max_age=24h").contains("must be expire:<time>"));
    assert!(refusal("redis://h?spool_max_age=keep:long").contains("must be a time"));
    assert!(refusal("redis://h?spool_watermark=101%25").contains("from 0% to 100%"));
    assert!(
        refusal("redis://h?spol_after=1s").contains("protocol"),
        "lists what it knows"
    );
}

#[test]
fn no_refusal_shows_the_password() {
    for url in [
        "redis://u:s3cret@h?ack=x",
        "redis://u:s3cret@h?x=y",
        "bogus://u:s3cret@h",
    ] {
        assert!(!refusal(url).contains("s3cret"), "{url}");
    }
}

#[test]
fn a_variable_overrides_the_urls_query() {
    let vars = |extra: &[(&str, &str)]| {
        let all = [(URL, "redis://h?spool_dir=/a&spool_after=1s")];
        let all = all
            .iter()
            .chain(extra)
            .map(|(n, v)| ((*n).into(), (*v).into()));
        from_vars(all.collect::<Vec<(OsString, OsString)>>())
    };
    let builder = vars(&[
        ("SEAWALL_SPOOL_DIR", "/b"),
        ("SEAWALL_PORT", "1"),
        ("HOME", "/"),
    ]);
    assert!(format!("{:?}", builder.expect("it is right").spool).contains("\"/b\""));
    let error = vars(&[("SEAWALL_SPOOL_AFTER", "never")]).expect_err("it is wrong");
    assert!(error.to_string().contains("SEAWALL_SPOOL_AFTER"));
}

#[test]
fn a_setting_in_the_query_changes_no_other_part_of_it() {
    let plain = "unix:///run/s?user=ann&client_name=a%20b&pass=p%20q%2Br+s";
    let shown = |url: &str| {
        format!(
            "{:?}",
            read(url.into(), Some("/s".into()), vec![]).map(|b| b.targets)
        )
    };
    assert!(shown(plain).contains("\"a b\""), "{}", shown(plain));
    assert_eq!(shown(&format!("{plain}&ack=spooled")), shown(plain));
    for plain in [
        "redis+sentinel://u:p@h1,h2/m/1",
        "redis+cluster://h1:1,h2:2",
    ] {
        assert!(shown(plain).starts_with("Ok"), "{}", shown(plain));
        assert_eq!(shown(&format!("{plain}?ack=spooled")), shown(plain));
        let more = format!("{plain}?protocol=resp3");
        assert_eq!(shown(&format!("{more}&spool_after=1s")), shown(&more));
    }
    let dir = read("redis://h?spool_dir=/a+b%20c".into(), None, vec![]).expect("it is right");
    assert!(format!("{:?}", dir.spool).contains("\"/a+b c\""));
}

#[test]
fn what_is_missing_is_named() {
    let error = read("redis://h".into(), None, Vec::new()).expect_err("no directory");
    assert!(error.to_string().contains("SEAWALL_SPOOL_DIR"));
    let error = from_vars(Vec::new()).expect_err("no URL");
    assert!(error.to_string().contains(URL));
}

#[test]
fn a_standby_can_be_named_in_the_query_and_in_the_environment() {
    let vars = |extra: &[(&str, &str)]| {
        let all = [(URL, "redis://u:s3cret@a?spool_dir=/s&ack=spooled")];
        let all = all.iter().chain(extra);
        let all = all.map(|(name, value)| ((*name).into(), (*value).into()));
        from_vars(all.collect::<Vec<(OsString, OsString)>>())
    };
    let names = |builder: &Builder| -> Vec<String> {
        let targets = builder.targets.iter();
        targets.map(|(target, _)| target.name.clone()).collect()
    };
    let builder = vars(&[("SEAWALL_STANDBY_URL", "redis://b redis://:p@c/1")]);
    assert_eq!(
        names(&builder.expect("it is right")),
        ["a-6379", "b-6379", "c-6379-1"]
    );
    let builder = vars(&[
        ("SEAWALL_STANDBY_URL", "redis://b"),
        ("SEAWALL_TARGET_NAMES", "eu, us"),
        ("SEAWALL_FAILOVER_THRESHOLD", "2s"),
        ("SEAWALL_FAILOVER_GRACE", "never"),
    ]);
    let builder = builder.expect("it is right");
    assert_eq!(names(&builder), ["eu", "us"]);
    assert_eq!(builder.topology.threshold.as_secs(), 2);
    assert_eq!(builder.topology.grace, None);

    let url = "redis://a?standby_url=rediss%3A%2F%2Fu%3Ap%40b%2F2&failover_grace=1h";
    let builder = read(url.into(), Some("/s".into()), vec![]).expect("it is right");
    assert_eq!(names(&builder), ["a-6379", "b-6379-2"]);
    assert_eq!(
        builder.topology.grace,
        Some(std::time::Duration::from_secs(3600))
    );
}

#[test]
fn a_wrong_standby_is_refused_without_its_password() {
    for (query, part) in [
        ("failover_grace=1s", "goes with standby_url"),
        (
            "standby_url=redis%3A%2F%2Fu%3As3cret%40h",
            "same deployment",
        ),
        (
            "standby_url=bogus%3A%2F%2Fu%3As3cret%40h",
            "target number 2",
        ),
        ("standby_url=", "2 to 16 URLs"),
        (
            "standby_url=redis%3A%2F%2Fb%3Fack%3Dspooled",
            "first one's URL",
        ),
        (
            "standby_url=redis%3A%2F%2Fb&target_names=a",
            "one name for each",
        ),
        (
            "standby_url=redis%3A%2F%2Fb&failover_grace=soon",
            "or never",
        ),
    ] {
        let refusal = refusal(&format!("redis://u:s3cret@h?{query}"));
        assert!(refusal.contains(part), "{refusal}");
        assert!(!refusal.contains("s3cret"), "{refusal}");
    }
    let named = Topology::failover(["redis://a?standby_url=redis%3A%2F%2Fc", "redis://b"]);
    let error = read(named, Some("/s".into()), vec![]).expect_err("who is the standby?");
    assert!(error.to_string().contains("itself"), "{error}");
}
