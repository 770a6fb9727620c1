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
            read(url, Some("/s".into()), vec![]).map(|b| b.connection)
        )
    };
    assert!(shown(plain).contains("\"a b\""), "{}", shown(plain));
    assert_eq!(shown(&format!("{plain}&ack=spooled")), shown(plain));
    let dir = read("redis://h?spool_dir=/a+b%20c", None, vec![]).expect("it is right");
    assert!(format!("{:?}", dir.spool).contains("\"/a+b c\""));
}

#[test]
fn what_is_missing_is_named() {
    let error = read("redis://h", None, Vec::new()).expect_err("no directory");
    assert!(error.to_string().contains("SEAWALL_SPOOL_DIR"));
    let error = from_vars(Vec::new()).expect_err("no URL");
    assert!(error.to_string().contains(URL));
}
