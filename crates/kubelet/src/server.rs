//! The node's HTTPS server: logs, exec, attach, port-forward, statistics, metrics.
//!
//! Callers are the API server, on behalf of users, and whoever scrapes metrics. Each request is authenticated and
//! authorized by [`access`] before a handler sees it.

mod access;
mod logs;
mod metrics;
mod stats;
mod upgrade;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1 as core;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::ServiceExt;
use tracing::debug;

use crate::pod::PodExt;
use crate::pods::Pods;
use crate::shared::Shared;
use access::{Access, Call, Peer};

/// What handlers use.
#[derive(Clone)]
pub(crate) struct Context {
    shared: Arc<Shared>,
    pods: Pods,
    access: Arc<Access>,
}

/// A bound server that does not answer yet.
pub(crate) struct Listening {
    pub(crate) port: u16,
    listener: TcpListener,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    router: Router,
}

/// Binds the server; `None` when the configuration has no address or no certificate for it.
pub(crate) async fn start(shared: &Arc<Shared>, pods: &Pods) -> Result<Option<Listening>, crate::Error> {
    let (Some(address), Some(tls)) = (shared.config.listen, shared.config.tls.clone()) else { return Ok(None) };
    let listen = |source| crate::Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let port = listener.local_addr().map_err(listen)?.port();
    let access = Arc::new(Access::new(shared.client.clone(), shared.config.clone()));
    let context = Context { shared: shared.clone(), pods: pods.clone(), access };
    Ok(Some(Listening { port, listener, tls, router: router(context) }))
}

fn router(context: Context) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/healthz/{check}", get(async || "ok"))
        .route("/pods", get(pods))
        .route("/runningpods/", get(pods))
        .route("/configz", get(configz))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container))
        .route("/exec/{namespace}/{pod}/{container}", any(upgrade::exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(upgrade::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(upgrade::attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(upgrade::attach))
        .route("/portForward/{namespace}/{pod}", any(upgrade::port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(upgrade::port_forward))
        .route("/run/{namespace}/{pod}/{container}", any(upgrade::run))
        .route("/run/{namespace}/{pod}/{uid}/{container}", any(upgrade::run))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics", get(metrics::own))
        .route("/metrics/resource", get(metrics::resource))
        .route("/metrics/cadvisor", get(metrics::cadvisor))
        .route("/logs/", get(logs::node))
        .route("/logs/{*path}", get(logs::node))
        .layer(middleware::from_fn_with_state(context.clone(), authorize))
        .with_state(context)
}

async fn authorize(State(context): State<Context>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let call = Call::of(&request);
    match context.access.check(&peer, &call).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

impl Listening {
    /// Answers until dropped.
    pub(crate) async fn serve(self) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: whoever holds them must have a moment to give some back.
                    debug!(%error, "failed to accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let acceptor = tokio_rustls::TlsAcceptor::from(self.tls.borrow().clone());
            let router = self.router.clone();
            tokio::spawn(async move {
                if let Err(error) = connection(stream, acceptor, router).await {
                    debug!(error = error.as_ref(), "a connection ended badly");
                }
            });
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: tokio_rustls::TlsAcceptor,
    router: Router,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = certificate.map(|certificate| Peer::from_certificate(certificate)).unwrap_or_default();
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await
}

/// An answer that is only a message.
fn say(code: StatusCode, message: impl Into<String>) -> Response {
    let mut message = message.into();
    message.push('\n');
    (code, message).into_response()
}

/// Every pod with the status that its worker sees, as a PodList.
async fn pods(State(context): State<Context>) -> Response {
    let items: Vec<core::Pod> = context
        .pods
        .all()
        .into_iter()
        .map(|seen| {
            let mut pod = seen.pod.as_ref().clone();
            pod.status = seen.status.or(pod.status);
            pod
        })
        .collect();
    axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})).into_response()
}

/// The configuration under the names of upstream's KubeletConfiguration.
async fn configz(State(context): State<Context>) -> Response {
    let config = &context.shared.config;
    let dns: Vec<String> = config.cluster_dns.iter().map(ToString::to_string).collect();
    let eviction = &config.eviction;
    let body = json!({"kubeletconfig": {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "clusterDNS": dns,
        "clusterDomain": config.cluster_domain,
        "maxPods": config.max_pods,
        "cgroupRoot": config.cgroup_parent,
        "staticPodPath": config.static_pod_dir,
        "containerLogMaxSize": config.logs.max_bytes.to_string(),
        "containerLogMaxFiles": config.logs.max_files,
        "imageGCHighThresholdPercent": config.images.gc_high_percent,
        "imageGCLowThresholdPercent": config.images.gc_low_percent,
        "nodeStatusUpdateFrequency": "10s",
        "nodeStatusReportFrequency": "5m0s",
        "nodeLeaseDurationSeconds": 40,
        "serializeImagePulls": config.images.parallel_pulls <= 1,
        "maxParallelImagePulls": config.images.parallel_pulls,
        "evictionHard": {
            "memory.available": eviction.memory_available_bytes.to_string(),
            "nodefs.available": format!("{}%", eviction.nodefs_available_percent),
            "nodefs.inodesFree": format!("{}%", eviction.nodefs_inodes_free_percent),
            "imagefs.available": format!("{}%", eviction.imagefs_available_percent),
            "pid.available": format!("{}%", eviction.pid_available_percent),
        },
    }});
    axum::Json(body).into_response()
}

impl Context {
    /// The newest run of a container that the runtime has, or the answer that says why there is none.
    async fn instance(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Result<crate::cri::v1::ContainerStatus, Response> {
        let pod = self.pods.find(namespace, name, uid);
        let pod = pod.ok_or_else(|| {
            say(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found in namespace \"{namespace}\""))
        })?;
        let mut runs = self.runs(pod.pod.uid(), container).await?;
        let none = || say(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"));
        if runs.is_empty() { Err(none()) } else { Ok(runs.swap_remove(0)) }
    }

    /// Every run of a container, newest first.
    async fn runs(&self, uid: &str, container: &str) -> Result<Vec<crate::cri::v1::ContainerStatus>, Response> {
        let labels = std::collections::HashMap::from([
            (crate::labels::POD_UID.to_owned(), uid.to_owned()),
            (crate::labels::CONTAINER_NAME.to_owned(), container.to_owned()),
        ]);
        let broken = |error: crate::cri::Error| say(StatusCode::INTERNAL_SERVER_ERROR, crate::chain(&error));
        let mut statuses = Vec::new();
        for found in self.shared.runtime.containers(labels).await.map_err(broken)? {
            statuses.push(self.shared.runtime.container_status(&found.id).await.map_err(broken)?);
        }
        statuses
            .sort_by_key(|status| std::cmp::Reverse(status.metadata.as_ref().map_or(0, |metadata| metadata.attempt)));
        Ok(statuses)
    }
}
