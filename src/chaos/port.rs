//! A TCP port of the loopback address that stays ours while nobody listens on it.
//!
//! Three ways for a restart on the same port to go wrong are closed here: another test draws the
//! port while the server is down, an outgoing connection is given it as its source, or a client
//! that reconnects in a loop is given it as its *own* source and connects to itself.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
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
    addr: SocketAddrV4,
    _held: Option<TcpSocket>,
}

impl Port {
    /// Takes a free port outside the range from which the kernel numbers outgoing connections.
    pub(super) fn draw() -> io::Result<Self> {
        Self::draw_on(Ipv4Addr::LOCALHOST)
    }

    /// The same on another loopback address.
    pub(super) fn draw_on(ip: Ipv4Addr) -> io::Result<Self> {
        let pool = pool(&ephemeral_ports());
        for _ in 0..TRIES {
            let Some(&number) = pool.choose(&mut rand::rng()) else {
                break;
            };
            let addr = SocketAddrV4::new(ip, number);
            let socket = TcpSocket::new_v4()?;
            if socket.bind(addr.into()).is_ok() {
                socket.set_reuseaddr(true)?;
                return Ok(Self::holding(addr, socket));
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no free port was found",
        ))
    }

    /// Takes this port, unless somebody listens on it.
    pub(super) fn claim(number: u16) -> io::Result<Self> {
        let addr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, number);
        Ok(Self::holding(addr, bind(addr)?))
    }

    pub(super) const fn number(&self) -> u16 {
        self.addr.port()
    }

    pub(super) const fn ip(&self) -> Ipv4Addr {
        *self.addr.ip()
    }

    pub(super) const fn addr(&self) -> SocketAddr {
        SocketAddr::V4(self.addr)
    }

    /// Listens on the port. Dropping the listener makes it refuse again, and it stays ours.
    ///
    /// Must be called inside a tokio runtime.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        bind(self.addr)?.listen(BACKLOG)
    }

    fn holding(addr: SocketAddrV4, socket: TcpSocket) -> Self {
        // Elsewhere the bound socket would keep out the server itself.
        Self {
            addr,
            _held: cfg!(target_os = "linux").then_some(socket),
        }
    }
}

const TRIES: usize = 1_000;
const BACKLOG: u32 = 1_024;

fn bind(addr: SocketAddrV4) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr.into())?;
    Ok(socket)
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
