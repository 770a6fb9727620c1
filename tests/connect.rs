//! The connection against a real Redis: away, killed, demoted, silent behind a proxy, and back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures_util::FutureExt;
use redis::{AsyncCommands, Cmd, aio::MultiplexedConnection, cmd};
use seawall::{
    Error, RedisCall,
    call::{Body, ScriptCall},
    classify::{Class, Landed},
    connect::{ConnectOptions, Connection, Exclusive, Status, Trouble},
    error::ErrorKind,
    metrics::Metrics,
};
use tower::ServiceExt;

use self::rig::{BlackHole, Server, free_port};

/// Longer than anything here takes, so a hang fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// So rare that it does not happen in a test.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn without_redis_a_call_fails_at_once_and_says_when_to_come_back() {
    let connection = open(&format!("redis://127.0.0.1:{}", free_port()));
    seen(&connection, |status| status.trouble.is_some()).await;
    // Polled once: it has failed without waiting for anything.
    let error = connection.clone().oneshot(get("k")).now_or_never();
    let error = error.expect("an answer at once").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.is_outage() && !error.may_have_landed(), "{error:?}");
    assert!(error.retry_after().is_some() && error.call() == "test");
    let error = connection.exclusive().now_or_never();
    let error = error.expect("an answer at once").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let error = connection.wait_ready(Duration::from_millis(10)).await;
    assert!(error.unwrap_err().is_outage());
    let trouble = connection.status().borrow().trouble;
    assert_eq!(trouble, Some(Trouble::Unreachable));
}

#[tokio::test]
async fn a_call_whose_deadline_has_passed_is_not_sent() {
    let server = Server::start(&[]).await;
    let connection = ready(&server.url()).await;
    let late = set("k", "1").with_timeout(Duration::ZERO);
    let error = connection.clone().oneshot(late).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!error.may_have_landed());
    assert_eq!(text(&connection, get("k")).await.unwrap(), None);
}

