//! Killed, frozen, restarted, and gone when it should be.

use std::{
    env, io,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use seawall::chaos::{RedisServer, StartError, wait_until};
use tokio::net::TcpStream;

use super::{PLENTY, Raw, length, push};

#[tokio::test]
async fn a_durable_server_keeps_what_it_acknowledged_through_a_kill() {
    let mut redis = RedisServer::builder().durable().start().await.unwrap();
    let (url, dir) = (redis.url(), redis.dir().to_owned());
    for number in 0..100 {
        push(&redis, number).await;
    }

    redis.kill().await.unwrap();
    assert!(!redis.is_running());
    assert_eq!(redis.pid(), None);
    assert!(redis.connection().await.is_err());
    redis.kill().await.unwrap();

    redis.restart().await.unwrap();
    assert!(redis.is_running());
    assert_eq!((redis.url(), redis.dir()), (url, &*dir));
    assert_eq!(length(&redis).await, 100);

    redis.restart_empty().await.unwrap();
    assert_eq!(length(&redis).await, 0);
}

#[tokio::test]
async fn a_server_that_is_not_durable_forgets_on_restart() {
    let mut redis = RedisServer::start().await.unwrap();
    push(&redis, 1).await;
    redis.restart().await.unwrap();
    assert_eq!(length(&redis).await, 0);
}

#[tokio::test]
async fn a_frozen_server_is_silent_and_answers_all_once_thawed() {
    let redis = RedisServer::start().await.unwrap();
    let mut client = Raw::connect(redis.addr()).await;
    for _ in 0..2 {
        redis.freeze().await.unwrap();
        redis.freeze().await.unwrap();
        assert!(redis.is_running());
        client.send("PING\r\n").await;
        client.hears_nothing().await;
        redis.thaw().unwrap();
        assert_eq!(client.line().await.unwrap(), "+PONG");
    }
}

#[tokio::test]
async fn a_server_that_is_down_can_be_neither_frozen_nor_thawed() {
    let mut redis = RedisServer::start().await.unwrap();
    redis.kill().await.unwrap();
    assert_eq!(
        redis.freeze().await.unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(redis.thaw().unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_password_guards_every_way_in_and_ours_knows_it() {
    let password = "p@ss w/\u{f6}\"rd\\%";
    let mut redis = RedisServer::builder()
        .password(password)
        .unix_socket()
        .durable()
        .start()
        .await
        .unwrap();
    push(&redis, 1).await;
    redis.restart().await.unwrap();
    assert_eq!(length(&redis).await, 1);
    assert!(!format!("{redis:?}").contains(password));

    let through_the_file = redis::Client::open(redis.unix_url().unwrap()).unwrap();
    let mut connection = through_the_file
        .get_multiplexed_async_connection()
        .await
        .unwrap();
    let length: usize = redis::cmd("LLEN")
        .arg("list")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(length, 1);

    let mut stranger = Raw::connect(redis.addr()).await;
    stranger.send("LLEN list\r\n").await;
    assert!(stranger.line().await.unwrap().starts_with("-NOAUTH"));
}

#[tokio::test]
async fn a_directive_reaches_the_server() {
    let redis = RedisServer::builder()
        .arg("maxmemory", "1mb")
        .start()
        .await
        .unwrap();
    let setting: Vec<String> = redis
        .command(redis::cmd("CONFIG").arg("GET").arg("maxmemory"))
        .await
        .unwrap();
    assert_eq!(setting, ["maxmemory", "1048576"]);
}

#[tokio::test]
async fn a_missing_redis_server_says_how_to_get_one() {
    let builder = RedisServer::builder().program("redis-server-that-is-not-here");
    let error = builder.start().await.unwrap_err();
    assert!(
        matches!(error, StartError::NotInstalled { .. }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("install it with: apt-get install redis-server")
    );
}

#[tokio::test]
async fn a_server_that_dies_at_its_start_leaves_its_last_words() {
    let error = RedisServer::builder()
        .arg("maxmemory", "lots")
        .start()
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Died { .. }), "{error:?}");
    assert!(error.to_string().contains("maxmemory lots"), "{error}");
}

#[tokio::test]
async fn a_port_can_be_chosen_unless_it_is_taken() {
    let mut redis = RedisServer::start().await.unwrap();
    let port = redis.port();
    let taken = RedisServer::builder().port(port).start().await.unwrap_err();
    assert!(
        matches!(taken, StartError::PortTaken { port: named } if named == port),
        "{taken:?}"
    );
    assert!(
        !(32_768..=60_999).contains(&port),
        "outside the usual ephemeral range"
    );

    redis.kill().await.unwrap();
    let second = RedisServer::builder().port(port).start().await.unwrap();
    assert_eq!(second.port(), port);
    let beside = redis.restart().await.unwrap_err();
    assert!(
        matches!(beside, StartError::PortTaken { .. }),
        "answered by another: {beside:?}"
    );
}

#[tokio::test]
async fn a_dropped_server_leaves_no_process_and_no_directory() {
    let redis = RedisServer::builder().durable().start().await.unwrap();
    let (addr, dir) = (redis.addr(), redis.dir().to_owned());
    redis.freeze().await.unwrap();
    drop(redis);
    assert!(is_gone(addr, &dir).await);
}

/// With SIGKILL no destructor runs, so this needs a process to kill: this test, run again.
#[tokio::test]
async fn a_killed_test_process_leaves_no_server_and_no_directory() {
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "server::the_victim", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(victim.stdout.take().unwrap()).lines();
    let servers: Vec<(SocketAddr, String)> = output
        .by_ref()
        .map(Result::unwrap)
        .filter_map(|line| {
            let (addr, dir) = line.split_once(VICTIM)?.1.trim().split_once(' ')?;
            Some((addr.parse().ok()?, dir.to_owned()))
        })
        .take(3)
        .collect();
    assert_eq!(servers.len(), 3);

    victim.kill().unwrap();
    victim.wait().unwrap();
    for (addr, dir) in &servers {
        let gone = || is_gone(*addr, Path::new(dir));
        wait_until("a server and its directory to go", PLENTY, gone)
            .await
            .unwrap();
    }
    // Nobody kept the pipe: the output ends, so no child of the victim holds it either.
    assert!(output.next().is_none());
}

#[tokio::test]
async fn the_victim() {
    if env::var_os(VICTIM).is_none() {
        return;
    }
    let durable = RedisServer::builder().durable().start().await.unwrap();
    let frozen = RedisServer::start().await.unwrap();
    frozen.freeze().await.unwrap();
    let mut restarted = RedisServer::start().await.unwrap();
    restarted.kill().await.unwrap();
    restarted.restart().await.unwrap();
    for server in [&durable, &frozen, &restarted] {
        println!("\n{VICTIM} {} {}", server.addr(), server.dir().display());
    }
    std::future::pending().await
}

const VICTIM: &str = "SEAWALL_CHAOS_VICTIM";

async fn is_gone(addr: SocketAddr, dir: &Path) -> bool {
    let on_its_way_out = dir.with_extension("gone");
    TcpStream::connect(addr).await.is_err() && !dir.exists() && !on_its_way_out.exists()
}
