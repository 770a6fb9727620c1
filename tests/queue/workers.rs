//! Who works, who is silent, and who is gone.

use std::time::SystemTime;

use seawall::worker::WorkerState;

use super::support::{Scene, TOKEN, in_an_hour, now_ms};

#[tokio::test]
async fn workers_are_listed_with_what_they_tell_and_what_they_have() {
    let scene = Scene::new().await;
    assert!(scene.queue().workers().await.unwrap().is_empty());
    let about = br#"{"host":"web-1","pid":4711,"version":"0.1.0","queues":[{"name":"emails","weight":3},{"name":"sms"}],
        "concurrency":16,"in_flight":9,"started_at":1000,"beat_at":2000,"colour":"blue",
        "counters":{"started":7,"succeeded":5,"retried":1,"dead":1}}"#;
    let past = (now_ms() - 60_000).to_string();
    let workers: [&[u8]; 4] = [
        in_an_hour().leak().as_bytes(),
        TOKEN.as_bytes(),
        past.as_bytes(),
        b"silent",
    ];
    scene.raw("ZADD workers", &workers).await;
    let gone: [&[u8]; 4] = [past.as_bytes(), b"gone", past.as_bytes(), b"left in order"];
    scene.raw("ZADD gone", &gone).await;
    scene
        .raw(
            "HSET about",
            &[
                TOKEN.as_bytes(),
                about,
                b"gone",
                about,
                b"silent",
                b"garbage",
            ],
        )
        .await;
    for _ in 0..2 {
        scene.running().await;
    }
    let found = scene.queue().workers().await.unwrap();
    let states: Vec<_> = found
        .iter()
        .map(|worker| (worker.id.as_str(), worker.state))
        .collect();
    assert_eq!(
        states,
        [
            (TOKEN, WorkerState::Alive),
            ("silent", WorkerState::Silent),
            ("gone", WorkerState::Gone)
        ]
    );
    let alive = &found[0];
    assert_eq!(
        (&*alive.host, alive.pid, alive.concurrency),
        ("web-1", 4711, 16)
    );
    assert_eq!(alive.queues, ["emails", "sms"]);
    assert_eq!(alive.in_flight, 2, "in this queue");
    assert_eq!((alive.counters.started, alive.counters.succeeded), (7, 5));
    assert!(alive.since > SystemTime::now());
    assert!(found[1].since < SystemTime::now() && found[1].host.is_empty());
    assert_eq!((found[2].in_flight, found[2].pid), (0, 4711));
}
