//! A TCP port of the loopback address that stays ours while nobody listens on it.
//!
//! Three ways for a restart on the same port to go wrong are closed here: another test draws the
//! port while the server is down, an outgoing connection is given it as its source, or a client
//! that reconnects in a loop is given it as its *own* source and connects to itself.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
};

use rand::seq::IndexedRandom;
use tokio::net::{TcpListener, TcpSocket};

/// A port held by a socket that is bound and does not listen.
///
/// Connecting to it is refused. On Linux a socket with `SO_REUSEADDR` may still bind it and
/// listen, which is what `redis-server` and [`listen`](Self::listen) do, while a draw by anybody
/// else, made without that option, fails.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _held: Option<TcpSocket>,
}

impl Port {
    /// Takes a free port outside the range from which the kernel numbers outgoing connections.
    pub(super) fn draw() -> io::Result<Self> {
        let pool = pool(&ephemeral_ports());
        for _ in 0..TRIES {
            let Some(&number) = pool.choose(&mut rand::rng()) else {
                break;
            };
            let socket = TcpSocket::new_v4()?;
            if socket.bind(loopback(number)).is_ok() {
                socket.set_reuseaddr(true)?;
                return Ok(Self::holding(number, socket));
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no free port was found",
        ))
    }

    /// Takes this port, unless somebody listens on it.
    pub(super) fn claim(number: u16) -> io::Result<Self> {
        Ok(Self::holding(number, bind(number)?))
    }

    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn addr(&self) -> SocketAddr {
        loopback(self.number)
    }

    /// Listens on the port. Dropping the listener makes it refuse again, and it stays ours.
    ///
    /// Must be called inside a tokio runtime.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        bind(self.number)?.listen(BACKLOG)
    }

    fn holding(number: u16, socket: TcpSocket) -> Self {
        // Elsewhere the bound socket would keep out the server itself.
        Self {
            number,
            _held: cfg!(target_os = "linux").then_some(socket),
        }
    }
}

const TRIES: usize = 1_000;
const BACKLOG: u32 = 1_024;

fn bind(number: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(loopback(number))?;
    Ok(socket)
}

fn loopback(number: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, number).into()
}

/// The ports to draw from: of the usual ones, or else of all, those that are not ephemeral.
fn pool(ephemeral: &RangeInclusive<u16>) -> Vec<u16> {
    let usual: Vec<u16> = (10_000..30_000)
        .filter(|port| !ephemeral.contains(port))
        .collect();
    if usual.is_empty() {
        return (1_024..=u16::MAX)
            .filter(|port| !ephemeral.contains(port))
            .collect();
    }
    usual
}

fn ephemeral_ports() -> RangeInclusive<u16> {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| parse_range(&text))
        .unwrap_or(32_768..=60_999)
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(str::parse);
    Some(ends.next()?.ok()?..=ends.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_drawn_port_is_never_one_the_kernel_gives_to_outgoing_connections() {
        assert!(pool(&(20_000..=60_999)).iter().all(|port| *port < 20_000));
        assert!(
            pool(&(9_000..=65_000))
                .iter()
                .all(|port| !(9_000..=65_000).contains(port))
        );
        assert!(!pool(&(9_000..=65_000)).is_empty());
        assert_eq!(parse_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse_range("none"), None);
    }

    #[tokio::test]
    async fn a_port_that_refuses_stays_reserved() {
        let port = Port::draw().unwrap();
        let listener = port.listen().unwrap();
        let open = TcpStream::connect(port.addr()).unwrap();
        drop(listener);

        let refused = TcpStream::connect(port.addr()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let stranger = TcpSocket::new_v4().unwrap();
        assert!(
            stranger.bind(port.addr()).is_err(),
            "another draw took a port that is held"
        );

        let _listener = port.listen().unwrap();
        TcpStream::connect(port.addr()).unwrap();
        drop(open);
    }
}
