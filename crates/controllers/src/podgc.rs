//! Removes Pods that nobody else will: those of nodes that are gone, those that are being deleted without ever having
//! had a node, those on nodes declared out of service, and the oldest finished ones when there are very many.
//!
//! Reads: Pod, Node.  Writes: deletes Pod, Pod/status.

use std::{sync::Arc, time::Duration};

use client::{Informer, Key};
use kube::api::DeleteParams;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    Error,
    context::Scope,
    driver::{Driver, Outcome},
    kinds::core::{Node, Pod},
    meta::{self, Meta},
    nodelifecycle::{BY_NODE, by_node},
    pods::{scheduling, state},
};

/// How long a node may be missing from the cache before its Pods go.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Finished Pods that may stay.
const FINISHED_MAX: usize = 12_500;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct Loop {
    scope: Scope,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let pods = driver.watch::<Pod>(|change, queue| {
        let Some(pod) = &change.new else { return };
        let finished = state::is_terminal(pod) && change.old.as_ref().is_none_or(|o| !state::is_terminal(o));
        if change.old.is_none() || finished || pod.is_deleting() {
            queue.add(pod.key());
        }
    });
    pods.add_index(BY_NODE, by_node);
    let nodes = driver.watch::<Node>({
        let pods = pods.clone();
        move |change, queue| {
            let there = |name: &str| pods.by_index(BY_NODE, name).into_iter().map(|p| p.key());
            match (&change.old, &change.new) {
                (Some(old), None) => there(old.name()).for_each(|k| queue.add_after(k, QUARANTINE)),
                (_, Some(new)) if is_out_of_service(new) => there(new.name()).for_each(|k| queue.add(k)),
                _ => {}
            }
        }
    });
    let this = Arc::new(Loop { scope, pods, nodes });
    vec![driver.run(4, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

fn is_out_of_service(node: &Node) -> bool {
    scheduling::taints(node).iter().any(|t| t.key == OUT_OF_SERVICE)
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(pod) = self.pods.get(&key) else { return Ok(None) };
        let node_name = state::node_name(&pod);
        if node_name.is_empty() {
            if pod.is_deleting() {
                self.remove(&pod, None).await?;
            }
            return Ok(None);
        }
        let node_key = Key::new("", node_name);
        match self.nodes.get(&node_key) {
            None => {
                // A Pod that is older than the quarantine has waited for its node long enough.
                let age = self.scope.now().duration_since(pod.created());
                let left = QUARANTINE.saturating_sub(age.unsigned_abs());
                if !left.is_zero() {
                    return Ok(Some(left));
                }
                if self.scope.writer.get::<Node>(&node_key).await?.is_none() {
                    self.remove(&pod, Some("PodGC: node no longer exists")).await?;
                }
            }
            Some(node) if pod.is_deleting() && is_out_of_service(&node) => self.remove(&pod, None).await?,
            Some(_) if state::is_terminal(&pod) => self.trim().await?,
            Some(_) => {}
        }
        Ok(None)
    }

    /// Deletes the oldest finished Pods beyond the limit.
    async fn trim(&self) -> Result<(), Error> {
        if self.pods.len() <= FINISHED_MAX {
            return Ok(());
        }
        let mut finished: Vec<_> = self.pods.list();
        finished.retain(|p| state::is_terminal(p) && !p.is_deleting());
        let excess = finished.len().saturating_sub(FINISHED_MAX);
        finished.sort_by_key(|p| p.created());
        for pod in finished.iter().take(excess) {
            self.remove(pod, None).await?;
        }
        Ok(())
    }

    /// Deletes the Pod at once; one that nobody ended is marked as failed first, and as disrupted if a reason is given.
    async fn remove(&self, pod: &Pod, why: Option<&str>) -> Result<(), Error> {
        if !state::is_terminal(pod) {
            let mut status = json!({"phase": "Failed"});
            if let Some(why) = why {
                status["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": why, "lastTransitionTime": meta::time(self.scope.now())}]);
            }
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
            match self.scope.writer.patch_subresource::<Pod>("status", &pod.key(), patch).await {
                Err(error) if error.is_gone() => return Ok(()),
                other => other.map(drop)?,
            }
        }
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.scope.writer.delete_with::<Pod>(&pod.key(), Some(pod.uid()), at_once).await
    }
}
