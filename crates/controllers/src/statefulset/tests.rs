//! Steps of small sets.

use std::sync::Arc;

use serde_json::{Value, from_value, json};

use super::{
    identity,
    plan::{Op, View},
};
use crate::{
    kinds::{
        apps::{ControllerRevision, StatefulSet},
        core::Pod,
    },
    meta::Meta,
};

fn set(extra: Value) -> StatefulSet {
    let mut spec = json!({"replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "new"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]});
    spec.as_object_mut().expect("spec").extend(extra.as_object().cloned().unwrap_or_default());
    from_value(json!({"metadata": {"name": "db", "namespace": "ns", "uid": "u"}, "spec": spec})).expect("set")
}

fn revision(name: &str) -> ControllerRevision {
    from_value(json!({"metadata": {"name": name}, "revision": 1, "data": {"spec": {"template": {"$patch": "replace",
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": name}]}}}}}))
    .expect("revision")
}

/// `ORDINAL:STATE`: a letter for the revision (`n`ew, `o`ld) and one for what the Pod does (`r`eady, `p`ending,
/// `f`ailed, `d`eleting).
fn pod(set: &StatefulSet, text: &str) -> Arc<Pod> {
    let (ordinal, state) = text.split_once(':').expect("ordinal:state");
    let name = if state.starts_with('n') { "new" } else { "old" };
    let template = set.spec.as_ref().map(|s| s.template.clone()).expect("spec");
    let mut pod = identity::pod(set, &template, name, ordinal.parse().expect("number"));
    let phase = match &state[1..] {
        "p" => "Pending",
        "f" => "Failed",
        _ => "Running",
    };
    let ready = if &state[1..] == "r" { "True" } else { "False" };
    pod.status =
        from_value(json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]})).expect("status");
    if &state[1..] == "d" {
        pod.metadata.deletion_timestamp = from_value(json!("2026-01-01T00:00:00Z")).expect("time");
    }
    Arc::new(pod)
}

fn steps(set: &StatefulSet, pods: &str) -> String {
    let pods: Vec<_> = pods.split_whitespace().map(|p| pod(set, p)).collect();
    let (current, update) = (revision("old"), revision("new"));
    let now = "2026-01-01T00:01:00Z".parse().expect("time");
    let plan = View { set, current: &current, update: &update, pods: &pods, now }.plan();
    let show = |op: &Op| match op {
        Op::Create(pod) => {
            let image = pod.spec.as_ref().and_then(|s| s.containers[0].image.clone()).unwrap_or_default();
            format!("+{}:{image}", pod.name())
        }
        Op::Delete(pod) => format!("-{}", pod.name()),
        Op::Repair(pod) => format!("~{}", pod.name()),
        Op::EnsureClaims(_) => String::new(),
    };
    plan.ops.iter().map(show).filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ")
}

#[test]
fn ordered() {
    let cases = [
        ("", "+db-0:new"),
        ("0:np", ""),
        ("0:nr", "+db-1:new"),
        ("0:nr 2:nr", "+db-1:new"),
        ("0:nr 1:nr 2:nr 3:nr 4:nr", "-db-4"),
        ("0:nr 1:nr 2:nr 3:nr 4:nd", ""),
        ("0:nr 1:nf 2:nr", "-db-1"),
        ("0:or 1:or 2:or", "-db-2"),
        ("0:or 1:or 2:np", ""),
        ("0:or 1:or 2:nr", "-db-1"),
    ];
    for (pods, expected) in cases {
        assert_eq!(steps(&set(json!({})), pods), expected, "{pods}");
    }
}

#[test]
fn parallel_partition_and_start() {
    let rolling = |fields: Value| json!({"type": "RollingUpdate", "rollingUpdate": fields});
    let parallel = json!({"podManagementPolicy": "Parallel"});
    let cases = [
        (parallel.clone(), "", "+db-0:new +db-1:new +db-2:new"),
        (parallel, "0:nr 1:nr 2:nr 3:nr 4:nr", "-db-4 -db-3"),
        (json!({"updateStrategy": {"type": "OnDelete"}}), "0:or 1:or 2:or", ""),
        (json!({"updateStrategy": rolling(json!({"partition": 2}))}), "0:or 1:or 2:or", "-db-2"),
        (json!({"updateStrategy": rolling(json!({"partition": 2}))}), "0:or 1:or 2:nr", ""),
        (json!({"updateStrategy": rolling(json!({"partition": 2}))}), "0:or 2:nr", "+db-1:old"),
        (
            json!({"updateStrategy": rolling(json!({"partition": 0, "maxUnavailable": 2}))}),
            "0:or 1:or 2:or",
            "-db-2 -db-1",
        ),
        (json!({"ordinals": {"start": 5}, "replicas": 1}), "", "+db-5:new"),
        (json!({"ordinals": {"start": 5}, "replicas": 1}), "0:nr 5:nr", "-db-0"),
    ];
    for (extra, pods, expected) in cases {
        assert_eq!(steps(&set(extra.clone()), pods), expected, "{extra} {pods}");
    }
}

#[test]
fn identity_follows_the_ordinal() {
    let set = set(json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}}));
    let pod = pod(&set, "1:nr");
    let spec = pod.spec.as_ref().expect("spec");
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("svc")));
    let claims = identity::claims(&set, &pod);
    assert_eq!(claims[0].name(), "data-db-1");
    assert_eq!(claims[0].metadata.owner_references.as_ref().map(Vec::len), Some(1));
    assert!(identity::with_owners(&set, &claims[0], None).is_none(), "settled");
    assert!(identity::repaired(&set, &pod).is_none(), "settled");
    for (name, expected) in [("db-0", Some(0)), ("db-12", Some(12)), ("db-012", None), ("db-x", None), ("web-0", None)]
    {
        assert_eq!(identity::ordinal(&set, name), expected, "{name}");
    }
}
