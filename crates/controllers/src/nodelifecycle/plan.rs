//! A node's health and the taints that follow from it.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    kinds::core::{Node, NodeCondition, Taint},
    meta::{self, Meta},
    pods::scheduling,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Ready,
    NotReady,
    Unknown,
}

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_EXECUTE: &str = "NoExecute";
const NO_SCHEDULE: &str = "NoSchedule";

/// Condition and status to `NoSchedule` taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// Conditions that only the node itself can tell.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

pub(super) fn health(node: &Node) -> Health {
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("True") => Health::Ready,
        Some("False") => Health::NotReady,
        _ => Health::Unknown,
    }
}

/// Whether the node itself has written its status since.
pub(super) fn was_reported(old: &Node, new: &Node) -> bool {
    let beat = |n: &Node| condition(n, "Ready").and_then(|c| c.last_heartbeat_time.clone());
    beat(old) != beat(new)
}

/// The node with all it reports set to unknown, if that is news.
pub(super) fn lost(node: &Node, now: Timestamp) -> Option<Node> {
    let mut next = node.clone();
    let conditions = next.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut changed = false;
    for kind in REPORTED {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".to_owned();
                known.reason = Some("NodeStatusUnknown".to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(meta::time(now));
                changed = true;
            }
            None => {
                conditions.push(NodeCondition {
                    type_: kind.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(meta::time(now)),
                });
                changed = true;
            }
        }
    }
    changed.then_some(next)
}

/// Whether Pods are driven from lost nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    Goes,
    /// What has begun goes on, but nothing new begins.
    Holds,
    Stops,
}

/// If all nodes are lost, or most of a zone, it is more likely that this process is cut off than that so many nodes
/// failed at once.
pub(super) fn eviction(node: &Node, all: &[Arc<Node>]) -> Eviction {
    let zone = |n: &Node| {
        let label = |name: &str| n.label(name).unwrap_or_default().to_owned();
        (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
    };
    let here = zone(node);
    let neighbours: Vec<_> = all.iter().filter(|n| zone(n) == here).collect();
    let down = neighbours.iter().filter(|n| health(n) != Health::Ready).count();
    if all.iter().all(|n| health(n) != Health::Ready) {
        Eviction::Stops
    } else if down > 2 && down * 100 >= neighbours.len() * 55 {
        Eviction::Holds
    } else {
        Eviction::Goes
    }
}

/// The node's taints with ours brought up to date, if anything changes.
pub(super) fn taints(node: &Node, eviction: Eviction, now: Timestamp) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = BY_CONDITION
        .iter()
        .filter(|(kind, status, _)| condition(node, kind).is_some_and(|c| c.status == *status))
        .map(|(_, _, key)| (*key, NO_SCHEDULE))
        .collect();
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let old = scheduling::taints(node);
    let has = |key: &str| old.iter().any(|t| t.key == key && t.effect == NO_EXECUTE);
    let evicts = |key: &str| eviction == Eviction::Goes || eviction == Eviction::Holds && has(key);
    match health(node) {
        Health::Ready => {}
        Health::NotReady if evicts(NOT_READY) => wanted.push((NOT_READY, NO_EXECUTE)),
        Health::Unknown if condition(node, "Ready").is_some() && evicts(UNREACHABLE) => {
            wanted.push((UNREACHABLE, NO_EXECUTE));
        }
        _ => {}
    }
    let ours = |t: &Taint| {
        t.effect == NO_SCHEDULE && (t.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, key)| *key == t.key))
            || t.effect == NO_EXECUTE && (t.key == NOT_READY || t.key == UNREACHABLE)
    };
    let mut next: Vec<Taint> =
        old.iter().filter(|t| !ours(t) || wanted.contains(&(t.key.as_str(), t.effect.as_str()))).cloned().collect();
    for (key, effect) in wanted {
        if next.iter().all(|t| t.key != key || t.effect != effect) {
            next.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                value: None,
                time_added: Some(meta::time(now)),
            });
        }
    }
    (next != old).then_some(next)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn node(ready: &str, spec: Value) -> Node {
        from_value(json!({"metadata": {"name": "n"}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .expect("node")
    }

    #[test]
    fn taints_follow_conditions() {
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let own = json!({"taints": [{"key": "mine", "effect": "NoSchedule"}]});
        let stale =
            json!({"taints": [{"key": NOT_READY, "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoExecute"}]});
        let cases = [
            ("True", json!({}), true, None),
            ("True", stale, true, Some("")),
            ("True", json!({"unschedulable": true}), true, Some("unschedulable:NoSchedule")),
            ("False", json!({}), true, Some("not-ready:NoSchedule not-ready:NoExecute")),
            ("False", json!({}), false, Some("not-ready:NoSchedule")),
            ("Unknown", json!({}), true, Some("unreachable:NoSchedule unreachable:NoExecute")),
            ("Unknown", own, false, Some("mine:NoSchedule unreachable:NoSchedule")),
        ];
        for (ready, spec, evicts, expected) in cases {
            let eviction = if evicts { Eviction::Goes } else { Eviction::Stops };
            let got = taints(&node(ready, spec.clone()), eviction, now).map(|taints| {
                let short = |t: &Taint| format!("{}:{}", t.key.rsplit('/').next().unwrap_or_default(), t.effect);
                taints.iter().map(short).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(got.as_deref(), expected, "{ready} {spec}");
        }
    }

    #[test]
    fn a_silent_node_is_unknown_once() {
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let lost_node = lost(&node("True", json!({})), now).expect("news");
        assert_eq!(health(&lost_node), Health::Unknown);
        assert!(lost(&lost_node, now).is_none());
    }

    #[test]
    fn nobody_is_evicted_when_all_is_dark() {
        let cases = [(1, 0, Eviction::Stops), (1, 1, Eviction::Goes), (3, 7, Eviction::Goes), (6, 4, Eviction::Holds)];
        for (down, up, expected) in cases {
            let all: Vec<_> = (0..down)
                .map(|_| node("Unknown", json!({})))
                .chain((0..up).map(|_| node("True", json!({}))))
                .map(Arc::new)
                .collect();
            assert_eq!(eviction(&all[0], &all), expected, "{down} down, {up} up");
        }
    }
}
