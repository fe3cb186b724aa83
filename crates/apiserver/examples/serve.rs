//! A server on loopback with everything in a temporary directory, and a kubeconfig for its administrator.
//!
//! `cargo run -p navarch-apiserver --example serve -- [PORT] [KUBECONFIG]`

use std::{error::Error, sync::Arc};

use navarch_apiserver::{Config, Identity, Pem, Server, ServiceAccountKeys, Tls, UserInfo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use store::Embedded;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(6443), |port| port.parse())?;
    let directory = tempfile::tempdir()?;
    let kubeconfig = arguments.next().unwrap_or_else(|| directory.path().join("kubeconfig").display().to_string());

    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names = vec!["localhost".into(), "127.0.0.1".into(), "kubernetes.default".into()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &ca)?;

    let token = uuid::Uuid::new_v4().to_string();
    let config = Config {
        tls: Some(Tls {
            identity: Identity { certificate: Pem::data(certificate.pem()), key: Pem::data(key.serialize_pem()) },
            client_ca: Some(Pem::data(ca.pem())),
        }),
        service_accounts: Some(ServiceAccountKeys {
            keys: vec![Pem::data(KeyPair::generate()?.serialize_pem())],
            issuers: vec!["https://kubernetes.default.svc.cluster.local".into()],
            audiences: Vec::new(),
        }),
        tokens: vec![(token.clone(), UserInfo::master("admin"))],
        advertise_address: Some("127.0.0.1".parse()?),
        advertise_port: port,
        ..Config::default()
    };
    let server = Server::new(config, Arc::new(Embedded::open(directory.path().join("db"), Default::default())?))?;
    server.bootstrap().await?;

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let authority = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca.pem());
    std::fs::write(
        &kubeconfig,
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\n\
             clusters: [{{name: x, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority-data: {authority}}}}}]\n\
             users: [{{name: x, user: {{token: '{token}'}}}}]\n\
             contexts: [{{name: x, context: {{cluster: x, user: x}}}}]\n"
        ),
    )?;
    println!("serving on {port}: export KUBECONFIG={kubeconfig}");
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    server.serve(listener, cancel).await?;
    Ok(())
}
