//! What docs/operations.md tells the people who are paged, held against what the program does.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use prometheus::proto::{MetricFamily, MetricType};
use seawall::{
    Job, RedisCall, Seawall,
    chaos::RedisServer,
    stack::Topology,
    worker::{Delivery, Failure},
};

#[tokio::test]
async fn the_catalogue_is_what_is_exposed() {
    let documented = documented(&read("docs/operations.md"));
    let mut exposed = exposed(&a_short_run().await);
    exposed.extend(only_of_targets(&exposed).await);
    let names =
        |catalogue: &BTreeMap<String, Metric>| catalogue.keys().cloned().collect::<BTreeSet<_>>();
    let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| -> Vec<String> {
        these.difference(those).cloned().collect()
    };
    let (told, shown) = (names(&documented), names(&exposed));
    assert_eq!(only(&shown, &told), [""; 0], "exposed, and not documented");
    assert_eq!(only(&told, &shown), [""; 0], "documented, and not exposed");
    for (name, shown) in &exposed {
        let told = &documented[name];
        assert_eq!(told.kind, shown.kind, "{name}");
        let labels = |metric: &Metric| metric.labels.keys().cloned().collect::<Vec<_>>();
        assert_eq!(labels(told), labels(shown), "{name}");
        for (label, values) in &shown.labels {
            let listed = &told.labels[label];
            if OPEN.contains(&label.as_str()) {
                assert!(listed.is_empty(), "{name}: {label} is no closed set");
            } else if name == "seawall_lanes" {
                // Nothing was blocked, and so nothing says so.
                assert!(values.is_subset(listed), "{name}: {values:?}, {listed:?}");
            } else {
                assert_eq!(listed, values, "{name}: {label}");
            }
        }
    }
}

/// Labels whose values are the application's.
const OPEN: [&str; 4] = ["address", "call", "queue", "target"];

#[test]
fn the_alerts_name_only_metrics_that_exist() {
    let documented = documented(&read("docs/operations.md"));
    let alerts = read("docs/alerts.yml");
    let mut named = 0;
    for name in words(&alerts).filter(|word| word.starts_with("seawall_")) {
        assert!(documented.contains_key(name), "{name}");
        named += 1;
    }
    assert!(named > 8);
}

/// Each alert leads to a section of the runbook, and the runbook names each alert.
#[test]
fn every_alert_has_its_page_in_the_runbook() {
    let (runbook, alerts) = (read("docs/operations.md"), read("docs/alerts.yml"));
    let anchors: Vec<_> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|title| title.to_lowercase().replace(' ', "-"))
        .collect();
    let after = |key: &'static str| alerts.lines().filter_map(move |line| line.split_once(key));
    for (_, anchor) in after("docs/operations.md#") {
        assert!(anchors.iter().any(|known| known == anchor), "{anchor}");
    }
    assert_eq!(
        after("- alert: ").count(),
        after("docs/operations.md#").count()
    );
    for (_, alert) in after("- alert: ") {
        assert!(runbook.contains(&format!("`{alert}`")), "{alert}");
    }
}

#[test]
fn every_event_is_documented_with_its_level() {
    let runbook = read("docs/operations.md");
    let rows: Vec<_> = table(&runbook, "level").collect();
    let mut unseen: BTreeSet<_> = rows.iter().map(|row| unticked(&row[1])).collect();
    let events = events();
    assert!(events.len() > 10, "this looks at nothing");
    for (level, message) in events {
        let row = rows
            .iter()
            .find(|row| message.starts_with(unticked(&row[1])))
            .unwrap_or_else(|| panic!("not documented: {message}"));
        assert_eq!(row[0], level, "{message}");
        unseen.remove(unticked(&row[1]));
    }
    assert!(
        unseen.is_empty(),
        "documented, and nowhere said: {unseen:?}"
    );
}

// ===== what is told =====

