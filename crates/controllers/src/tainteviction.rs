//! Drives Pods from nodes with `NoExecute` taints that they do not tolerate, or no longer.
//!
//! Reads: Pod, Node.  Writes: deletes Pod, Pod/status.
//! A toleration with a time runs from the moment when both the taint and the Pod were there, so a restart does not
//! prolong it.

use std::{sync::Arc, time::Duration};

use client::{Informer, Key, reference};
use jiff::Timestamp;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{Driver, Outcome},
    kinds::core::{Node, Pod, Taint, Toleration},
    meta::{self, Meta, seconds, until},
    nodelifecycle::{BY_NODE, by_node},
    pods::{scheduling, state},
};

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let pods = driver.watch::<Pod>(|change, queue| {
        let Some(pod) = change.new.as_ref().filter(|p| !state::node_name(p).is_empty()) else { return };
        let what = |p: &Pod| (state::node_name(p).to_owned(), p.spec.as_ref().and_then(|s| s.tolerations.clone()));
        if change.old.as_ref().is_none_or(|old| what(old) != what(pod)) {
            queue.add(pod.key());
        }
    });
    pods.add_index(BY_NODE, by_node);
    let nodes = driver.watch::<Node>({
        let pods = pods.clone();
        move |change, queue| {
            let Some(node) = &change.new else { return };
            let before = change.old.as_ref().map(|o| scheduling::taints(o).to_vec()).unwrap_or_default();
            if before != scheduling::taints(node) {
                pods.by_index(BY_NODE, node.name()).iter().for_each(|p| queue.add(p.key()));
            }
        }
    });
    let scope = Arc::new(scope);
    vec![driver.run(8, move |key| {
        let (scope, pods, nodes) = (scope.clone(), pods.clone(), nodes.clone());
        async move { pass(&scope, &pods, &nodes, key).await }
    })]
}

/// How long a Pod may stay.
#[derive(Debug, PartialEq, Eq)]
enum Stay {
    ForEver,
    For(Duration),
    No,
}

fn stay(taints: &[Taint], tolerations: &[Toleration], placed: Timestamp, now: Timestamp) -> Stay {
    let mut shortest: Option<Timestamp> = None;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let fitting: Vec<_> = tolerations.iter().filter(|t| scheduling::tolerates(t, taint)).collect();
        if fitting.is_empty() {
            return Stay::No;
        }
        if let Some(limit) = fitting.iter().filter_map(|t| t.toleration_seconds).min() {
            let since = taint.time_added.as_ref().map_or(now, |t| t.0).max(placed);
            let end = since + seconds(limit.max(0));
            shortest = Some(shortest.map_or(end, |s| s.min(end)));
        }
    }
    match shortest {
        None => Stay::ForEver,
        Some(end) => until(end, now).map_or(Stay::No, Stay::For),
    }
}

async fn pass(scope: &Scope, pods: &Informer<Pod>, nodes: &Informer<Node>, key: Key) -> Outcome {
    let Some(pod) = pods.get(&key).filter(|p| !p.is_deleting()) else { return Ok(None) };
    let Some(node) = nodes.get(&Key::new("", state::node_name(&pod))) else { return Ok(None) };
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    let now = scope.now();
    let scheduled = state::condition(&pod, "PodScheduled").and_then(|c| c.last_transition_time.as_ref());
    let placed = scheduled.map_or_else(|| pod.created(), |t| t.0);
    match stay(scheduling::taints(&node), tolerations, placed, now) {
        Stay::ForEver => Ok(None),
        Stay::For(left) => Ok(Some(left)),
        Stay::No => {
            scope.recorder.normal(&reference(&*pod), "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": meta::time(now)});
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}});
            match scope.writer.patch_subresource::<Pod>("status", &key, patch).await {
                Err(error) if error.is_gone() => return Ok(None),
                other => other.map(drop)?,
            }
            scope.writer.delete::<Pod>(&key, Some(pod.uid())).await?;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn how_long() {
        let now = "2026-01-01T00:01:00Z".parse().expect("time");
        let taint = |effect: &str| json!([{"key": "k", "effect": effect, "timeAdded": "2026-01-01T00:00:00Z"}]);
        let limited = |s: i64| json!([{"key": "k", "operator": "Exists", "tolerationSeconds": s}]);
        let cases: [(Value, Value, Stay); 7] = [
            (json!([]), json!([]), Stay::ForEver),
            (taint("NoSchedule"), json!([]), Stay::ForEver),
            (taint("NoExecute"), json!([]), Stay::No),
            (taint("NoExecute"), json!([{"operator": "Exists"}]), Stay::ForEver),
            (taint("NoExecute"), limited(300), Stay::For(Duration::from_secs(240))),
            (taint("NoExecute"), limited(60), Stay::No),
            (taint("NoExecute"), limited(-1), Stay::No),
        ];
        for (taints, tolerations, expected) in cases {
            let taints: Vec<Taint> = from_value(taints).expect("taints");
            let parsed: Vec<Toleration> = from_value(tolerations.clone()).expect("tolerations");
            let early = "2025-12-31T00:00:00Z".parse().expect("time");
            assert_eq!(stay(&taints, &parsed, early, now), expected, "{tolerations}");
            if let Stay::For(_) = expected {
                let full = Stay::For(Duration::from_secs(300));
                assert_eq!(stay(&taints, &parsed, now, now), full, "a Pod that has just come has all its time");
            }
        }
    }
}
