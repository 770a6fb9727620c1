//! Whose directory is whose: what was written for one deployment is not sent to another by mistake.

use std::{error::Error as _, fs, time::Duration};

use seawall::{
    Job, Seawall,
    spool::SpoolDir,
    stack::{BuildError, Topology},
};

use crate::support::{PLENTY, Pair, drained, jobs, list, until, until_active, waiting};

/// Leaves `count` jobs for the target `a`, and both servers down.
async fn leave(pair: &mut Pair, count: usize) {
    pair.a.kill().await.unwrap();
    pair.b.kill().await.unwrap();
    let seawall = pair.open(pair.topology()).await;
    let _ = pair.hand_in_many(&seawall, count).await;
    let left = seawall.shutdown(Duration::ZERO).await.unwrap();
    assert_eq!(left, count as u64);
}

/// What keeps it from being opened, below the name of the target.
async fn refusal(pair: &Pair, topology: Topology) -> BuildError {
    match pair.builder(topology).connect().await {
        Err(BuildError::Target { target, source, .. }) => {
            assert_eq!(target, "a");
            *source
        }
        Err(other) => other,
        Ok(_) => panic!("it must not be opened"),
    }
}

#[tokio::test]
async fn a_single_deployment_keeps_its_directory_as_it_was() {
    let pair = Pair::new().await;
    let single = || {
        Seawall::builder(&pair.a.url(), pair.dir())
            .unwrap()
            .connect()
    };
    let seawall = single().await.unwrap();
    let _ = seawall.enqueue(Job::new("q", "a-1")).await.unwrap();
    let names: Vec<_> = fs::read_dir(pair.dir()).unwrap().collect();
    let names: Vec<_> = names
        .into_iter()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(names.contains(&"FORMAT".into()), "{names:?}");
    assert!(
        !names
            .iter()
            .any(|name| name.to_string_lossy().contains("target"))
    );
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
}

