//! drain: all of it, in order, once; and what it leaves when it can't.

use std::time::Duration;

use seawall::{
    Job, Seawall,
    chaos::{RedisServer, wait_until},
    stack::Topology,
};

use super::support::{PLENTY, Scene, come_back, command, jobs, leave, list, run, said};

#[tokio::test]
async fn a_drained_spool_is_empty_and_all_is_in_redis_in_order() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new();
    let dir = scene.at("spool");
    leave(&scene.path("spool"), "many", 3_000).await;
    leave(&scene.path("spool"), "few", 3).await;
    let drained = run(&["drain", &dir, "--to", &redis.url()]).await.ends(0);
    assert_eq!(
        drained.out,
        "\
sent           3,003
suppressed         0
left               0
"
    );
    assert_eq!(drained.err, "");
    assert_eq!(list(&redis, "many").await, jobs("many", 3_000));
    assert_eq!(list(&redis, "few").await, jobs("few", 3));
    let stat = run(&["stat", "--json", &dir]).await.ends(0).json();
    assert_eq!((&stat["records"], &stat["lanes"]), (&0.into(), &0.into()));

    // Again, and then by the application.
    let again = run(&["drain", &dir, "--to", &redis.url(), "--json"])
        .await
        .ends(0)
        .json();
    assert_eq!(
        (&again["sent"], &again["end"]),
        (&0.into(), &"drained".into())
    );
    come_back(&scene.path("spool"), &redis).await;
    assert_eq!(list(&redis, "many").await, jobs("many", 3_000));
}

#[tokio::test]
async fn a_copy_that_the_application_replays_as_well_doubles_nothing() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new();
    leave(&scene.path("spool"), "many", 1_000).await;
    // A backup of the directory, made while it was stopped.
    let copied = std::process::Command::new("cp")
        .args(["-r", &scene.at("spool"), &scene.at("copy")])
        .status();
    assert!(copied.unwrap().success());
    let mut drain = command(&["drain", &scene.at("spool")]);
    let drain = drain.env("SEAWALL_REDIS_URL", redis.url()).spawn().unwrap();
    said(drain).await.ends(0);
    come_back(&scene.path("copy"), &redis).await;
    assert_eq!(list(&redis, "many").await, jobs("many", 1_000));
}

/// Of several deployments each has a directory of its own, which is drained as any other: to where it belongs, or,
/// if somebody wants that, to the other one.
#[tokio::test]
async fn the_spool_of_one_of_several_targets_can_be_drained_anywhere() {
    let (eu, us) = (RedisServer::start().await, RedisServer::start().await);
    let (mut eu, mut us) = (eu.unwrap(), us.unwrap());
    let scene = Scene::new();
    let topology = Topology::failover([eu.url(), us.url()]).with_names(["eu", "us"]);
    let topology = topology.with_threshold(Duration::from_millis(50));
    eu.kill().await.unwrap();
    let app = Seawall::builder(topology, scene.path("spool")).unwrap();
    let app = app.connect().await.unwrap();
    for job in jobs("q", 10) {
        assert!(app.enqueue(Job::new("q", job)).await.unwrap().is_spooled());
    }
    let switched = || async {
        app.targets()
            .any(|target| target.name() == "us" && target.is_active())
    };
    wait_until("the other target", PLENTY, switched)
        .await
        .unwrap();
    us.kill().await.unwrap();
    for job in jobs("q", 10) {
        assert!(app.enqueue(Job::new("q", job)).await.unwrap().is_spooled());
    }
    assert_eq!(app.shutdown(Duration::ZERO).await.unwrap(), 20);

    us.restart().await.unwrap();
    for (target, there) in [("us", 10), ("eu", 20)] {
        let dir = scene.path("spool").join(target);
        let (dir, url) = (dir.to_str().unwrap(), us.url());
        let drained = run(&["drain", dir, "--to", &url, "--json"]).await.ends(0);
        assert_eq!(drained.json()["sent"], 10);
        assert_eq!(list(&us, "q").await.len(), there);
    }
    let whole = run(&["drain", &scene.at("spool"), "--to", &us.url()]).await;
    assert_ne!(whole.code, 0, "that is no spool: {}", whole.all());
}

