//! A disk that is full.

use std::path::Path;

use super::{
    app::{App, Line},
    scene::{Scene, durable},
    seeds,
};

/// The limit on the size of a file stands for the disk: writing past it fails and needs no privilege
/// to set up. The shell ignores the signal that would come with it, and so does what it becomes.
const LIMITED: &str = r#"trap '' XFSZ && ulimit -f "$0" && exec "$@""#;

/// Of 512 bytes: 10 MiB, which is one segment of the store and some.
const BLOCKS: u64 = 20 << 10;

#[tokio::test]
async fn on_a_full_disk_callers_get_an_error_and_what_was_acknowledged_is_kept() {
    let mut redis = durable().await;
    for seed in seeds(2) {
        let mut scene = Scene::new(&mut redis, seed).await;
        scene.redis.kill().await.unwrap();
        let mut orders = scene.orders(6_000);
        orders.padding = 8_000;
        let limit = (BLOCKS + seed * 5_000).to_string();
        let program = std::env::current_exe().unwrap();
        let arguments = ["-c", LIMITED, &limit, program.to_str().unwrap()];
        let mut app = App::start_with(Path::new("sh"), &arguments, &orders, &scene.books);
        let mut refused = 0;
        let last = app
            .until("its last word", |line| {
                if let Line::Failed { kind, .. } = line {
                    assert_eq!(kind, "Spool", "{line:?}");
                    refused += 1;
                }
                *line == Line::Done
            })
            .await;
        assert_eq!(last, Line::Done);
        assert!(refused > 0, "the limit was never met");
        let said = app.stderr();
        app.kill().await;
        assert!(!said.contains("panicked"), "{said}");
        let balance = scene.settle(seed).await;
        assert!(balance.acknowledged > 0, "seed {seed}: {balance}");
    }
}
