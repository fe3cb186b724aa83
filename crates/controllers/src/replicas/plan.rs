//! How many Pods to create, which to delete, and what to report.

use std::sync::Arc;

use jiff::Timestamp;

use super::kind::{Condition, Replicas, Status};
use crate::{
    kinds::core::Pod,
    meta::{self, Labels, Meta},
    pods::{rank, state},
};

const REPLICA_FAILURE: &str = "ReplicaFailure";

#[derive(Debug)]
pub(super) enum Plan {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Active Pods minus wanted ones.
pub(super) fn difference<R: Replicas>(owner: &R, owned: &[Arc<Pod>]) -> i64 {
    let active = owned.iter().filter(|p| state::is_active(p)).count();
    i64::try_from(active).unwrap_or(i64::MAX) - i64::from(owner.replicas())
}

/// What to do about the difference. `family` is all Pods that count as neighbours when a victim is picked.
pub(super) fn plan<R: Replicas>(
    owner: &R,
    owned: &[Arc<Pod>],
    family: &[Arc<Pod>],
    now: Timestamp,
    burst: usize,
) -> Plan {
    let difference = difference(owner, owned);
    let count = usize::try_from(difference.unsigned_abs()).unwrap_or(usize::MAX).min(burst);
    match difference {
        0 => Plan::Nothing,
        ..0 => Plan::Create(count),
        _ => {
            let mut pods: Vec<_> = owned.iter().filter(|p| state::is_active(p)).cloned().collect();
            if count < pods.len() {
                rank::sort_for_deletion(&mut pods, family, now);
            }
            pods.truncate(count);
            Plan::Delete(pods)
        }
    }
}

/// The status to report; `failure` is the difference and the text of a failed attempt to close it.
pub(super) fn status<R: Replicas>(
    owner: &R,
    owned: &[Arc<Pod>],
    failure: Option<(i64, String)>,
    now: Timestamp,
) -> Status {
    let active: Vec<_> = owned.iter().filter(|p| state::is_active(p)).collect();
    let count =
        |test: &dyn Fn(&Pod) -> bool| i32::try_from(active.iter().filter(|p| test(p)).count()).unwrap_or(i32::MAX);
    let template: &Labels = match owner.template().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref()) {
        Some(labels) => labels,
        None => const { &Labels::new() },
    };
    let terminating = owned.iter().filter(|p| state::is_terminating(p)).count();
    let mut conditions = owner.status().conditions;
    let old = conditions.iter().position(|c| c.kind == REPLICA_FAILURE);
    match (failure, old) {
        (Some((difference, message)), None) => conditions.push(Condition {
            kind: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(if difference < 0 { "FailedCreate" } else { "FailedDelete" }.to_owned()),
            message: Some(message),
            since: Some(meta::time(now)),
        }),
        (None, Some(index)) => drop(conditions.remove(index)),
        _ => {}
    }
    Status {
        replicas: count(&|_| true),
        fully_labeled: count(&|p| template.iter().all(|(k, v)| p.labels().get(k) == Some(v))),
        ready: count(&state::is_ready),
        available: count(&|p| state::is_available(p, owner.min_ready_seconds(), now)),
        terminating: R::COUNTS_TERMINATING.then(|| i32::try_from(terminating).unwrap_or(i32::MAX)),
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::kinds::apps::ReplicaSet;

    fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
        from_value(json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": replicas,
            "minReadySeconds": min_ready, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web", "tier": "x"}}}}}))
        .expect("set")
    }

    fn pod(what: &str) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": what, "labels": {"app": "web", "tier": "x"}},
            "status": {"phase": "Running"}});
        match what {
            "done" => value["status"]["phase"] = json!("Succeeded"),
            "leaving" => value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            "ready" => {
                value["status"]["conditions"] =
                    json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
            }
            "odd" => value["metadata"]["labels"] = json!({"app": "web"}),
            _ => {}
        }
        Arc::new(from_value(value).expect("pod"))
    }

    #[test]
    fn closes_the_difference() {
        let now = "2026-01-01T00:00:05Z".parse().expect("time");
        let cases: [(i32, &[&str], i64); 6] = [
            (3, &[], 3),
            (3, &["ready", "done", "leaving"], 2),
            (1, &["ready"], 0),
            (1, &["ready", "new", "new"], -2),
            (0, &["ready", "leaving"], -1),
            (900, &[], 500),
        ];
        for (wanted, pods, expected) in cases {
            let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
            let got = match plan(&set(wanted, 0), &pods, &pods, now, 500) {
                Plan::Nothing => 0,
                Plan::Create(count) => i64::try_from(count).expect("small"),
                Plan::Delete(victims) => {
                    assert!(victims.iter().all(|v| v.name() != "ready") || wanted == 0);
                    -i64::try_from(victims.len()).expect("small")
                }
            };
            assert_eq!(got, expected, "{wanted} wanted");
        }
    }

    #[test]
    fn counts() {
        let now = "2026-01-01T00:00:05Z".parse().expect("time");
        let pods: Vec<_> = ["ready", "new", "odd", "done", "leaving"].map(pod).into();
        let got = status(&set(3, 0), &pods, None, now);
        assert_eq!((got.replicas, got.fully_labeled, got.ready, got.available, got.terminating), (3, 2, 1, 1, Some(1)));
        assert_eq!(status(&set(3, 10), &pods, None, now).available, 0);
        let failed = status(&set(3, 0), &pods, Some((-1, "quota".into())), now);
        assert_eq!(failed.conditions[0].reason.as_deref(), Some("FailedCreate"));
        let still = set(3, 0).with_status(failed);
        assert!(status(&still, &pods, None, now).conditions.is_empty());
    }
}
