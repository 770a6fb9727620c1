//! TLS with rustls and ring, whatever provider the application has chosen for itself.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, sync::OnceCell};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{ConnectError, status::Trouble};

/// Whom to trust.
pub(super) struct Tls {
    /// Filled at once from a certificate of the caller's, and from the system's when first needed:
    /// reading those takes long.
    connector: OnceCell<TlsConnector>,
}

impl Tls {
    pub(super) fn new(ca_certificate: Option<&str>) -> Result<Self, ConnectError> {
        let connector =
            match ca_certificate {
                Some(pem) => OnceCell::new_with(Some(trusting(parse(pem)?).map_err(|_| {
                    ConnectError::setting("ca_certificate", "rustls cannot use it")
                })?)),
                None => OnceCell::new(),
            };
        Ok(Self { connector })
    }

    /// Whether a certificate could be for this host.
    pub(super) fn check(host: &str) -> Result<(), ConnectError> {
        ServerName::try_from(host)
            .map(drop)
            .map_err(|_| ConnectError::url("a host is no name that a certificate could have"))
    }

    pub(super) async fn handshake(
        &self,
        host: &str,
        socket: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Trouble> {
        let server = ServerName::try_from(host.to_owned()).map_err(|_| Trouble::Tls)?;
        self.connector
            .get_or_try_init(trusting_the_system)
            .await?
            .connect(server, socket)
            .await
            .map_err(|_| Trouble::Tls)
    }
}

fn parse(pem: &str) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        certificate
            .ok()
            .and_then(|certificate| roots.add(certificate).ok())
            .ok_or_else(|| ConnectError::setting("ca_certificate", "holds a broken certificate"))?;
    }
    if roots.is_empty() {
        return Err(ConnectError::setting(
            "ca_certificate",
            "holds no certificate in PEM",
        ));
    }
    Ok(roots)
}

async fn trusting_the_system() -> Result<TlsConnector, Trouble> {
    // One broken file among the system's certificates is not a reason to trust none of them.
    let found = tokio::task::spawn_blocking(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    match found.await {
        Ok(roots) if !roots.is_empty() => trusting(roots).map_err(|_| Trouble::Tls),
        _ => Err(Trouble::Tls),
    }
}

/// Names its provider: asking rustls for the process's own panics where there are two.
fn trusting(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused_when_it_is_given() {
        for pem in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ] {
            assert!(Tls::new(Some(pem)).is_err(), "{pem}");
        }
    }
}