#[tokio::test]
async fn a_black_holed_socket_is_replaced_after_unanswered_calls() {
    let server = Server::start(&[]).await;
    let hole = BlackHole::before(server.port).await;
    let options = options(&hole.url())
        .with_response_timeout(Duration::from_millis(50))
        .with_suspect_after(3)
        .with_probe(NEVER, NEVER);
    let connection = Connection::open(options).unwrap();
    seen(&connection, |status| status.up).await;
    hole.swallow();
    for _ in 0..3 {
        let error = text(&connection, get("k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.is_transient() && error.may_have_landed());
        assert_eq!(error.attempts(), 1);
    }
    let status = seen(&connection, |status| status.generation == 2).await;
    assert_eq!(status.trouble, Some(Trouble::Silent));
    assert_eq!(text(&connection, get("k")).await.unwrap(), None);
}

#[tokio::test]
async fn a_black_holed_idle_socket_is_replaced_by_the_probe() {
    let server = Server::start(&[]).await;
    let hole = BlackHole::before(server.port).await;
    let connection = ready(&hole.url()).await;
    hole.swallow();
    let status = seen(&connection, |status| status.generation == 2).await;
    assert_eq!(status.trouble, Some(Trouble::Probe));
}

#[tokio::test]
async fn calls_waiting_on_a_replaced_connection_end() {
    let server = Server::start(&[]).await;
    let hole = BlackHole::before(server.port).await;
    let options = options(&hole.url()).with_response_timeout(NEVER);
    let connection = Connection::open(options).unwrap();
    connection.wait_ready(PATIENCE).await.unwrap();
    let mut exclusive = connection.exclusive().await.unwrap();
    hole.swallow();
    let (call, blocking) = tokio::time::timeout(PATIENCE, async {
        let blocking = exclusive.blpop::<_, Option<(String, String)>>("jobs", 0.0);
        tokio::join!(text(&connection, set("k", "1")), blocking)
    })
    .await
    .expect("both end with the connection");
    assert_eq!(call.unwrap_err().verdict().landed, Landed::Maybe);
    assert!(blocking.unwrap_err().is_connection_dropped());
    // Their errors are the old generation's, and cost the new one nothing.
    seen(&connection, |status| status.generation == 2).await;
    connection.clone().oneshot(set("k", "1")).await.unwrap();
    assert_eq!(connection.status().borrow().generation, 2);
}

#[tokio::test]
async fn impatient_callers_do_not_cost_the_connection() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let options = options(&server.url()).with_probe(NEVER, NEVER);
    let connection = Connection::open(options).unwrap();
    connection.wait_ready(PATIENCE).await.unwrap();
    admin_cmd(&mut admin, &["CLIENT", "PAUSE", "60000", "WRITE"]).await;
    for _ in 0..5 {
        let call = set("k", "1").with_timeout(Duration::from_millis(10));
        let error = text(&connection, call).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    admin_cmd(&mut admin, &["CLIENT", "UNPAUSE"]).await;
    connection.clone().oneshot(set("k", "2")).await.unwrap();
    assert_eq!(connection.status().borrow().generation, 1);
}

#[tokio::test]
async fn a_restarted_server_is_found_without_traffic() {
    let mut server = Server::start(&[]).await;
    let connection = ready(&server.url()).await;
    server.kill().await;
    let status = seen(&connection, |status| !status.up).await;
    assert_eq!(status.trouble, Some(Trouble::Lost));
    server.restart().await;
    seen(&connection, |status| status.generation == 2).await;
    assert_eq!(text(&connection, get("k")).await.unwrap(), None);
}

#[tokio::test]
async fn a_wrong_password_is_an_outage_that_ends_when_it_is_put_right() {
    let server = Server::start(&["--requirepass", "other"]).await;
    let mut admin = server.admin().await;
    for protocol in ["resp2", "resp3"] {
        let port = server.port;
        let url = format!("redis://:s3cret@127.0.0.1:{port}/1?protocol={protocol}");
        let connection = open(&url);
        let status = seen(&connection, |status| status.trouble.is_some()).await;
        assert_eq!(status.trouble, Some(Trouble::Credentials), "{protocol}");
        let error = text(&connection, get("k")).await.unwrap_err();
        assert!(error.is_outage() && !error.may_have_landed());
        let shown = format!("{error} {error:?} {connection:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        admin_cmd(&mut admin, &["CONFIG", "SET", "requirepass", "s3cret"]).await;
        seen(&connection, |status| status.up).await;
        admin_cmd(&mut admin, &["CONFIG", "SET", "requirepass", "other"]).await;
    }
    // None given where one is asked for.
    for path in ["", "/1"] {
        let connection = open(&format!("{}{path}", server.url()));
        let status = seen(&connection, |status| status.trouble.is_some()).await;
        assert_eq!(status.trouble, Some(Trouble::Credentials), "{path}");
    }
}

#[tokio::test]
async fn readonly_anywhere_starts_a_search_that_ends_with_the_promotion() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let mut transaction = redis::pipe();
    transaction.atomic().set("k", 1).set("l", 1);
    let mut pipeline = redis::pipe();
    pipeline.get("k").set("k", 1);
    let writes: [(&str, Body); 5] = [
        ("command", cmd("SET").arg("k").arg(1).into()),
        ("transaction", transaction.into()),
        ("pipeline", pipeline.into()),
        ("script", script("redis.call('SET', 'k', 1)").into()),
        (
            "caught",
            script("return {redis.pcall('SET', 'k', 1)}").into(),
        ),
    ];
    for (kind, write) in writes {
        let options = options(&server.url()).with_probe(NEVER, NEVER);
        let connection = Connection::open(options).unwrap();
        connection.wait_ready(PATIENCE).await.unwrap();
        demote(&mut admin).await;
        let write = RedisCall::new("write", write);
        match (kind, connection.clone().oneshot(write).await) {
            ("caught", answer) => assert!(answer.is_ok()),
            (_, answer) => {
                let verdict = answer.expect_err(kind).verdict();
                let landed = match kind {
                    "pipeline" => Landed::Yes,
                    _ => Landed::No,
                };
                assert_eq!(verdict.class, Class::Outage, "{kind}");
                assert_eq!(verdict.landed, landed, "{kind}");
            }
        }
        let status = seen(&connection, |status| !status.up).await;
        assert_eq!(status.trouble, Some(Trouble::Replica), "{kind}");
        let error = text(&connection, get("k")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{kind}");
        promote(&mut admin).await;
        seen(&connection, |status| status.generation == 2).await;
        connection.oneshot(set("k", "1")).await.unwrap();
    }
}

#[tokio::test]
async fn an_idle_connection_notices_that_its_server_was_demoted() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let connection = ready(&server.url()).await;
    demote(&mut admin).await;
    let status = seen(&connection, |status| !status.up).await;
    assert_eq!(status.trouble, Some(Trouble::Replica));
    promote(&mut admin).await;
    seen(&connection, |status| status.up).await;
}

#[tokio::test]
async fn user_database_protocol_and_name_arrive_over_tcp_and_unix_sockets() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let rules = ["ACL", "SETUSER", "ann", "on", ">p@ss/word", "~*", "+@all"];
    admin_cmd(&mut admin, &rules).await;
    let (port, socket) = (server.port, server.socket());
    let rest = "user=ann&pass=p@ss%2Fword&protocol=3&client_name=mine";
    let urls = [
        format!("redis://ann:p%40ss%2Fword@127.0.0.1:{port}/2?protocol=resp3&client_name=mine"),
        format!("unix://{socket}?db=2&{rest}"),
        format!("redis+unix://{socket}?db=2&{rest}"),
    ];
    for url in urls {
        let connection = ready(&url).await;
        let info = text(&connection, call(cmd("CLIENT").arg("INFO"))).await;
        let info = info.unwrap().unwrap();
        for part in [" user=ann ", " db=2 ", " resp=3", " name=mine "] {
            assert!(info.contains(part), "{url}: no {part} in {info}");
        }
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_said_so() {
    let server = Server::start(&[]).await;
    let connection = open(&format!("{}/999", server.url()));
    let status = seen(&connection, |status| status.trouble.is_some()).await;
    assert_eq!(status.trouble, Some(Trouble::Database));
}

#[tokio::test]
async fn a_user_who_may_not_ask_for_the_role_is_served() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let rules = ["ACL", "SETUSER", "bob", "on", ">x", "~*", "+get", "+set"];
    admin_cmd(&mut admin, &rules).await;
    let connection = ready(&format!("redis://bob:x@127.0.0.1:{}", server.port)).await;
    connection.clone().oneshot(set("k", "1")).await.unwrap();
    let forbidden = call(cmd("DEL").arg("k"));
    let error = text(&connection, forbidden).await.unwrap_err();
    assert!(error.is_permanent(), "{error:?}");
    assert!(connection.is_up());
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_trusts_the_given_authority_and_no_other() {
    let (_server, port, authority) = rig::start_tls().await;
    let url = format!("rediss://localhost:{port}");
    let connection = Connection::open(options(&url).with_ca_certificate(authority)).unwrap();
    connection.wait_ready(PATIENCE).await.unwrap();
    connection.clone().oneshot(set("k", "1")).await.unwrap();
    connection.exclusive().await.unwrap();

    let stranger = open(&url);
    let status = seen(&stranger, |status| status.trouble.is_some()).await;
    assert_eq!(status.trouble, Some(Trouble::Tls));
}

#[tokio::test]
async fn a_script_runs_although_the_server_has_forgotten_it() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let connection = ready(&server.url()).await;
    for runs in 1..=2 {
        admin_cmd(&mut admin, &["SCRIPT", "FLUSH"]).await;
        let run = RedisCall::new("script", script("return redis.call('INCR', 'runs')"));
        let answer = connection.clone().oneshot(run).await.unwrap();
        assert_eq!(answer.decode::<i64>().unwrap(), runs);
    }
}

#[tokio::test]
async fn the_task_ends_and_the_sockets_close_with_the_last_clone() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let connection = ready(&format!("{}?client_name=mine", server.url())).await;
    let mut status = connection.status();
    let clone = connection.clone();
    drop(connection.exclusive().await.unwrap());
    drop(connection);
    clone.clone().oneshot(set("k", "1")).await.unwrap();
    drop(clone);
    // The sender is the task's and the connection's.
    let closed = async { while status.changed().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    clients(&mut admin, |list| !list.contains("name=mine")).await;
}

#[tokio::test]
async fn a_pending_call_outlives_the_last_clone() {
    let server = Server::start(&[]).await;
    let connection = ready(&server.url()).await;
    assert!(connection.oneshot(set("k", "1")).await.is_ok());
}

#[tokio::test]
async fn dropped_calls_harm_no_other_call() {
    let server = Server::start(&[]).await;
    let connection = ready(&server.url()).await;
    for n in 0..200 {
        let key = format!("k{n}");
        connection.clone().oneshot(set(&key, &key)).await.unwrap();
        // Handed over, and given up before the answer.
        let dropped = connection.clone().oneshot(get("k0")).now_or_never();
        assert!(dropped.is_none());
        assert_eq!(text(&connection, get(&key)).await.unwrap(), Some(key));
    }
    assert_eq!(connection.status().borrow().generation, 1);
}

#[tokio::test]
async fn several_shared_connections_are_all_used() {
    let server = Server::start(&[]).await;
    let options = options(&server.url()).with_connections(3);
    let connection = Connection::open(options).unwrap();
    connection.wait_ready(PATIENCE).await.unwrap();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..6 {
        let id = call(cmd("CLIENT").arg("ID"));
        let id = connection.clone().oneshot(id).await.unwrap();
        ids.insert(id.decode::<u64>().unwrap());
    }
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_blocking_read_outlasts_the_response_timeout() {
    let server = Server::start(&[]).await;
    let options = options(&server.url()).with_response_timeout(Duration::from_millis(20));
    let connection = Connection::open(options).unwrap();
    connection.wait_ready(PATIENCE).await.unwrap();
    let mut exclusive = connection.exclusive().await.unwrap();
    let nothing: Option<(String, String)> = exclusive.blpop("jobs", 0.1).await.unwrap();
    assert_eq!(nothing, None);
    let late = call(cmd("BLPOP").arg("jobs").arg(0)).with_timeout(Duration::from_millis(20));
    let error = exclusive.call(&late).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(connection.is_up());
}

#[tokio::test]
async fn exclusive_connections_are_bounded_and_reused() {
    let server = Server::start(&[]).await;
    let options = options(&server.url()).with_exclusive(1, Duration::from_millis(20));
    let connection = Connection::open(options).unwrap();
    connection.wait_ready(PATIENCE).await.unwrap();
    let mut first = connection.exclusive().await.unwrap();
    let id = id_of(&mut first).await;
    let error = connection.exclusive().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PoolBusy);
    assert_eq!(error.verdict().speaks_against(), None);
    drop(first);
    let mut second = connection.exclusive().await.unwrap();
    assert_eq!(id_of(&mut second).await, id);
}

#[tokio::test]
async fn an_exclusive_connection_of_an_older_generation_is_not_handed_out() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let connection = ready(&server.url()).await;
    let mut first = connection.exclusive().await.unwrap();
    let old = id_of(&mut first).await;
    drop(first);
    demote(&mut admin).await;
    seen(&connection, |status| !status.up).await;
    promote(&mut admin).await;
    seen(&connection, |status| status.generation == 2).await;
    let mut second = connection.exclusive().await.unwrap();
    assert_ne!(id_of(&mut second).await, old);
}

#[tokio::test]
async fn an_exclusive_write_refused_by_a_replica_starts_the_search() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let options = options(&server.url()).with_probe(NEVER, NEVER);
    let connection = Connection::open(options).unwrap();
    connection.wait_ready(PATIENCE).await.unwrap();
    let mut exclusive = connection.exclusive().await.unwrap();
    demote(&mut admin).await;
    assert!(exclusive.set::<_, _, ()>("k", 1).await.is_err());
    let status = seen(&connection, |status| !status.up).await;
    assert_eq!(status.trouble, Some(Trouble::Replica));
}