#[tokio::test]
async fn without_redis_it_stops_says_so_and_leaves_everything() {
    let scene = Scene::new();
    let dir = scene.at("spool");
    leave(&scene.path("spool"), "many", 100).await;
    let away = [
        "drain",
        &dir,
        "--to",
        "redis://app:hunter2@127.0.0.1:1",
        "--patience",
        "300ms",
    ];
    let stopped = run(&away).await.ends(5);
    assert!(
        stopped
            .err
            .contains("Redis is away (unreachable): 100 records stay"),
        "{}",
        stopped.err
    );
    assert!(
        stopped.err.contains("next: ") && !stopped.all().contains("hunter2"),
        "{}",
        stopped.all()
    );
    let stopped = run(&[&away[..], &["--json"]].concat()).await.ends(5);
    let report = stopped.json();
    assert_eq!(
        (&report["end"], &report["left"]),
        (&"redis_away".into(), &100.into())
    );
    assert_eq!(run(&["stat", "--json", &dir]).await.json()["records"], 100);

    // Nothing waits: there is nothing to reach Redis for.
    leave(&scene.path("empty"), "none", 0).await;
    run(&["drain", &scene.at("empty"), "--to", "redis://127.0.0.1:1"])
        .await
        .ends(0);
}

#[tokio::test]
async fn told_to_wait_it_goes_on_when_redis_is_back() {
    let mut redis = RedisServer::builder().durable().start().await.unwrap();
    let scene = Scene::new();
    leave(&scene.path("spool"), "many", 500).await;
    redis.kill().await.unwrap();
    let waiting = [
        "drain",
        &scene.at("spool"),
        "--wait",
        "--patience",
        "1ms",
        "--to",
        &redis.url(),
    ];
    let mut drain = command(&waiting);
    let mut drain = drain.spawn().unwrap();
    // It has said that there is no Redis: from then on, by its patience, it would have given up.
    let mut err = String::new();
    let mut lines = tokio::io::BufReader::new(drain.stderr.take().unwrap());
    let first = tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut err);
    tokio::time::timeout(PLENTY, first).await.unwrap().unwrap();
    assert!(err.contains("cannot connect to Redis"), "{err}");
    redis.restart().await.unwrap();
    said(drain).await.ends(0);
    assert_eq!(list(&redis, "many").await, jobs("many", 500));
}

#[tokio::test]
async fn an_interrupt_ends_it_in_order_and_a_second_run_sends_the_rest() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new();
    let dir = scene.at("spool");
    leave(&scene.path("spool"), "many", 5_000).await;
    let slowly = [
        "drain",
        &dir,
        "--to",
        &redis.url(),
        "--rate",
        "100",
        "--json",
    ];
    let drain = command(&slowly).spawn().unwrap();
    wait_until("the first", PLENTY, || async {
        !list(&redis, "many").await.is_empty()
    })
    .await
    .unwrap();
    let pid = rustix::process::Pid::from_raw(drain.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let report = said(drain).await.ends(130).json();
    assert_eq!(report["end"], "interrupted");
    let left = report["left"].as_u64().unwrap();
    assert!(left > 0, "{report}");
    assert_eq!(
        run(&["stat", "--json", &dir]).await.ends(0).json()["records"],
        left
    );
    run(&["drain", &dir, "--to", &redis.url()]).await.ends(0);
    assert_eq!(list(&redis, "many").await, jobs("many", 5_000));
}

