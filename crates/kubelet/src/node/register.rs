//! Brings the node into the API and keeps its status true.
//!
//! A status is written at once when something in it changed, and every five minutes otherwise; that the node lives is
//! the lease's to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{ErrorExt, Informer, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{machine, status};
use crate::eviction::Pressure;
use crate::refer;
use crate::shared::Shared;

/// Between looks at what has no events: the runtime's own state and the images.
const PERIOD: Duration = Duration::from_secs(10);
/// The same while the node is not ready yet.
const EAGER: Duration = Duration::from_millis(100);
/// Between writes of a status that does not change.
const REPORT: Duration = Duration::from_secs(300);

/// Creates the Node, or brings its labels up to date. Tries until the API takes it.
pub(crate) async fn register(shared: &Shared) -> core::Node {
    let mut delay = Duration::from_millis(50);
    loop {
        match try_register(shared).await {
            Ok(node) => return node,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "failed to register the node; will try again");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(Duration::from_secs(7));
            }
        }
    }
}

async fn try_register(shared: &Shared) -> Result<core::Node, kube::Error> {
    let config = &shared.config;
    let api: Api<core::Node> = Api::all(shared.client.clone());
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.hostname.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), shared.machine.architecture.to_owned()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), shared.machine.architecture.to_owned()),
    ]);
    labels.extend(config.labels.clone());
    let mut node = core::Node::default();
    node.metadata.name = Some(config.node_name.clone());
    node.metadata.labels = Some(labels.clone());
    node.spec = (!config.taints.is_empty())
        .then(|| core::NodeSpec { taints: Some(config.taints.clone()), ..Default::default() });
    match api.create(&PostParams::default(), &node).await {
        Err(error) if error.is_already_exists() => {
            let patch = json!({"metadata": {"labels": labels}});
            api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await
        }
        other => other.inspect(|_| info!(node = config.node_name, "registered the node")),
    }
}

/// What a status report is made of, beside what the machine says.
pub(crate) struct Reporter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) node: Informer<core::Node>,
    pub(crate) pressure: watch::Receiver<Pressure>,
    /// Port of the node's server.
    pub(crate) port: i32,
    /// Becomes true once the node was ready, for health checks.
    pub(crate) ready: watch::Sender<bool>,
    /// Fires when the node or its images may have changed.
    pub(crate) look: Arc<Notify>,
}

impl Reporter {
    /// Reports until dropped.
    pub(crate) async fn run(mut self) {
        let mut sent: Option<(Value, Instant)> = None;
        let mut known_cidr = String::new();
        loop {
            self.tell_cidr(&mut known_cidr).await;
            let (status, unready) = self.status().await;
            let stable = without_times(&status);
            let stale = sent.as_ref().is_none_or(|(last, at)| *last != stable || at.elapsed() >= REPORT);
            if stale {
                match self.send(&status).await {
                    Ok(()) => {
                        sent = Some((stable, Instant::now()));
                        self.tell_ready(unready.as_deref());
                    }
                    Err(error) if error.is_not_found() => {
                        // Somebody deleted the Node while it runs: it comes back.
                        register(&self.shared).await;
                        continue;
                    }
                    Err(error) => warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to write the node's status; will try again"
                    ),
                }
            }
            let ready = unready.is_none() && sent.is_some();
            let pause = if ready { PERIOD } else { EAGER };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.look.notified() => {}
                changed = self.pressure.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Hands the node's pod range to the runtime, once it has one.
    async fn tell_cidr(&self, known: &mut String) {
        let node = self.node.get(&Key::new("", &self.shared.config.node_name));
        let spec = node.as_ref().and_then(|node| node.spec.as_ref());
        let all = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        let one = spec.and_then(|spec| spec.pod_cidr.clone());
        let cidr = if all.is_empty() { one.unwrap_or_default() } else { all.join(",") };
        if cidr.is_empty() || cidr == *known {
            return;
        }
        match self.shared.runtime.set_pod_cidr(&cidr).await {
            Ok(()) => *known = cidr,
            Err(error) => debug!(%error, cidr, "the runtime did not take the node's pod range"),
        }
    }

    /// The status now, and why the node is not ready.
    async fn status(&self) -> (core::NodeStatus, Option<String>) {
        let shared = &self.shared;
        let config = &shared.config;
        let answer = shared.runtime.status().await;
        let (conditions, down) = match &answer {
            Ok(answer) => (answer.status.clone().unwrap_or_default().conditions, None),
            Err(error) => (Vec::new(), Some(error.message())),
        };
        let version = match shared.runtime.version().await {
            Ok(version) => {
                let _ = shared.runtime_name.set(version.runtime_name.clone());
                format!("{}://{}", version.runtime_name, version.runtime_version)
            }
            Err(_) => String::new(),
        };
        let unready = status::unready(down.as_deref().map_or(Ok(conditions.as_slice()), Err));
        let disk = machine::space(&config.data_dir).unwrap_or_default().capacity;
        let (capacity, allocatable) = status::resources(config, &shared.machine, disk);
        let node = self.node.get(&Key::new("", &config.node_name));
        let old = node.as_ref().and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.clone());
        let images = shared.runtime.images().await.unwrap_or_default();
        let handlers = answer.as_ref().map(|answer| status::handlers(&answer.runtime_handlers)).unwrap_or_default();
        let features = answer.as_ref().ok().and_then(|answer| answer.features);
        let pressure = *self.pressure.borrow();
        let status = core::NodeStatus {
            addresses: Some(status::addresses(&config.node_ips, &config.hostname)),
            capacity: Some(capacity),
            allocatable: Some(allocatable),
            conditions: Some(status::conditions(
                &old.unwrap_or_default(),
                unready.as_deref(),
                pressure,
                Timestamp::now(),
            )),
            daemon_endpoints: Some(core::NodeDaemonEndpoints {
                kubelet_endpoint: Some(core::DaemonEndpoint { port: self.port }),
            }),
            images: Some(status::images(images)),
            node_info: Some(status::info(config, &shared.machine, &version)),
            runtime_handlers: (!handlers.is_empty()).then_some(handlers),
            features: features.map(|features| core::NodeFeatures {
                supplemental_groups_policy: Some(features.supplemental_groups_policy),
            }),
            ..Default::default()
        };
        (status, unready)
    }

    async fn send(&self, status: &core::NodeStatus) -> Result<(), kube::Error> {
        let api: Api<core::Node> = Api::all(self.shared.client.clone());
        let mut status = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        if let Some(Value::Array(addresses)) = status.get_mut("addresses") {
            // Merged by type otherwise, which would keep an address that is gone.
            addresses.push(json!({"$patch": "replace"}));
        }
        let patch = json!({"status": status});
        api.patch_status(&self.shared.config.node_name, &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .map(drop)
    }

    fn tell_ready(&self, unready: Option<&str>) {
        let name = &self.shared.config.node_name;
        let changed = self.ready.send_if_modified(|ready| {
            let now = unready.is_none();
            std::mem::replace(ready, now) != now
        });
        if changed {
            let reason = if unready.is_none() { "NodeReady" } else { "NodeNotReady" };
            info!(node = name, unready, "{reason}");
            self.shared.recorder.normal(&refer::node(name), reason, format!("Node {name} status is now: {reason}"));
        }
    }
}

/// A status without the times that every report renews: what is compared.
fn without_times(status: &core::NodeStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_else(|_| Value::Object(Map::new()));
    let conditions = value.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.remove("lastHeartbeatTime");
            condition.remove("lastTransitionTime");
        }
    }
    value
}
