//! Which Pods go first when there are too many.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use jiff::Timestamp;

use super::state;
use crate::{kinds::core::Pod, meta::Meta};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts `pods` so that those to delete first come first: unassigned, not running, not ready, cheap
/// (`pod-deletion-cost`), many of the same family on one node, ready for a short time, restarted often, young.
///
/// `related` are all active Pods of the same family (for a ReplicaSet of a Deployment, those of its sibling sets too).
/// Ages are compared by order of magnitude, so that equals are picked without bias to the youngest second.
pub(crate) fn sort_for_deletion(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| state::is_active(p)) {
        *per_node.entry(state::node_name(pod)).or_default() += 1;
    }
    pods.sort_by(|a, b| compare(a, b, &per_node, now));
}

fn compare(a: &Pod, b: &Pod, per_node: &HashMap<&str, usize>, now: Timestamp) -> Ordering {
    let crowd = |p: &Pod| per_node.get(state::node_name(p)).copied().unwrap_or(0);
    let assigned = |p: &Pod| !state::node_name(p).is_empty();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_order(a).cmp(&phase_order(b)))
        .then_with(|| state::is_ready(a).cmp(&state::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| younger_first(state::ready_since(a), state::ready_since(b), now))
        .then_with(|| state::restarts(b).cmp(&state::restarts(a)))
        .then_with(|| younger_first(Some(a.created()), Some(b.created()), now))
        .then_with(|| a.uid().cmp(b.uid()))
}

fn phase_order(pod: &Pod) -> u8 {
    match state::phase(pod) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn cost(pod: &Pod) -> i32 {
    pod.annotation(DELETION_COST).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |t: Timestamp| {
        let age = now.duration_since(t).as_secs().max(0).unsigned_abs();
        age.checked_ilog2().map_or(0, |log| log + 1)
    };
    match (a, b) {
        (Some(a), Some(b)) => magnitude(a).cmp(&magnitude(b)),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(name: &str, extra: Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [], "nodeName": "n1"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]}});
        merge(&mut value, extra);
        Arc::new(from_value(value).expect("pod"))
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    #[test]
    fn the_least_useful_goes_first() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("time");
        let cases = [
            ("unassigned", json!({"spec": {"nodeName": null}})),
            ("pending", json!({"status": {"phase": "Pending"}})),
            ("not ready", json!({"status": {"conditions": []}})),
            ("cheap", json!({"metadata": {"annotations": {DELETION_COST: "-5"}}})),
            (
                "just ready",
                json!({"status": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T23:59:50Z"}]}}),
            ),
            (
                "restarted",
                json!({"status": {"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}]}}),
            ),
            ("young", json!({"metadata": {"creationTimestamp": "2026-01-01T23:00:00Z"}})),
        ];
        for (what, change) in cases {
            let mut pods = vec![pod("a", json!({})), pod("b", change)];
            let related = pods.clone();
            sort_for_deletion(&mut pods, &related, now);
            assert_eq!(pods[0].name(), "b", "{what}");
        }
    }

    #[test]
    fn crowded_nodes_first() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("time");
        let mut pods = vec![pod("a", json!({})), pod("b", json!({"spec": {"nodeName": "n2"}}))];
        let related = [pods[0].clone(), pods[1].clone(), pod("c", json!({"spec": {"nodeName": "n2"}}))];
        sort_for_deletion(&mut pods, &related, now);
        assert_eq!(pods[0].name(), "b");
    }
}
