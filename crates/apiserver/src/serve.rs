//! Connections: TLS with client certificates, HTTP/1.1 and HTTP/2 by ALPN, upgrades, and an orderly end.
//!
//! Certificates are read again when their files change; connections that are open keep what they began with.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    authn::{Peer, certificate},
    body::{self, Body},
    config::{Pem, Tls},
    pipeline,
    server::{Error, Server},
};

/// A client that has not finished its TLS handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that has not sent a request's head by then is dropped.
const HEADER_READ: Duration = Duration::from_secs(30);
/// How long open requests may take to end when the server stops.
const DRAIN: Duration = Duration::from_secs(10);
/// How often certificate files are looked at.
const RELOAD: Duration = Duration::from_secs(30);
/// Streams of one HTTP/2 connection: informers of a whole control plane share one.
const HTTP2_STREAMS: u32 = 1000;

impl Server {
    /// Serves connections until `cancel`, then lets open requests end.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener, cancel: CancellationToken) -> Result<(), Error> {
        let acceptor = match &self.config().tls {
            Some(tls) => Some(Reloading::new(tls.clone())?),
            None => None,
        };
        let graceful = GracefulShutdown::new();
        let mut reload = tokio::time::interval(RELOAD);
        loop {
            let (stream, address) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                _ = reload.tick() => {
                    if let Some(acceptor) = &acceptor {
                        acceptor.check();
                    }
                    continue;
                }
                () = cancel.cancelled() => break,
            };
            // Small answers must not wait for more of them.
            let _ = stream.set_nodelay(true);
            let server = self.clone();
            let watcher = graceful.watcher();
            let tls = acceptor.as_ref().map(Reloading::acceptor);
            tokio::spawn(async move {
                if let Err(error) = connection(server, stream, address, tls, watcher).await {
                    tracing::debug!(%address, %error, "connection ended");
                }
            });
        }
        self.draining().cancel();
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::info!("some requests did not end in time and were cut off");
        }
        Ok(())
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    server: Arc<Server>,
    stream: tokio::net::TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), BoxError> {
    let Some(tls) = tls else {
        let peer = Peer { address: Some(address), ..Peer::default() };
        return http(server, stream, peer, watcher).await;
    };
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake took too long"))??;
    let der = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = Peer {
        certificate: der.map(|der| der.as_ref().into()),
        address: Some(address),
        user: der.and_then(|der| certificate::user(der)).map(Arc::new),
    };
    http(server, stream, peer, watcher).await
}

async fn http<S>(
    server: Arc<Server>,
    stream: S,
    peer: Peer,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = Arc::new(peer);
    let service = service_fn(move |request: Request<Incoming>| answer(server.clone(), peer.clone(), request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    watcher.watch(connection).await
}

fn answer(
    server: Arc<Server>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, std::convert::Infallible>> + Send {
    async move { Ok(pipeline::from_network(server, &peer, request.map(body::wrap)).await) }
}

/// TLS material that is read again when it changes.
struct Reloading {
    tls: Tls,
    current: arc_swap::ArcSwap<(Vec<Vec<u8>>, Arc<ServerConfig>)>,
}

impl Reloading {
    fn new(tls: Tls) -> Result<Self, Error> {
        let material = load(&tls)?;
        let config = server_config(&tls, &material)?;
        Ok(Self { tls, current: arc_swap::ArcSwap::from_pointee((material, config)) })
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load().1.clone())
    }

    /// Takes changed files up; what cannot be used is reported and the old material kept.
    fn check(&self) {
        let renewed = load(&self.tls).and_then(|material| {
            if material == self.current.load().0 {
                return Ok(None);
            }
            server_config(&self.tls, &material).map(|config| Some((material, config)))
        });
        match renewed {
            Ok(None) => {}
            Ok(Some(renewed)) => {
                tracing::info!("serving with the renewed certificate");
                self.current.store(Arc::new(renewed));
            }
            Err(error) => tracing::error!(%error, "cannot use the changed TLS files, keeping the old certificate"),
        }
    }
}

/// Certificate, key and client CA, in this order.
fn load(tls: &Tls) -> Result<Vec<Vec<u8>>, Error> {
    let read = |what: &'static str, pem: &Pem| pem.load().map_err(|source| Error::Read { what, source });
    let mut material =
        vec![read("serving certificate", &tls.identity.certificate)?, read("serving key", &tls.identity.key)?];
    if let Some(ca) = &tls.client_ca {
        material.push(read("client CA", ca)?);
    }
    Ok(material)
}

fn server_config(tls: &Tls, material: &[Vec<u8>]) -> Result<Arc<ServerConfig>, Error> {
    let fail = |what: &'static str, why: String| Error::Material { what, why };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = identity(&material[0], &material[1])?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| fail("TLS configuration", error.to_string()))?;
    let builder = match (&tls.client_ca, material.get(2)) {
        (Some(_), Some(ca)) => {
            let roots = Arc::new(roots(ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| fail("client CA", error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| fail("serving certificate", error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A certificate chain and key out of PEM.
pub(crate) fn identity(
    certificate: &[u8],
    key: &[u8],
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let fail = |what: &'static str, why: String| Error::Material { what, why };
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fail("certificate", error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| fail("private key", error.to_string()))?;
    Ok((chain, key))
}

/// A set of CA certificates out of PEM.
pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore, Error> {
    let fail = |why: String| Error::Material { what: "CA certificate", why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| fail(error.to_string()))?;
        roots.add(certificate).map_err(|error| fail(error.to_string()))?;
    }
    Ok(roots)
}