#[derive(Debug)]
struct Metric {
    kind: String,
    /// The values that are listed, or were seen.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The table under "Metrics".
fn documented(runbook: &str) -> BTreeMap<String, Metric> {
    let rows = table(runbook, "metric").map(|row| {
        let labels = row[2].split(';').filter(|label| !label.trim().is_empty());
        let labels = labels.map(|label| {
            let (name, values) = label.split_once(':').unwrap_or((label, ""));
            let values = words(values).map(str::to_owned).collect();
            (unticked(name).to_owned(), values)
        });
        let metric = Metric {
            kind: row[1].clone(),
            labels: labels.collect(),
        };
        (unticked(&row[0]).to_owned(), metric)
    });
    rows.collect()
}

/// The rows of the table whose first column is called `first`.
fn table<'a>(text: &'a str, first: &str) -> impl Iterator<Item = Vec<String>> + 'a {
    let head = format!("| {first} |");
    text.lines()
        .skip_while(move |line| !line.starts_with(&head))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
}

fn unticked(text: &str) -> &str {
    text.trim().trim_matches('`')
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

// ===== what is done =====

/// A job and a call, before, during and after an outage, and a worker.
async fn a_short_run() -> Vec<MetricFamily> {
    let mut redis = RedisServer::builder().durable().start().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let registry = prometheus::Registry::new();
    let seawall = Seawall::builder(&redis.url(), dir.path())
        .unwrap()
        .metrics(&registry)
        .connect()
        .await
        .unwrap();
    let ready = seawall.connection().wait_ready(Duration::from_secs(30));
    ready.await.unwrap();
    drop(seawall.connection().exclusive().await.unwrap());
    let run = async || {
        let _ = seawall.enqueue(Job::new("emails", "hello")).await.unwrap();
        let _ = seawall
            .call(RedisCall::new("read", redis::cmd("GET").arg("a")))
            .await;
    };
    run().await;
    redis.kill().await.unwrap();
    for _ in 0..20 {
        run().await;
    }
    redis.restart().await.unwrap();
    seawall.flush().await;
    run().await;
    let worker = seawall.worker("emails").shutdown_on(std::future::ready(()));
    let handler = |_: Delivery| async { Ok::<_, Failure>(()) };
    worker.run(handler).await.unwrap();
    registry.gather()
}

/// What is exposed with several deployments alone. With them, everything has the label `target`.
async fn only_of_targets(single: &BTreeMap<String, Metric>) -> BTreeMap<String, Metric> {
    let dir = tempfile::tempdir().unwrap();
    let registry = prometheus::Registry::new();
    let topology = Topology::failover(["redis://127.0.0.1:1", "redis://127.0.0.1:2"]);
    let builder = Seawall::builder(topology.with_names(["a", "b"]), dir.path()).unwrap();
    let seawall = builder.metrics(&registry).connect().await.unwrap();
    let mut several = exposed(&registry.gather());
    drop(seawall);
    let both = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
    for (name, metric) in &several {
        assert_eq!(metric.labels["target"], both, "{name}");
    }
    several.retain(|name, _| !single.contains_key(name));
    several
}

fn exposed(families: &[MetricFamily]) -> BTreeMap<String, Metric> {
    let metrics = families.iter().map(|family| {
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let pairs = family
            .get_metric()
            .iter()
            .flat_map(|metric| metric.get_label());
        for pair in pairs {
            let values = labels.entry(pair.name().to_owned()).or_default();
            values.insert(pair.value().to_owned());
        }
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            other => panic!("{other:?}"),
        };
        (
            family.name().to_owned(),
            Metric {
                kind: kind.to_owned(),
                labels,
            },
        )
    });
    metrics.collect()
}

/// The level and the text of each event in the source.
fn events() -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(path).unwrap();
        for level in ["error", "warn", "info", "debug", "trace"] {
            let marker = format!("tracing::{level}!(");
            for (at, _) in text.match_indices(&marker) {
                // The message is the last string before the macro's end; none of ours has a quote.
                let call = &text[at..at + text[at..].find(");").or(text[at..].find("),")).unwrap()];
                let message = call.split('"').nth(1).unwrap();
                found.push((level, message.to_owned()));
            }
        }
    }
    found
}

fn sources() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("src/chaos") {
                // Nobody is paged by a test.
            } else if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}
