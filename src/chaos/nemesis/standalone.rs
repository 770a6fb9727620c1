//! A single server behind a proxy, as a target.

use url::Url;

use super::{Attack, AttackError, Strike, Target};
use crate::chaos::{Fault, FaultProxy, RedisServer, RedisServerBuilder, StartError};

/// A [`RedisServer`] with a [`FaultProxy`] in front of it, for a [`Nemesis`](super::Nemesis).
///
/// What is killed comes back with what its persistence wrote: make it
/// [`durable`](RedisServerBuilder::durable) unless that is to be lost.
#[derive(Debug)]
pub struct ProxiedServer {
    server: RedisServer,
    proxy: FaultProxy,
}

impl ProxiedServer {
    /// Starts both.
    ///
    /// # Errors
    ///
    /// As [`RedisServerBuilder::start`].
    ///
    /// # Cancel safety
    ///
    /// When it is dropped, so is what was started.
    pub async fn start(server: RedisServerBuilder) -> Result<Self, StartError> {
        let server = server.start().await?;
        let proxy = FaultProxy::start(server.addr()).await?;
        Ok(Self { server, proxy })
    }

    /// The URL of the proxy, with the server's password if it has one.
    #[must_use]
    pub fn url(&self) -> String {
        let server = self.server.url();
        let through = Url::parse(&server).map(|mut url| {
            let _ = url.set_port(Some(self.proxy.addr().port()));
            url.into()
        });
        through.unwrap_or(server)
    }

    /// The server itself: what is asked there passes the proxy by.
    #[must_use]
    pub const fn server(&self) -> &RedisServer {
        &self.server
    }

    /// The server, to kill it or to start it again.
    #[must_use]
    pub const fn server_mut(&mut self) -> &mut RedisServer {
        &mut self.server
    }

    /// The proxy, to set other faults.
    #[must_use]
    pub const fn proxy(&self) -> &FaultProxy {
        &self.proxy
    }
}

impl Target for ProxiedServer {
    fn attacks(&self) -> Vec<Attack> {
        let of_the_process = [Attack::Kill, Attack::Freeze];
        let attacks = of_the_process.into_iter().chain(Attack::on_the_network());
        attacks.collect()
    }

    async fn strike(&mut self, strike: &Strike) -> Result<String, AttackError> {
        if let Some(fault) = strike.attack.fault(strike.draw) {
            self.proxy.set(fault);
            return Ok(format!("the proxy has {fault:?}"));
        }
        match strike.attack {
            Attack::Kill => self.server.kill().await?,
            Attack::Freeze => self.server.freeze().await?,
            other => return Err(AttackError::Unknown(other)),
        }
        Ok("the server was hit".to_owned())
    }

    async fn recover(&mut self) -> Result<(), AttackError> {
        self.proxy.set(Fault::None);
        if self.server.is_running() {
            self.server.thaw()?;
        } else {
            self.server.restart().await?;
        }
        Ok(())
    }
}
