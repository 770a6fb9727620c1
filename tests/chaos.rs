//! The chaos tools against a real `redis-server`: they must hurt it as they say, and leave nothing.
#![cfg(feature = "chaos")]

use std::{
    env, io,
    io::{BufRead as _, BufReader as StdBufReader},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use seawall::chaos::{Fault, FaultProxy, RedisServer, StartError, wait_until};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

/// Ends a test that would hang; no test passes or fails by it otherwise.
const PLENTY: Duration = Duration::from_secs(30);
/// How long silence is listened to: a busy machine can only make it longer.
const A_WHILE: Duration = Duration::from_millis(150);

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
    assert_eq!(redis.freeze().await.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(redis.thaw().unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_password_guards_every_way_in_and_ours_knows_it() {
    let password = "p@ss w/\u{f6}\"rd\\%";
    let mut redis =
        RedisServer::builder().password(password).unix_socket().durable().start().await.unwrap();
    push(&redis, 1).await;
    redis.restart().await.unwrap();
    assert_eq!(length(&redis).await, 1);
    assert!(!format!("{redis:?}").contains(password));

    let through_the_file = redis::Client::open(redis.unix_url().unwrap()).unwrap();
    let mut connection = through_the_file.get_multiplexed_async_connection().await.unwrap();
    let length: usize = redis::cmd("LLEN").arg("list").query_async(&mut connection).await.unwrap();
    assert_eq!(length, 1);

    let mut stranger = Raw::connect(redis.addr()).await;
    stranger.send("LLEN list\r\n").await;
    assert!(stranger.line().await.unwrap().starts_with("-NOAUTH"));
}

#[tokio::test]
async fn a_directive_reaches_the_server() {
    let redis = RedisServer::builder().arg("maxmemory", "1mb").start().await.unwrap();
    let setting: Vec<String> =
        redis.command(redis::cmd("CONFIG").arg("GET").arg("maxmemory")).await.unwrap();
    assert_eq!(setting, ["maxmemory", "1048576"]);
}

#[tokio::test]
async fn a_missing_redis_server_says_how_to_get_one() {
    let builder = RedisServer::builder().program("redis-server-that-is-not-here");
    let error = builder.start().await.unwrap_err();
    assert!(matches!(error, StartError::NotInstalled { .. }), "{error:?}");
    assert!(error.to_string().contains("install it with: apt-get install redis-server"));
}

#[tokio::test]
async fn a_server_that_dies_at_its_start_leaves_its_last_words() {
    let error = RedisServer::builder().arg("maxmemory", "lots").start().await.unwrap_err();
    assert!(matches!(error, StartError::Died { .. }), "{error:?}");
    assert!(error.to_string().contains("maxmemory lots"), "{error}");
}

#[tokio::test]
async fn a_port_can_be_chosen_unless_it_is_taken() {
    let mut redis = RedisServer::start().await.unwrap();
    let port = redis.port();
    let taken = RedisServer::builder().port(port).start().await.unwrap_err();
    assert!(matches!(taken, StartError::PortTaken { port: named } if named == port), "{taken:?}");
    assert!(!(32_768..=60_999).contains(&port), "outside the usual ephemeral range");

    redis.kill().await.unwrap();
    let second = RedisServer::builder().port(port).start().await.unwrap();
    assert_eq!(second.port(), port);
    let beside = redis.restart().await.unwrap_err();
    assert!(matches!(beside, StartError::PortTaken { .. }), "answered by another: {beside:?}");
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
        .args(["--exact", "the_victim", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = StdBufReader::new(victim.stdout.take().unwrap()).lines();
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
        wait_until("a server and its directory to go", PLENTY, gone).await.unwrap();
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

#[tokio::test]
async fn a_healthy_proxy_passes_everything() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let large = vec![b'x'; 3_000_000];
    let client = redis::Client::open(proxy.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    connection.set_response_timeout(PLENTY);
    let echo = redis::cmd("ECHO").arg(&large).to_owned();
    assert_eq!(echo.query_async::<Vec<u8>>(&mut connection).await.unwrap(), large);
    drop(connection);
    let counts = proxy.wait_for(|counts| counts.open == 0).await;
    assert_eq!((counts.accepted, counts.dropped_replies), (1, 0));
    drop(redis);
}

#[tokio::test]
async fn refuse_refuses_the_new_and_leaves_the_open() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut open = Raw::connect(proxy.addr()).await;
    assert_eq!(open.ask("PING\r\n").await.unwrap(), "+PONG");
    for _ in 0..3 {
        proxy.set(Fault::Refuse);
        let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(open.ask("PING\r\n").await.unwrap(), "+PONG");
        proxy.heal();
        assert_eq!(Raw::connect(proxy.addr()).await.ask("PING\r\n").await.unwrap(), "+PONG");
    }
}

#[tokio::test]
async fn reset_resets_the_open_and_the_new() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut open = Raw::connect(proxy.addr()).await;
    assert_eq!(open.ask("PING\r\n").await.unwrap(), "+PONG");
    proxy.set(Fault::Reset);
    assert_eq!(open.line().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut new = Raw::connect(proxy.addr()).await;
    assert_eq!(new.line().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    proxy.heal();
    assert_eq!(Raw::connect(proxy.addr()).await.ask("PING\r\n").await.unwrap(), "+PONG");
    assert_eq!(proxy.accepted(), 3);
}

#[tokio::test]
async fn cut_resets_the_open_and_no_more() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut open = Raw::connect(proxy.addr()).await;
    assert_eq!(open.ask("PING\r\n").await.unwrap(), "+PONG");
    proxy.cut();
    assert_eq!(open.line().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(Raw::connect(proxy.addr()).await.ask("PING\r\n").await.unwrap(), "+PONG");
}

#[tokio::test]
async fn a_black_hole_swallows_all_and_closes_nothing() {
    let (mut redis, proxy) = redis_behind_a_proxy().await;
    let mut open = Raw::connect(proxy.addr()).await;
    assert_eq!(open.ask("PING\r\n").await.unwrap(), "+PONG");

    proxy.set(Fault::BlackHole);
    open.send("RPUSH list 1\r\n").await;
    open.hears_nothing().await;
    let mut during = Raw::connect(proxy.addr()).await;
    during.send("PING\r\n").await;
    during.hears_nothing().await;
    assert_eq!(length(&redis).await, 0);
    redis.restart().await.unwrap();
    open.hears_nothing().await;

    proxy.heal();
    open.send("PING\r\n").await;
    open.hears_nothing().await;
    during.hears_nothing().await;
    assert_eq!(Raw::connect(proxy.addr()).await.ask("PING\r\n").await.unwrap(), "+PONG");
    assert_eq!(length(&redis).await, 0);
}

#[tokio::test]
async fn silencing_the_old_leaves_the_new_alone() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut old = Raw::connect(proxy.addr()).await;
    assert_eq!(old.ask("PING\r\n").await.unwrap(), "+PONG");
    proxy.set(Fault::SilenceOld);
    let mut new = Raw::connect(proxy.addr()).await;
    assert_eq!(new.ask("RPUSH list 1\r\n").await.unwrap(), ":1");
    old.send("RPUSH list 2\r\n").await;
    old.hears_nothing().await;
    proxy.heal();
    old.hears_nothing().await;
    assert_eq!(length(&redis).await, 1);
}

#[tokio::test]
async fn dropped_replies_are_counted_and_their_requests_executed() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut client = Raw::connect(proxy.addr()).await;
    assert_eq!(client.ask("PING\r\n").await.unwrap(), "+PONG");

    proxy.set(Fault::DropReplies);
    client.send("RPUSH list 1\r\nRPUSH list 2\r\nLRANGE list 0 -1\r\n").await;
    proxy.wait_for(|counts| counts.dropped_replies == 3).await;
    assert_eq!(length(&redis).await, 2);
    client.hears_nothing().await;

    // The stream has a gap: what came now would be taken for the answer to the first push.
    proxy.heal();
    client.send("RPUSH list 3\r\n").await;
    proxy.wait_for(|counts| counts.dropped_replies == 4).await;
    assert_eq!(length(&redis).await, 3);
    client.hears_nothing().await;
}

#[tokio::test]
async fn the_next_reply_is_dropped_once_with_its_connection() {
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut client = Raw::connect(proxy.addr()).await;
    assert_eq!(client.ask("PING\r\n").await.unwrap(), "+PONG");
    proxy.set(Fault::DropNextReply);
    let lost = client.ask("RPUSH list 1\r\n").await.unwrap_err();
    assert_eq!(lost.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(length(&redis).await, 1);
    assert_eq!((proxy.dropped_replies(), proxy.fault()), (1, Fault::None));
    assert_eq!(Raw::connect(proxy.addr()).await.ask("LLEN list\r\n").await.unwrap(), ":1");
}

#[tokio::test]
async fn a_batch_is_cut_in_the_middle() {
    const COMMAND: &str = "RPUSH list abcdefghij\r\n";
    const WHOLE: usize = 5_000;
    let (redis, proxy) = redis_behind_a_proxy().await;
    let mut client = Raw::connect(proxy.addr()).await;
    assert_eq!(client.ask("PING\r\n").await.unwrap(), "+PONG");

    proxy.set(Fault::CutRequestAfter((WHOLE * COMMAND.len() + 7) as u64));
    let _ = client.stream.write_all(COMMAND.repeat(WHOLE + 100).as_bytes()).await;
    assert!(client.ends().await, "the connection goes on");
    let all = || async { length(&redis).await == WHOLE };
    wait_until("the commands before the cut", PLENTY, all).await.unwrap();
    assert_eq!(Raw::connect(proxy.addr()).await.ask("PING\r\n").await.unwrap(), "+PONG");
    assert_eq!(length(&redis).await, WHOLE);
}

#[tokio::test]
async fn latency_holds_replies_back_in_order() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut client = Raw::connect(proxy.addr()).await;
    assert_eq!(client.ask("PING\r\n").await.unwrap(), "+PONG");

    proxy.set(Fault::Latency(A_WHILE));
    let sent = Instant::now();
    assert_eq!(client.ask("RPUSH list 1\r\n").await.unwrap(), ":1");
    assert!(sent.elapsed() >= A_WHILE);

    client.send("RPUSH list 2\r\n").await;
    proxy.heal();
    client.send("RPUSH list 3\r\n").await;
    assert_eq!(client.line().await.unwrap(), ":2");
    assert_eq!(client.line().await.unwrap(), ":3");
}

#[tokio::test]
async fn a_redis_that_dies_behind_the_proxy_ends_its_connections() {
    let (mut redis, proxy) = redis_behind_a_proxy().await;
    let mut client = Raw::connect(proxy.addr()).await;
    assert_eq!(client.ask("PING\r\n").await.unwrap(), "+PONG");
    redis.kill().await.unwrap();
    assert!(client.ends().await);
    let mut new = Raw::connect(proxy.addr()).await;
    assert_eq!(new.line().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    redis.restart().await.unwrap();
    assert_eq!(Raw::connect(proxy.addr()).await.ask("PING\r\n").await.unwrap(), "+PONG");
}

#[tokio::test]
async fn a_dropped_proxy_refuses_and_ends_its_connections() {
    let (_redis, proxy) = redis_behind_a_proxy().await;
    let mut client = Raw::connect(proxy.addr()).await;
    assert_eq!(client.ask("PING\r\n").await.unwrap(), "+PONG");
    let addr = proxy.addr();
    drop(proxy);
    assert!(TcpStream::connect(addr).await.is_err());
    assert!(client.ends().await);
}

async fn redis_behind_a_proxy() -> (RedisServer, FaultProxy) {
    let redis = RedisServer::start().await.unwrap();
    let proxy = FaultProxy::start(redis.addr()).await.unwrap();
    (redis, proxy)
}

async fn push(redis: &RedisServer, number: u32) {
    redis.command::<()>(redis::cmd("RPUSH").arg("list").arg(number)).await.unwrap();
}

async fn length(redis: &RedisServer) -> usize {
    redis.command(redis::cmd("LLEN").arg("list")).await.unwrap()
}

async fn is_gone(addr: SocketAddr, dir: &Path) -> bool {
    let on_its_way_out = dir.with_extension("gone");
    TcpStream::connect(addr).await.is_err() && !dir.exists() && !on_its_way_out.exists()
}

/// A connection without a client in it: what is sent and heard is what the network carries.
struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    async fn connect(addr: SocketAddr) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(addr).await.unwrap()) }
    }

    async fn ask(&mut self, command: &str) -> io::Result<String> {
        self.send(command).await;
        self.line().await
    }

    async fn send(&mut self, commands: &str) {
        self.stream.write_all(commands.as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        timeout(PLENTY, self.stream.read_line(&mut line)).await.expect("the line hangs")?;
        Ok(line.trim_end().to_owned())
    }

    async fn hears_nothing(&mut self) {
        let mut byte = [0];
        let heard = timeout(A_WHILE, self.stream.read(&mut byte)).await;
        assert!(heard.is_err(), "it was not silent: {heard:?}");
    }

    /// Reads to the end, be it orderly or a reset.
    async fn ends(&mut self) -> bool {
        timeout(PLENTY, self.stream.read_to_end(&mut Vec::new())).await.is_ok()
    }
}