#[tokio::test]
async fn a_dropped_blocking_read_takes_nothing() {
    let server = Server::start(&[]).await;
    let mut admin = server.admin().await;
    let connection = ready(&server.url()).await;
    let mut exclusive = connection.exclusive().await.unwrap();
    let blocked = tokio::spawn(async move {
        let _: Option<(String, String)> = exclusive.blpop("jobs", 0.0).await.unwrap();
    });
    clients(&mut admin, |list| list.contains("cmd=blpop")).await;
    blocked.abort();
    clients(&mut admin, |list| !list.contains("cmd=blpop")).await;
    admin_cmd(&mut admin, &["RPUSH", "jobs", "job"]).await;
    assert_eq!(admin.llen::<_, u64>("jobs").await.unwrap(), 1);
    connection.exclusive().await.unwrap();
}

#[tokio::test]
async fn an_open_transaction_is_not_the_next_users() {
    let server = Server::start(&[]).await;
    let connection = ready(&server.url()).await;
    let mut first = connection.exclusive().await.unwrap();
    cmd("MULTI").exec_async(&mut first).await.unwrap();
    drop(first);
    let mut second = connection.exclusive().await.unwrap();
    let answer: Option<String> = second.get("k").await.unwrap();
    assert_eq!(answer, None);
}

