//! The kubelet: makes the pods that are bound to one node real, and tells the API how they fare.
//!
//! ```text
//! API (pods of this node) ─┐                        ┌─ CRI runtime (sandboxes, containers, images)
//! static manifests ────────┴─> pods ─> pod::worker ─┤
//! runtime events, probes ──────────────^            └─ volumes, cgroups, hosts file on this machine
//! ```
//!
//! One worker per pod decides from levels, never from what an event said. The runtime is spoken to over CRI and
//! nothing else; whatever runs at start is adopted, whatever should not run is removed, and a kubelet that ends leaves
//! every container as it is.

mod cgroups;
mod config;
mod cri;
mod events;
mod eviction;
mod hooks;
mod images;
mod labels;
mod logs;
mod metrics;
mod node;
mod objects;
mod pod;
mod pods;
mod probes;
mod refer;
mod server;
mod shared;
mod static_pods;
mod termination;
#[cfg(test)]
mod testing;
mod volumes;

use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1 as core;
use tokio::sync::{Notify, oneshot, watch};
use tracing::info;

pub use config::{Config, Eviction, Images, Logs};

/// The kubelet cannot go on, or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to prepare the directory {path}")]
    Directory { path: std::path::PathBuf, source: std::io::Error },
    #[error("failed to prepare the cgroups of pods")]
    Cgroups(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to listen on {address}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
}

/// One node's kubelet.
pub struct Kubelet;

impl Kubelet {
    /// Runs until the configuration's token is cancelled. Containers stay.
    ///
    /// `ready` turns true when the node is Ready in the API, and false when it is not any more.
    pub async fn run(config: Config, ready: watch::Sender<bool>) -> Result<(), Error> {
        for path in [config.data_dir.join("pods"), config.log_dir.clone()] {
            std::fs::create_dir_all(&path).map_err(|source| Error::Directory { path, source })?;
        }
        let cancel = config.cancel.clone();
        let shared = shared(config);
        shared.cgroups.prepare().map_err(|error| Error::Cgroups(Box::new(error)))?;
        // The name is the scheme of container ids: statuses should have it from the first.
        if let Ok(version) = shared.runtime.version().await {
            let _ = shared.runtime_name.set(version.runtime_name);
        }
        let about = refer::node(&shared.config.node_name);
        shared.recorder.normal(&about, "Starting", "Starting kubelet.");

        let name = shared.config.node_name.clone();
        let registered = node::register::register(&shared);
        let Some(registered) = cancel.run_until_cancelled(registered).await else { return Ok(()) };
        let uid = registered.metadata.uid.unwrap_or_default();
        let _ = shared.node_uid.set(uid.clone());
        let node = shared.informers.select::<core::Node>(&format!("metadata.name={name}"), "");
        let pods = pods::Pods::new(shared.clone(), node.clone());
        let (pressure, under) = watch::channel(eviction::Pressure::default());
        let look = Arc::new(Notify::new());
        let seen = look.clone();
        node.on_change(move |_| seen.notify_one());

        let listening = server::start(&shared, &pods).await?;
        let port = listening.as_ref().map_or(10250, |listening| listening.port);
        let reporter = node::register::Reporter {
            shared: shared.clone(),
            node: node.clone(),
            pressure: under,
            port: i32::from(port),
            ready,
            look,
        };
        let server = async {
            match listening {
                Some(listening) => listening.serve().await,
                None => std::future::pending().await,
            }
        };
        let all = async {
            tokio::join!(
                reporter.run(),
                node::lease::renew(&shared, &uid),
                events::follow(&shared, &pods),
                eviction::keep(&shared, &pods, &pressure),
                sources(&shared, &pods),
                server,
            )
        };
        cancel.run_until_cancelled(all).await;
        info!("the kubelet ends; containers stay");
        Ok(())
    }
}

/// Follows API and manifests; once both have been read whole, removes what is in neither.
async fn sources(shared: &Arc<shared::Shared>, pods: &pods::Pods) {
    let (loaded, read) = oneshot::channel();
    let manifests = async {
        match shared.config.static_pod_dir.clone() {
            Some(directory) => static_pods::follow(shared, pods, &directory, loaded).await,
            None => {
                let _ = loaded.send(());
                std::future::pending().await
            }
        }
    };
    let api = async {
        // Environment variables of a container cannot be changed later: Services must be known first.
        shared.services.synced().await;
        let selector = format!("spec.nodeName={}", shared.config.node_name);
        let informer = shared.informers.select::<core::Pod>(&selector, "");
        // A restart of the machine leaves no pod behind that ran, but the API's must not be taken for strangers.
        let own = pods.clone();
        informer.on_change(move |change| own.api_changed(change));
        informer.synced().await;
        let _ = read.await;
        pods.remove_strangers().await;
        std::future::pending::<()>().await;
    };
    tokio::join!(manifests, api);
}

fn shared(config: Config) -> Arc<shared::Shared> {
    let client = config.informers.client().clone();
    let runtime = cri::Runtime::connect(&config.runtime_socket);
    let machine = node::machine::Machine::read();
    let disk = node::machine::space(&config.data_dir).unwrap_or_default().capacity;
    let fields = pod::fields::Node {
        name: config.node_name.clone(),
        addresses: config.addresses(),
        allocatable: node::status::allocatable(&config, &machine, disk),
    };
    Arc::new(shared::Shared {
        recorder: client::Recorder::new(client.clone(), "kubelet", &config.node_name),
        objects: objects::Objects::new(client.clone()),
        services: config.informers.of(),
        images: images::Images::new(runtime.clone(), config.images.parallel_pulls),
        cgroups: cgroups::Cgroups::new(&config.cgroup_mount, &config.cgroup_parent),
        metrics: Arc::new(metrics::Metrics::new()),
        informers: config.informers.clone(),
        runtime_name: OnceLock::new(),
        node_uid: OnceLock::new(),
        client,
        runtime,
        machine,
        fields,
        config,
    })
}

/// An error with its causes, on one line: what events show.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}
