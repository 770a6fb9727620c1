//! A nemesis hurts as it says, and leaves all of it healed.

use std::time::Duration;

use seawall::chaos::{
    Attack, AttackError, Books, Fault, Nemesis, ProxiedServer, RedisServer, SentinelSet, Strike,
    Target,
};
use tokio::time::timeout;

use super::{Raw, length, push};

#[tokio::test]
async fn a_server_keeps_what_it_acknowledged_through_every_attack_on_it() {
    let settings = RedisServer::builder().durable().password("s3cret");
    let mut target = ProxiedServer::start(settings).await.unwrap();
    let known = target.attacks();
    let (url, books, mut told) = (target.url(), Books::new(), Vec::new());
    let short = Duration::from_millis(100);
    let nemesis = Nemesis::new(7)
        .with_strikes(known.len() as u64)
        .with_pause(short, short * 2)
        .with_lasts(short, short * 3);
    let attacked = nemesis.run(&mut target, |deed| told.push(deed.clone()));
    let struck = tokio::select! {
        struck = attacked => struck.unwrap(),
        () = pushing(&url, &books) => unreachable!("it pushes for ever"),
    };

    assert_eq!(struck, known.len() as u64);
    assert_eq!(told.len(), 3 * known.len());
    assert!(told.is_sorted_by_key(|deed| deed.since_start));
    assert!(told.is_sorted_by_key(|deed| deed.at));
    for attack in known {
        assert!(
            told.iter().any(|deed| deed.strike.attack == attack),
            "{attack}"
        );
    }
    assert_eq!(target.proxy().fault(), Fault::None);
    let all: Vec<u64> = target
        .server()
        .command(redis::cmd("LRANGE").arg("list").arg(0).arg(-1))
        .await
        .unwrap();
    for number in all {
        books.deliver(("list", number));
    }
    let balance = books.balance();
    // A request that was held up may come to the queue after a later one.
    assert_eq!((balance.lost, balance.duplicated), (0, 0), "{balance}");
    assert!(balance.acknowledged > 0, "{balance}");
}

#[tokio::test]
async fn a_set_is_healthy_again_after_the_worst_attacks_on_it() {
    let set = SentinelSet::builder().durable().proxied().start();
    let mut set = set.await.unwrap();
    let attacks = [Attack::LoseWrites, Attack::SplitBrain, Attack::KillSentinel];
    let nemesis = Nemesis::new(1)
        .with_attacks(attacks)
        .with_strikes(3)
        .with_lasts(Duration::from_secs(1), Duration::from_secs(3));
    // A task of its own is how a test will run it beside its load.
    let run = tokio::spawn(async move {
        let mut told = Vec::new();
        let run = nemesis.run(&mut set, |deed| told.push(deed.to_string()));
        let struck = run.await.unwrap_or_else(|error| panic!("{error}"));
        (set, struck, told)
    });
    let (set, struck, told) = run.await.unwrap();
    assert_eq!(struck, 3);
    for attack in attacks {
        let name = format!(" {attack}: ");
        assert!(told.iter().any(|deed| deed.contains(&name)), "{told:?}");
    }
    let primary = set.primary().await.unwrap();
    push(set.node(primary), 1).await;
    set.wait_until_replicated().await.unwrap();
    for node in set.nodes() {
        assert_eq!(length(node).await, 1);
    }
    for addr in set.node_addrs() {
        assert_eq!(
            Raw::connect(addr).await.ask("PING\r\n").await.unwrap(),
            "+PONG"
        );
    }
}

#[tokio::test]
async fn a_set_knows_the_attacks_that_its_size_and_its_proxies_allow() {
    let bare = SentinelSet::builder().replicas(0).sentinels(1).start();
    let mut bare = bare.await.unwrap();
    let known = bare.attacks();
    assert!(!known.contains(&Attack::Failover) && !known.contains(&Attack::Reset));
    let unknown = Nemesis::new(1).strikes(&[Attack::Reset]).next().unwrap();
    let refused = bare.strike(&unknown).await;
    assert!(matches!(refused, Err(AttackError::Unknown(Attack::Reset))));

    let frozen: Strike = Nemesis::new(1).strikes(&[Attack::Freeze]).next().unwrap();
    bare.strike(&frozen).await.unwrap();
    bare.recover().await.unwrap();
    assert_eq!(bare.primary().await, Some(0));
}

/// Pushes numbers one by one, and writes down which ones were acknowledged.
async fn pushing(url: &str, books: &Books) {
    let client = redis::Client::open(url).unwrap();
    let mut number = 0;
    loop {
        let connected = client.get_multiplexed_async_connection();
        let Ok(Ok(mut connection)) = timeout(PATIENCE, connected).await else {
            tokio::task::yield_now().await;
            continue;
        };
        loop {
            number += 1;
            books.attempt(("list", number));
            let push = redis::cmd("RPUSH").arg("list").arg(number).to_owned();
            match timeout(PATIENCE, push.query_async::<()>(&mut connection)).await {
                Ok(Ok(())) => books.acknowledge(("list", number)),
                _ => break,
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_millis(200);