#[tokio::test]
async fn what_redis_will_never_take_is_parked_and_said_so() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new();
    let dir = scene.at("spool");
    leave(&scene.path("spool"), "wrong", 3).await;
    leave(&scene.path("spool"), "right", 3).await;
    let set = redis::cmd("SET").arg("wrong").arg("a string").to_owned();
    redis.command::<()>(&set).await.unwrap();
    let drained = run(&["drain", &dir, "--to", &redis.url()]).await.ends(5);
    assert!(
        drained
            .err
            .contains("3 records that Redis will never take stay parked"),
        "{}",
        drained.err
    );
    assert_eq!(list(&redis, "right").await, jobs("right", 3));
    let parked = run(&["parked", "ls", "--json", &dir]).await.ends(0).lines();
    assert_eq!(parked.len(), 3);
    let reason = parked[0]["reason"].as_str().unwrap();
    assert!(reason.contains("WRONGTYPE"), "{reason}");

    // Put right, one is sent again, one deleted, and the last sent again with all that there are.
    let del = redis::cmd("DEL").arg("wrong").to_owned();
    redis.command::<()>(&del).await.unwrap();
    let ids: Vec<_> = parked
        .iter()
        .map(|parked| parked["id"].as_str().unwrap())
        .collect();
    run(&["parked", "retry", &dir]).await.ends(2);
    let said = run(&["parked", "retry", "--id", ids[2], &dir])
        .await
        .ends(0);
    assert_eq!(said.out, "1 parked record to be sent again\n");
    let said = run(&["parked", "rm", "--id", ids[0], "--json", &dir])
        .await
        .ends(0);
    assert_eq!(said.json()["records"], 1);
    for gone in [ids[0], ids[2]] {
        run(&["parked", "retry", "--id", gone, &dir]).await.ends(1);
        run(&["parked", "rm", "--id", gone, &dir]).await.ends(1);
    }
    run(&["parked", "rm", "--queue", "right", &dir])
        .await
        .ends(1);
    run(&["drain", &dir, "--to", &redis.url()]).await.ends(5);
    assert_eq!(list(&redis, "wrong").await, ["wrong-2"]);
    run(&["parked", "retry", "--all", &dir]).await.ends(0);
    run(&["drain", &dir, "--to", &redis.url()]).await.ends(0);
    assert_eq!(list(&redis, "wrong").await, ["wrong-2", "wrong-1"]);
    run(&["parked", "retry", "--all", &dir]).await.ends(0);
}

#[tokio::test]
async fn a_redis_that_takes_nothing_is_told_from_one_that_is_away() {
    let redis = RedisServer::start().await.unwrap();
    let scene = Scene::new();
    leave(&scene.path("spool"), "many", 10).await;
    let user = "ACL SETUSER default -evalsha -eval -script";
    let mut acl = redis::Cmd::new();
    for word in user.split(' ') {
        acl.arg(word);
    }
    redis.command::<()>(&acl).await.unwrap();
    let dir = scene.at("spool");
    let stopped = run(&["drain", &dir, "--to", &redis.url(), "--patience", "1s"])
        .await
        .ends(5);
    assert!(
        stopped
            .err
            .contains("Redis answers, and takes no records: 10 records"),
        "{}",
        stopped.err
    );
    assert!(stopped.err.contains("NOPERM"), "{}", stopped.err);
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_wrong_usage() {
    let scene = Scene::new();
    leave(&scene.path("spool"), "many", 1).await;
    for url in [
        "http://h",
        "redis://u:hunter2@[",
        "redis://u:hunter2@h/1?nonsense=1",
    ] {
        let wrong = run(&["drain", &scene.at("spool"), "--to", url])
            .await
            .ends(2);
        assert!(!wrong.all().contains("hunter2"), "{}", wrong.all());
    }
    run(&["drain", &scene.at("spool")]).await.ends(2);
    let misplaced = ["drain", &scene.at("spool"), "redis://u:hunter2@h"];
    let wrong = run(&misplaced).await.ends(2);
    assert!(wrong.err.contains("redis://***@h"), "{}", wrong.all());
    assert!(!wrong.all().contains("hunter2"), "{}", wrong.all());
}
