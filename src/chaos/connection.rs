//! One connection through the proxy: bytes one way and bytes the other way.

use std::{collections::VecDeque, convert::Infallible, future::pending, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    proxy::{Open, Shared},
    resp::ReplyCounter,
    rules::{ConnectionId, Passage},
};

/// Carries bytes until one side is gone, a fault ends it, or `cut` is cancelled.
pub(super) async fn serve(
    mut client: TcpStream,
    id: ConnectionId,
    delay: Duration,
    open: Open,
    cut: CancellationToken,
) {
    let mut upstream = None;
    let end = tokio::select! {
        biased;
        () = cut.cancelled() => End::Reset,
        end = async {
            delayed(delay, id, open.shared()).await;
            carry(&mut client, &mut upstream, id, open.shared()).await
        } => end,
    };
    match end {
        End::Closed => drop(client),
        End::Reset => reset(client),
    }
    drop(open);
    // Closing on a Redis that still answers would reset it, and it would not read to the end of
    // what it was sent. What passed the proxy is executed, however the client ended.
    if let Some(mut upstream) = upstream {
        let _ = upstream.shutdown().await;
        swallow(&mut upstream).await;
    }
}

/// Closes a connection so that its peer sees a reset, not an end.
pub(super) fn reset(client: TcpStream) {
    let _ = client.set_zero_linger();
    drop(client);
}

/// How the client is to see the connection end.
enum End {
    Closed,
    Reset,
}

/// Waits, and no longer once all is well again.
async fn delayed(delay: Duration, id: ConnectionId, shared: &Shared) {
    if !delay.is_zero() {
        tokio::select! {
            () = sleep(delay) => {}
            () = shared.until(|rules| rules.is_healthy(id)) => {}
        }
    }
}

async fn carry(
    client: &mut TcpStream,
    upstream: &mut Option<TcpStream>,
    id: ConnectionId,
    shared: &Shared,
) -> End {
    if shared.ask(|rules| rules.is_silent(id)) {
        swallow(client).await;
        return End::Closed;
    }
    let Ok(connected) = TcpStream::connect(shared.upstream()).await else {
        return End::Reset;
    };
    let upstream = upstream.insert(connected);
    let _ = client.set_nodelay(true);
    let _ = upstream.set_nodelay(true);
    let (from_client, to_client) = client.split();
    let (from_redis, to_redis) = upstream.split();
    tokio::select! {
        Err(end) = requests(from_client, to_redis, id, shared) => end,
        Err(end) = replies(from_redis, to_client, id, shared) => end,
        else => End::Closed,
    }
}

/// Reads on until the peer is gone.
async fn swallow(peer: &mut TcpStream) {
    let mut bytes = vec![0; PIECE];
    while peer.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

/// Ends with `Ok` when the client has sent all it will send and still waits for replies.
async fn requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    id: ConnectionId,
    shared: &Shared,
) -> Result<(), End> {
    let mut bytes = vec![0; PIECE];
    loop {
        let read = from.read(&mut bytes).await.map_err(|_| End::Closed)?;
        shared.until(|rules| !rules.holds(id)).await;
        if read == 0 {
            if shared.ask(|rules| rules.is_silent(id)) {
                return Err(End::Closed);
            }
            return to.shutdown().await.map_err(|_| End::Reset);
        }
        let passage = shared.ask(|rules| rules.request(id, read, Instant::now()));
        match passage {
            Passage::Pass => to.write_all(&bytes[..read]).await.map_err(|_| End::Reset)?,
            Passage::Delay(delay) => {
                delayed(delay, id, shared).await;
                to.write_all(&bytes[..read]).await.map_err(|_| End::Reset)?;
            }
            Passage::Swallow => {}
            Passage::Cut(allowed) => {
                let _ = to.write_all(&bytes[..allowed]).await;
                return Err(End::Reset);
            }
        }
    }
}

async fn replies(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    id: ConnectionId,
    shared: &Shared,
) -> Result<Infallible, End> {
    let mut bytes = vec![0; PIECE];
    let mut counter = ReplyCounter::default();
    let mut has_gap = false;
    let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    loop {
        let due = held.front().map(|(due, _)| *due);
        let read = tokio::select! {
            biased;
            () = come_due(due, id, shared), if due.is_some() => {
                if let Some((_, piece)) = held.pop_front() {
                    to.write_all(&piece).await.map_err(|_| End::Closed)?;
                }
                continue;
            }
            read = from.read(&mut bytes), if held.len() < HELD => read,
        };
        shared.until(|rules| !rules.holds(id)).await;
        let Ok(read @ 1..) = read else {
            if shared.ask(|rules| rules.is_silent(id)) {
                return pending().await;
            }
            for (due, piece) in held {
                come_due(Some(due), id, shared).await;
                to.write_all(&piece).await.map_err(|_| End::Closed)?;
            }
            return Err(if read.is_ok() {
                End::Closed
            } else {
                End::Reset
            });
        };
        let mut before = counter.clone();
        let complete = counter.count(&bytes[..read]);
        match shared.ask(|rules| rules.reply(id, read, Instant::now())) {
            Passage::Swallow => {
                has_gap = true;
                shared.replies_dropped(complete);
            }
            Passage::Cut(0) => {
                shared.replies_dropped(complete.max(1));
                return Err(End::Reset);
            }
            Passage::Cut(allowed) => {
                let passed = before.count(&bytes[..allowed]);
                shared.replies_dropped(complete - passed);
                held.push_back((Instant::now(), bytes[..allowed].to_vec()));
                for (_, piece) in held {
                    let _ = to.write_all(&piece).await;
                }
                return Err(End::Reset);
            }
            _ if has_gap => shared.replies_dropped(complete),
            Passage::Pass if held.is_empty() => {
                to.write_all(&bytes[..read])
                    .await
                    .map_err(|_| End::Closed)?;
            }
            passage => {
                let delay = match passage {
                    Passage::Delay(delay) => delay,
                    _ => Duration::ZERO,
                };
                // Never before one that was read earlier, also when the delay has shrunk.
                let earliest = held.back().map_or_else(Instant::now, |(due, _)| *due);
                let due = earliest.max(Instant::now() + delay);
                held.push_back((due, bytes[..read].to_vec()));
            }
        }
    }
}

/// Waits for the time of a piece that was held back; not at all once all is well again, and
/// longer while everything has to wait.
async fn come_due(due: Option<Instant>, id: ConnectionId, shared: &Shared) {
    let left = due.map_or(Duration::ZERO, |due| due - Instant::now());
    delayed(left, id, shared).await;
    shared.until(|rules| !rules.holds(id)).await;
}

/// How much is read at once, and so how much a connection holds each way.
const PIECE: usize = 16 * 1024;

/// How many pieces may be held back at once: 1 MiB.
const HELD: usize = 64;
