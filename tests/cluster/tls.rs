//! A cluster over TLS.

use std::process::Command;

use seawall::{
    chaos::RedisServer,
    connect::{ConnectOptions, Connection, Trouble},
};

use crate::support::{PLENTY, call, cmd, send};

/// Each node's certificate is checked, by the name or address that the map has for it.
#[tokio::test]
async fn tls_trusts_the_given_authority_on_each_node_and_no_other() {
    let certificates = tempfile::tempdir().unwrap();
    let make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca \
            -keyout ca.key -out ca.crt && \
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout r.key -out r.csr && \
        printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > r.ext && \
        openssl x509 -req -in r.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile r.ext -out r.crt";
    let mut openssl = Command::new("sh");
    openssl.args(["-c", make]).current_dir(&certificates);
    assert!(openssl.output().unwrap().status.success());
    let path = |name: &str| {
        certificates
            .path()
            .join(name)
            .to_string_lossy()
            .into_owned()
    };

    // Held by a server that is down, which keeps others off it.
    let mut held = RedisServer::start().await.unwrap();
    held.kill().await.unwrap();
    let tls_port = held.port();
    let node = RedisServer::builder()
        .arg("cluster-enabled", "yes")
        .arg("cluster-announce-hostname", "localhost")
        .arg("cluster-preferred-endpoint-type", "hostname")
        // So that the map has the ports that speak TLS, for those who do.
        .arg("tls-cluster", "yes")
        .arg("tls-port", tls_port.to_string())
        .arg("tls-cert-file", path("r.crt"))
        .arg("tls-key-file", path("r.key"))
        .arg("tls-ca-cert-file", path("ca.crt"))
        .arg("tls-auth-clients", "no")
        .start()
        .await
        .unwrap();
    let give = cmd("CLUSTER ADDSLOTSRANGE 0 16383");
    node.command::<()>(&give).await.unwrap();

    let url = format!("rediss+cluster://localhost:{tls_port}");
    let options = || ConnectOptions::from_url(&url).unwrap();
    let authority = std::fs::read_to_string(path("ca.crt")).unwrap();
    let connection = Connection::open(options().with_ca_certificate(authority)).unwrap();
    connection.wait_ready(PLENTY).await.unwrap();
    while send(&connection, call("SET k 1")).await.is_err() {
        // A node serves its slots a moment after it has been given them.
        tokio::task::yield_now().await;
    }
    let name: String = connection
        .exclusive_for("k")
        .await
        .unwrap()
        .call(&call("CLIENT GETNAME"))
        .await
        .unwrap()
        .decode()
        .unwrap();
    assert_eq!(name, "seawall");

    let stranger = Connection::open(options()).unwrap();
    let mut status = stranger.status();
    let refused = status.wait_for(|status| status.trouble == Some(Trouble::Tls));
    drop(
        tokio::time::timeout(PLENTY, refused)
            .await
            .unwrap()
            .unwrap(),
    );
}
