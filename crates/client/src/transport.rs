//! Two ways to the API, one [`Client`].

use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, Service};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig { path: String, source: kube::config::KubeconfigError },
    #[error("cannot make a client of the kubeconfig {path}")]
    Client { path: String, source: kube::Error },
}

/// A client that calls `service`: no socket, no TLS, the same pipeline behind it.
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
}

/// A client as the current context of a kubeconfig says.
pub async fn from_kubeconfig(path: &Path) -> Result<Client, Error> {
    let shown = path.display().to_string();
    let fail = |source| Error::Kubeconfig { path: shown.clone(), source };
    let file = Kubeconfig::read_from(path).map_err(fail)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(fail)?;
    Client::try_from(config).map_err(|source| Error::Client { path: shown, source })
}
