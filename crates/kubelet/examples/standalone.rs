//! A kubelet on its own, for trying it against any API server and any CRI runtime:
//!
//! ```sh
//! cargo run -p navarch-kubelet --example standalone -- KUBECONFIG RUNTIME_SOCKET DATA_DIR NODE_NAME [PORT]
//! ```

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use client::Informers;
use navarch_kubelet::{Config, Kubelet};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kubeconfig, socket, data_dir, name, rest @ ..] = arguments.as_slice() else {
        return Err("usage: standalone KUBECONFIG RUNTIME_SOCKET DATA_DIR NODE_NAME [PORT]".into());
    };
    let cancel = CancellationToken::new();
    let client = client::from_kubeconfig(Path::new(kubeconfig)).await?;
    let informers = Informers::new(client, cancel.clone());
    let port: Option<u16> = rest.first().map(|port| port.parse()).transpose()?;
    let config = Config {
        node_ips: vec!["127.0.0.1".parse()?],
        hostname: "localhost".to_owned(),
        runtime_socket: socket.into(),
        log_dir: Path::new(data_dir).join("logs"),
        static_pod_dir: Some(Path::new(data_dir).join("manifests")),
        listen: port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        cgroup_parent: std::env::var("CGROUP_PARENT").unwrap_or_else(|_| "/nvkubelet".to_owned()),
        cancel: cancel.clone(),
        ..Config::new(name, data_dir, informers)
    };
    let config = Config {
        tls: Some(watch::channel(Arc::new(certificate()?)).1),
        // Whoever reaches the loopback address of a trial may do anything.
        trusted_groups: vec!["system:unauthenticated".to_owned()],
        ..config
    };
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            cancel.cancel();
        }
    });
    let (ready, _) = watch::channel(false);
    Kubelet::run(config, ready).await?;
    Ok(())
}

fn certificate() -> Result<rustls::ServerConfig, Box<dyn std::error::Error>> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into())?)
}
