//! What Prometheus sees: the application's own registry, with seawall's metrics in it, over HTTP.
//!
//! ```text
//! cargo run --features chaos --example metrics               # serves until Ctrl-C
//! cargo run --features chaos --example metrics -- --once     # scrapes itself once, prints that, ends
//! ```
//!
//! It starts a Redis of its own, makes some traffic and a short outage, and then prints the address to
//! point a browser or `curl` at. Look for `seawall_outages_total 1`, for
//! `seawall_enqueued_total` by `receipt`, and for `seawall_breaker_state`.
#![allow(clippy::print_stdout, reason = "a program, not the library")]

use std::{env, io, net::SocketAddr, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus::{Registry, TextEncoder};
use seawall::{Job, RedisCall, Seawall, chaos::RedisServer, error::BoxError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let once = env::args().any(|arg| arg == "--once");
    let mut redis = RedisServer::builder().durable().start().await?;
    let spool = tempfile::tempdir()?;

    let registry = Registry::new(); // yours: your own metrics live in it as well
    let seawall = Seawall::builder(&redis.url(), spool.path())?
        .metrics(&registry)
        .connect()
        .await?;
    seawall
        .connection()
        .wait_ready(Duration::from_secs(5))
        .await?;

    traffic(&seawall).await?;
    redis.kill().await?;
    traffic(&seawall).await?;
    redis.restart().await?;
    seawall.flush().await;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let app = Router::new()
        .route("/metrics", get(metrics))
        .with_state(registry);
    let server = async { axum::serve(listener, app).await };
    if once {
        tokio::select! {
            ended = server => ended?,
            scraped = scrape(addr) => println!("{}", scraped?),
        }
    } else {
        println!("http://{addr}/metrics");
        tokio::select! {
            ended = server => ended?,
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
    }
    seawall.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

async fn metrics(State(registry): State<Registry>) -> Result<String, (StatusCode, String)> {
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Some jobs, which always find a place, and some calls, which fail at once while Redis is out.
async fn traffic(seawall: &Seawall) -> Result<(), BoxError> {
    for number in 0..100 {
        let job = Job::new("emails", number.to_string());
        let _delivered_or_spooled = seawall.enqueue(job).await?;
        let waiting = RedisCall::new("count_emails", redis::cmd("LLEN").arg("emails"));
        let _ = seawall.call(waiting).await;
    }
    Ok(())
}

/// What Prometheus would do.
async fn scrape(addr: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    body.ok_or_else(|| io::Error::other("no body"))
}
