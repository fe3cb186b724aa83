//! Watches over nodes: marks those that have fallen silent, and puts the taints on nodes that follow from their state.
//!
//! Reads: Node, Lease (in `kube-node-lease`), Pod.  Writes: Node, Node/status, Pod/status.
//! A node is heard from when its lease is renewed or its status changes. What counts is when *this* process saw it,
//! by its own clock, so that clocks that differ do no harm; after a restart every node has the full grace period again.

mod plan;

use std::{collections::HashMap, sync::Arc, time::Duration};

use client::{Informer, Key, reference};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinHandle;

use self::plan::Health;
use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        coordination::Lease,
        core::{Node, Pod},
    },
    meta::{self, Meta, until},
    pods::state,
};

/// Silence after which a node counts as lost.
const GRACE: SignedDuration = SignedDuration::from_secs(50);

/// Index of Pods by node.
pub(crate) const BY_NODE: &str = "node";

pub(crate) fn by_node(pod: &Pod) -> Vec<String> {
    let node = state::node_name(pod);
    if node.is_empty() { Vec::new() } else { vec![node.to_owned()] }
}

/// The reference under which events about a node are found by `kubectl describe`.
pub(crate) fn node_reference(node: &Node) -> ObjectReference {
    ObjectReference { uid: Some(node.uid().to_owned()), ..reference(node) }
}

struct Loop {
    scope: Scope,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    heard: Arc<Mutex<HashMap<String, Timestamp>>>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let heard = Arc::new(Mutex::new(HashMap::new()));
    let nodes = driver.watch::<Node>({
        let (heard, scope, all) = (heard.clone(), scope.clone(), scope.context.informers.of::<Node>());
        move |change, queue| {
            match (&change.old, &change.new) {
                (None, Some(node)) => {
                    heard.lock().entry(node.name().to_owned()).or_insert_with(|| scope.now());
                    let text = format!("Node {0} event: Registered Node {0} in Controller", node.name());
                    scope.recorder.normal(&node_reference(node), "RegisteredNode", text);
                }
                (Some(old), Some(new)) if plan::was_reported(old, new) => {
                    heard.lock().insert(new.name().to_owned(), scope.now());
                }
                (Some(old), None) => {
                    heard.lock().remove(old.name());
                    let text = format!("Node {0} event: Removing Node {0} from Controller", old.name());
                    scope.recorder.normal(&node_reference(old), "RemovingNode", text);
                }
                _ => {}
            }
            driver::wake(change, queue);
            // Whether Pods may be driven from a lost node depends on how the others are.
            if let (Some(old), Some(new)) = (&change.old, &change.new)
                && plan::health(old) != plan::health(new)
            {
                let lost = all.list().into_iter().filter(|n| plan::health(n) != Health::Ready);
                lost.for_each(|n| queue.add(n.key()));
            }
        }
    });
    let leases = scope.context.informers.select::<Lease>("metadata.namespace=kube-node-lease", "");
    leases.on_change({
        let (heard, scope) = (heard.clone(), scope.clone());
        move |change| {
            let renewed = |l: &Arc<Lease>| l.spec.as_ref().and_then(|s| s.renew_time.clone());
            if let Some(lease) = &change.new
                && change.old.as_ref().map(renewed) != Some(renewed(lease))
            {
                heard.lock().insert(lease.name().to_owned(), scope.now());
            }
        }
    });
    driver.wait_for(&leases);
    let pods = driver.read::<Pod>();
    pods.add_index(BY_NODE, by_node);
    let this = Arc::new(Loop { scope, nodes, pods, heard });
    vec![driver.run(8, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(node) = self.nodes.get(&key) else { return Ok(None) };
        let now = self.scope.now();
        let heard = self.heard.lock().get(&key.name).copied().unwrap_or(now);
        let left = until(heard + GRACE, now);
        let mut node = Node::clone(&node);
        if left.is_none()
            && let Some(lost) = plan::lost(&node, now)
        {
            let was = plan::health(&node);
            let conditions = lost.status.and_then(|s| s.conditions);
            let patch = json!({"status": {"conditions": conditions}});
            node = self.scope.writer.patch_subresource::<Node>("status", &key, patch).await?;
            if was == Health::Ready {
                let text = format!("Node {} status is now: NodeNotReady", node.name());
                self.scope.recorder.normal(&node_reference(&node), "NodeNotReady", text);
            }
        }
        let health = plan::health(&node);
        if health != Health::Ready {
            self.mark_pods(&node, now).await?;
        }
        let eviction = plan::eviction(&node, &self.nodes.list());
        if let Some(taints) = plan::taints(&node, eviction, now) {
            let version = node.metadata.resource_version.clone();
            let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
            self.scope.writer.patch::<Node>(&key, patch).await?;
        }
        // A lost node is woken by the lease or status that it sends when it is back.
        Ok(left.map(|l| l + Duration::from_millis(100)))
    }

    /// Pods of a node that is not ready do not get traffic any more.
    async fn mark_pods(&self, node: &Node, now: Timestamp) -> Result<(), Error> {
        let mut errors = Vec::new();
        for pod in self.pods.by_index(BY_NODE, node.name()) {
            if !state::is_ready(&pod) {
                continue;
            }
            let at = meta::time(now);
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": at});
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
            match self.scope.writer.patch_subresource::<Pod>("status", &pod.key(), patch).await {
                Ok(_) => self.scope.recorder.warning(&reference(&*pod), "NodeNotReady", "Node is not ready"),
                Err(error) if error.is_gone() => {}
                Err(error) => errors.push(error),
            }
        }
        Error::collect(errors)
    }
}