#[tokio::test]
async fn the_spool_of_a_single_deployment_is_no_directory_for_several_until_it_is_moved() {
    let mut pair = Pair::new().await;
    pair.a.kill().await.unwrap();
    let seawall = Seawall::builder(&pair.a.url(), pair.dir()).unwrap();
    let seawall = seawall.connect().await.unwrap();
    for job in jobs("a", 1..=10) {
        assert!(
            seawall
                .enqueue(Job::new("q", job))
                .await
                .unwrap()
                .is_spooled()
        );
    }
    assert_eq!(seawall.shutdown(Duration::ZERO).await.unwrap(), 10);

    let refused = refusal(&pair, pair.topology()).await;
    assert!(
        matches!(refused, BuildError::SingleSpool { .. }),
        "{refused}"
    );
    // As it says.
    let inside: Vec<_> = fs::read_dir(pair.dir()).unwrap().collect();
    fs::create_dir(pair.dir_of("a")).unwrap();
    for entry in inside {
        let entry = entry.unwrap();
        fs::rename(entry.path(), pair.dir_of("a").join(entry.file_name())).unwrap();
    }
    pair.a.restart().await.unwrap();
    let seawall = pair.open(pair.topology()).await;
    drained(&seawall).await;
    assert_eq!(list(&pair.a).await, jobs("a", 1..=10));
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);

    // And back: the directory of several is none for one, and that of one of them is.
    let single = |dir| Seawall::builder(&pair.a.url(), dir).unwrap().connect();
    let refused = single(SpoolDir::alone(pair.dir())).await.unwrap_err();
    assert!(
        matches!(refused, BuildError::TargetSpools { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("a, b"), "{refused}");
    let refused = single(SpoolDir::shared(pair.dir())).await.unwrap_err();
    assert!(
        matches!(refused, BuildError::TargetSpools { .. }),
        "{refused}"
    );
    single(SpoolDir::alone(pair.dir_of("a"))).await.unwrap();
}

#[tokio::test]
async fn records_for_a_deployment_are_not_sent_to_another_of_the_same_name() {
    let mut pair = Pair::new().await;
    leave(&mut pair, 20).await;
    let mut other = Pair::new().await;
    let elsewhere = || {
        let urls = [
            other.a.url().replace("redis://", "redis://:s3cret@"),
            other.b.url(),
        ];
        Topology::failover(urls).with_names(["a", "b"])
    };
    for _ in 0..2 {
        let refused = refusal(&pair, elsewhere()).await;
        let BuildError::OtherDeployment {
            note,
            was,
            now,
            records,
            parked,
            ..
        } = &refused
        else {
            panic!("{refused}");
        };
        assert_eq!((*records, *parked), (20, 0));
        assert!(was.contains(&pair.a.addr().to_string()), "{was}");
        assert!(now.contains(&other.a.addr().to_string()), "{now}");
        assert!(note.ends_with("a.target"));
        assert!(
            !format!("{refused} {refused:?}").contains("s3cret"),
            "{refused}"
        );
        assert!(refused.source().is_none());
    }
    assert_eq!(list(&other.a).await, [""; 0]);

    // The one it was written for is still welcome, with another way to log in.
    pair.a.restart().await.unwrap();
    let same = pair.a.url() + "0?client_name=another";
    let same = Topology::failover([same, other.b.url()]).with_names(["a", "c"]);
    let seawall = pair.open(same).await;
    until("delivery", || waiting(&seawall, "a") == 0).await;
    assert_eq!(list(&pair.a).await, jobs("a", 1..=20));
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
    // With nothing in it, it may be anybody's.
    let seawall =
        pair.open(Topology::failover([other.a.url(), other.b.url()]).with_names(["a", "d"]));
    assert_eq!(seawall.await.shutdown(PLENTY).await.unwrap(), 0);
    other.a.kill().await.unwrap();
}

#[tokio::test]
async fn records_follow_a_deployment_that_is_said_to_have_moved() {
    for by_hand in [false, true] {
        let mut pair = Pair::new().await;
        leave(&mut pair, 20).await;
        let new_home = Pair::new().await;
        let moved = || Topology::failover([new_home.a.url(), pair.b.url()]).with_names(["a", "b"]);
        let said = if by_hand {
            let refused = refusal(&pair, moved()).await;
            let BuildError::OtherDeployment { note, .. } = refused else {
                panic!("{refused}");
            };
            fs::remove_file(note).unwrap();
            moved()
        } else {
            moved().with_moved("a")
        };
        let seawall = pair.open(said).await;
        until("delivery", || waiting(&seawall, "a") == 0).await;
        assert_eq!(list(&new_home.a).await, jobs("a", 1..=20));
        assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
        // It is noted now, and need not be said again.
        assert_eq!(pair.open(moved()).await.shutdown(PLENTY).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_target_that_is_no_longer_named_keeps_what_waits_for_it() {
    let mut pair = Pair::new().await;
    leave(&mut pair, 20).await;
    pair.b.restart().await.unwrap();
    let third = Pair::new().await;
    let without = Topology::failover([third.a.url(), pair.b.url()]).with_names(["c", "b"]);
    let seawall = pair.open(without).await;
    until("c and b", || {
        seawall.targets().all(|target| target.is_healthy())
    })
    .await;
    drained(&seawall).await;
    assert_eq!(list(&third.a).await, [""; 0]);
    assert_eq!(seawall.shutdown(PLENTY).await.unwrap(), 0);
    pair.a.restart().await.unwrap();
    let seawall = pair.open(pair.topology()).await;
    drained(&seawall).await;
    pair.judge().await;
}

#[tokio::test]
async fn many_processes_share_the_directories_of_several_targets() {
    let mut pair = Pair::new().await;
    let dir = || SpoolDir::shared(pair.dir()).with_adoption_interval(Duration::from_millis(20));
    let topology = || pair.topology();
    let open = || Seawall::builder(topology(), dir()).unwrap().connect();
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    for (seawall, slot) in [(&one, "slot-1"), (&other, "slot-2")] {
        for target in seawall.targets() {
            assert_eq!(target.spool().path(), pair.dir_of(target.name()).join(slot));
        }
    }
    // What one leaves behind is delivered by the other, to the same target.
    until("both", || one.targets().all(|target| target.is_healthy())).await;
    one.target("a").unwrap().breaker().force_open();
    let _ = pair.hand_in_many(&one, 10).await;
    until_active(&one, "b").await;
    one.target("b").unwrap().breaker().force_open();
    let _ = pair.hand_in_many(&one, 10).await;
    assert_eq!(one.shutdown(Duration::ZERO).await.unwrap(), 20);
    let both = || async { list(&pair.a).await.len() + list(&pair.b).await.len() == 20 };
    let adopted = seawall::chaos::wait_until("adoption", PLENTY, both);
    adopted.await.unwrap();
    pair.judge().await;
    assert_eq!(other.shutdown(PLENTY).await.unwrap(), 0);

    // Of a shared directory nobody sees all the slots at once, so an empty one is no proof.
    let moved = Pair::new().await;
    let elsewhere = Topology::failover([moved.a.url(), pair.b.url()]).with_names(["a", "b"]);
    let refused = Seawall::builder(elsewhere.clone(), dir())
        .unwrap()
        .connect()
        .await;
    assert!(
        matches!(refused, Err(BuildError::Target { .. })),
        "{refused:?}"
    );
    let moved = Seawall::builder(elsewhere.with_moved("a"), dir())
        .unwrap()
        .connect()
        .await;
    assert_eq!(moved.unwrap().shutdown(PLENTY).await.unwrap(), 0);
    pair.a.kill().await.unwrap();
}
