//! The chaos tools against a real `redis-server`: they must hurt it as they say, and leave nothing.
#![cfg(feature = "chaos")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps an error fails, as it should"
)]

mod nemesis;
mod proxy;
mod sentinel;
mod server;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use seawall::chaos::RedisServer;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// Ends a test that would hang; no test passes or fails by it otherwise.
const PLENTY: Duration = Duration::from_secs(30);
/// How long silence is listened to: a busy machine can only make it longer.
const A_WHILE: Duration = Duration::from_millis(150);

async fn push(redis: &RedisServer, number: u32) {
    redis
        .command::<()>(redis::cmd("RPUSH").arg("list").arg(number))
        .await
        .unwrap();
}

async fn length(redis: &RedisServer) -> usize {
    length_of(redis, "list").await
}

async fn length_of(redis: &RedisServer, list: &str) -> usize {
    redis.command(redis::cmd("LLEN").arg(list)).await.unwrap()
}

/// A connection without a client in it: what is sent and heard is what the network carries.
struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    async fn connect(addr: SocketAddr) -> Self {
        Self {
            stream: BufReader::new(TcpStream::connect(addr).await.unwrap()),
        }
    }

    /// From an address of its own, on a port that the system picks.
    async fn connect_from(source: IpAddr, addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        Self {
            stream: BufReader::new(socket.connect(addr).await.unwrap()),
        }
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
        timeout(PLENTY, self.stream.read_line(&mut line))
            .await
            .expect("the line hangs")?;
        Ok(line.trim_end().to_owned())
    }

    async fn hears_nothing(&mut self) {
        let mut byte = [0];
        let heard = timeout(A_WHILE, self.stream.read(&mut byte)).await;
        assert!(heard.is_err(), "it was not silent: {heard:?}");
    }

    async fn is_reset(&mut self) {
        let error = self.line().await.expect_err("it was not reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// Reads to the end, be it orderly or a reset.
    async fn ends(&mut self) -> bool {
        timeout(PLENTY, self.stream.read_to_end(&mut Vec::new()))
            .await
            .is_ok()
    }
}