#[tokio::test]
async fn everything_is_counted() {
    let mut server = Server::start(&[]).await;
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    let options = options(&server.url()).with_metrics(metrics.connect.clone());
    let connection = Connection::open(options).unwrap();
    let shows = |line: &str| {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
        let text = text.unwrap();
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    };
    shows("seawall_reconnects_total{reason=\"silent\"} 0");
    shows("seawall_attempts_total{outcome=\"timeout\"} 0");
    connection.wait_ready(PATIENCE).await.unwrap();
    connection.clone().oneshot(set("k", "1")).await.unwrap();
    let wrong_type = call(cmd("LPUSH").arg("k").arg(1));
    text(&connection, wrong_type).await.unwrap_err();
    shows("seawall_connection_up 1");
    shows("seawall_connection_generation 1");
    shows("seawall_attempts_total{outcome=\"ok\"} 1");
    shows("seawall_attempts_total{outcome=\"refused\"} 1");
    shows("seawall_attempt_seconds_count 2");
    let exclusive = connection.exclusive().await.unwrap();
    shows("seawall_pool_connections{state=\"busy\"} 1");
    shows("seawall_pool_connections{state=\"idle\"} 0");
    drop(exclusive);
    shows("seawall_pool_connections{state=\"busy\"} 0");
    shows("seawall_pool_connections{state=\"idle\"} 1");
    server.kill().await;
    seen(&connection, |status| !status.up).await;
    shows("seawall_connection_up 0");
    shows("seawall_reconnects_total{reason=\"lost\"} 1");
}

// What the tests above are written in.

fn options(url: &str) -> ConnectOptions {
    ConnectOptions::from_url(url)
        .unwrap()
        .with_reconnect_delay(Duration::from_millis(5), Duration::from_millis(50))
        .with_probe(Duration::from_millis(50), Duration::from_millis(500))
}

fn open(url: &str) -> Connection {
    Connection::open(options(url)).unwrap()
}

async fn ready(url: &str) -> Connection {
    let connection = open(url);
    connection.wait_ready(PATIENCE).await.unwrap();
    connection
}

/// Waits for a status.
async fn seen(connection: &Connection, wanted: impl FnMut(&Status) -> bool) -> Status {
    let mut status = connection.status();
    let seen = tokio::time::timeout(PATIENCE, status.wait_for(wanted)).await;
    *seen
        .unwrap_or_else(|_| panic!("still {connection:?}"))
        .unwrap()
}

fn call(cmd: &mut Cmd) -> RedisCall {
    RedisCall::new("test", cmd)
}

fn get(key: &str) -> RedisCall {
    call(cmd("GET").arg(key))
}

fn set(key: &str, value: &str) -> RedisCall {
    call(cmd("SET").arg(key).arg(value))
}

fn script(source: &'static str) -> ScriptCall {
    let hash = redis::Script::new(source).get_hash().to_owned();
    ScriptCall::new(source, cmd("EVALSHA").arg(hash).arg(0).take())
}

async fn text(connection: &Connection, call: RedisCall) -> Result<Option<String>, Error> {
    Ok(connection.clone().oneshot(call).await?.decode()?)
}

async fn id_of(exclusive: &mut Exclusive) -> u64 {
    let id = cmd("CLIENT").arg("ID").take();
    id.query_async(exclusive).await.unwrap()
}

async fn admin_cmd(admin: &mut MultiplexedConnection, words: &[&str]) {
    let cmd = cmd(words[0]).arg(&words[1..]).take();
    cmd.exec_async(admin).await.unwrap();
}

/// Makes the server the replica of nobody.
async fn demote(admin: &mut MultiplexedConnection) {
    let nobody = free_port().to_string();
    admin_cmd(admin, &["REPLICAOF", "127.0.0.1", &nobody]).await;
}

async fn promote(admin: &mut MultiplexedConnection) {
    admin_cmd(admin, &["REPLICAOF", "NO", "ONE"]).await;
}

/// Waits until the server's list of clients is as wanted.
async fn clients(admin: &mut MultiplexedConnection, wanted: impl Fn(&str) -> bool) {
    let found = async {
        loop {
            let list = cmd("CLIENT").arg("LIST").take();
            let list: String = list.query_async(admin).await.unwrap();
            if wanted(&list) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap();
}

/// Servers to hurt, and a proxy that swallows.
mod rig {
    use std::{
        path::{Path, PathBuf},
        process::Stdio,
        sync::atomic::{AtomicU16, Ordering},
        time::Duration,
    };

    use redis::aio::MultiplexedConnection;
    use tokio::{
        io::copy_bidirectional,
        net::{TcpListener, TcpStream},
        process::{Child, Command},
        sync::watch,
    };

    pub(super) struct Server {
        pub(super) port: u16,
        arguments: Vec<String>,
        directory: PathBuf,
        child: Child,
    }

    impl Server {
        pub(super) async fn start(extra: &[&str]) -> Self {
            let port = free_port();
            Self::start_in(port, directory(port), extra).await
        }

        async fn start_in(port: u16, directory: PathBuf, extra: &[&str]) -> Self {
            let (port_text, socket) = (port.to_string(), directory.join("redis.sock"));
            let socket = socket.display().to_string();
            let usual = ["--save", "", "--port", &port_text, "--unixsocket", &socket];
            let arguments: Vec<_> = usual.iter().chain(extra).map(|a| (*a).to_owned()).collect();
            let mut server = Self {
                port,
                child: spawn(&arguments, &directory),
                arguments,
                directory,
            };
            server.listening().await;
            server
        }

        pub(super) fn url(&self) -> String {
            format!("redis://127.0.0.1:{}", self.port)
        }

        pub(super) fn socket(&self) -> String {
            self.directory.join("redis.sock").display().to_string()
        }

        pub(super) async fn kill(&mut self) {
            self.child.kill().await.unwrap();
        }

        pub(super) async fn restart(&mut self) {
            self.child = spawn(&self.arguments, &self.directory);
            self.listening().await;
        }

        async fn listening(&mut self) {
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                if let Some(status) = self.child.try_wait().unwrap() {
                    panic!("redis-server {:?} ended: {status}", self.arguments);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }

        /// A connection of the redis crate's own, with the server's password if it has one.
        pub(super) async fn admin(&self) -> MultiplexedConnection {
            let mut after = self.arguments.iter().skip_while(|a| *a != "--requirepass");
            let login = after
                .nth(1)
                .map_or(String::new(), |word| format!(":{word}@"));
            let url = format!("redis://{login}127.0.0.1:{}", self.port);
            let client = redis::Client::open(url).unwrap();
            client.get_multiplexed_async_connection().await.unwrap()
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.child.start_kill();
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    fn directory(port: u16) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("seawall-connect-{port}"));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn spawn(arguments: &[String], directory: &Path) -> Child {
        Command::new("redis-server")
            .args(arguments)
            .current_dir(directory)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server is installed")
    }

    /// A server that also speaks TLS as `localhost`, and the certificate of who vouches for it.
    #[cfg(feature = "tls")]
    pub(super) async fn start_tls() -> (Server, u16, String) {
        let (port, tls_port) = (free_port(), free_port());
        let directory = directory(port);
        let make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca \
                -keyout ca.key -out ca.crt && \
            openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout r.key -out r.csr && \
            printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > r.ext && \
            openssl x509 -req -in r.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                -extfile r.ext -out r.crt";
        let mut openssl = Command::new("sh");
        openssl.args(["-c", make]).current_dir(&directory);
        let made = openssl.output().await.unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        let authority = std::fs::read_to_string(directory.join("ca.crt")).unwrap();
        let tls = tls_port.to_string();
        #[rustfmt::skip]
        let extra = [
            "--tls-port", &tls, "--tls-cert-file", "r.crt", "--tls-key-file", "r.key",
            "--tls-ca-cert-file", "ca.crt", "--tls-auth-clients", "no",
        ];
        let server = Server::start_in(port, directory, &extra).await;
        (server, tls_port, authority)
    }

    /// A proxy whose sockets can stop passing anything on, while new ones work.
    pub(super) struct BlackHole {
        port: u16,
        swallowed: watch::Sender<()>,
    }

    impl BlackHole {
        pub(super) async fn before(server: u16) -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (swallowed, watching) = watch::channel(());
            tokio::spawn(async move {
                while let Ok((mut near, _)) = listener.accept().await {
                    let mut watching = watching.clone();
                    watching.mark_unchanged();
                    tokio::spawn(async move {
                        let mut far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                        tokio::select! {
                            _ = copy_bidirectional(&mut near, &mut far) => {}
                            // Open on both sides, and deaf.
                            _ = watching.changed() => std::future::pending().await,
                        }
                    });
                }
            });
            Self { port, swallowed }
        }

        pub(super) fn url(&self) -> String {
            format!("redis://127.0.0.1:{}", self.port)
        }

        /// From now on, nothing passes on the sockets there are.
        pub(super) fn swallow(&self) {
            self.swallowed.send_replace(());
        }
    }

    /// A port below those the kernel gives out, so that nobody gets it between two starts.
    pub(super) fn free_port() -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        loop {
            let process = u16::try_from(std::process::id() % 1000).unwrap();
            let n = process * 12 + NEXT.fetch_add(1, Ordering::Relaxed);
            let port = 20_000 + n % 12_000;
            if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    }
}
