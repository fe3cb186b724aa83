//! Pod: defaults, strategies of its subresources, deletion grace and selectable fields.

pub(crate) mod qos;
mod row;

use serde_json::{Map, Value, json};

use crate::{
    kind::{Context, Part},
    kinds::{
        access::{Members, keep},
        builtin::{Kind, RESET_FOR_STATUS, Shape, text_at},
        pod_spec,
    },
    validation::{
        self,
        field::walk,
        pod::{update, warnings},
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { status_keeps: &["ownerReferences"], ..Shape::WORKLOAD },
    default,
    create,
    update: prepare_update,
    validate: |errors, pod, _| validation::pod::create(errors, pod),
    validate_update: Some(|errors, new, old, cx| match cx.part {
        Part::Main => update::main(errors, new, old),
        Part::Status => update::status(errors, new, old),
        Part::Other("ephemeralcontainers") => update::ephemeral_containers(errors, new, old),
        Part::Other("resize") => update::resize(errors, new, old),
        Part::Other(_) => {}
    }),
    warnings: |new, old| match old {
        Some(_) => Vec::new(),
        None => warnings::of_name(new, "the Pod's hostname")
            .into_iter()
            .chain(warnings::of_spec("spec", &new["spec"]))
            .collect(),
    },
    fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    field: |pod, path| match path {
        "spec.hostNetwork" => walk(pod, path).as_bool().unwrap_or(false).to_string(),
        _ => text_at(pod, path),
    },
    row: Some(row::row),
    grace,
    ..Kind::PLAIN
};

fn default(pod: &mut Value) {
    let spec = pod.member("spec");
    pod_spec::default(spec);
    for list in ["containers", "initContainers"] {
        for container in spec.each(list) {
            if let Some(resources) = container.existing("resources") {
                requests_from_limits(resources);
            }
        }
    }
    qos::default_pod_resources(spec);
    if spec["enableServiceLinks"].is_null() {
        spec.set("enableServiceLinks", true);
    }
    if spec["hostNetwork"] == true {
        for list in ["containers", "initContainers"] {
            for port in spec.each(list).flat_map(|container| container.each("ports")) {
                let number = port["containerPort"].as_i64().unwrap_or(0);
                port.fill_zero("hostPort", number);
            }
        }
    }
    if let Some(status) = pod.existing("status") {
        align_addresses(status);
    }
}

/// A request that is not given is the limit.
fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources["limits"].as_object().cloned() else { return };
    let requests = resources.object("requests");
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

/// `podIP` is the first of `podIPs`; a writer of only one of them gets both.
fn align_addresses(status: &mut Value) {
    let first = walk(&status["podIPs"][0], "ip").as_str().unwrap_or_default().to_string();
    match status.text("podIP").to_string() {
        single if single.is_empty() && !first.is_empty() => status.set("podIP", first),
        single if single != first => status.set("podIPs", json!([{"ip": single}])),
        _ => {}
    }
}

fn create(pod: &mut Value, cx: &Context<'_>) {
    let labels = walk(pod, "metadata.labels").clone();
    let spec = pod.member("spec");
    pod_spec::mirror_service_account(spec);
    merge_label_keys(spec, &labels);
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(spec)});
    if spec["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        status.set(
            "conditions",
            json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null,
                "lastTransitionTime": cx.now,
            }]),
        );
    }
    pod.set("status", status);
}

/// Turns `matchLabelKeys` and `mismatchLabelKeys` into requirements on the values that the pod's labels have now.
fn merge_label_keys(spec: &mut Value, labels: &Value) {
    for constraint in spec.each("topologySpreadConstraints") {
        merge_keys(constraint, labels);
    }
    let Some(affinity) = spec.existing("affinity") else { return };
    for name in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = affinity.existing(name) else { continue };
        for preferred in affinity.each("preferredDuringSchedulingIgnoredDuringExecution") {
            merge_keys(preferred.member("podAffinityTerm"), labels);
        }
        for term in affinity.each("requiredDuringSchedulingIgnoredDuringExecution") {
            merge_keys(term, labels);
        }
    }
}

fn merge_keys(term: &mut Value, labels: &Value) {
    if !term["labelSelector"].is_object() {
        return;
    }
    let mut requirements = Vec::new();
    for (member, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term[member].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let Some(value) = labels.get(key) else { continue };
            let requirement = json!({"key": key, "operator": operator, "values": [value]});
            // The strategy runs again when admission changed the Pod.
            let present = walk(term, "labelSelector.matchExpressions").as_array();
            if !present.is_some_and(|present| present.contains(&requirement)) {
                requirements.push(requirement);
            }
        }
    }
    if requirements.is_empty() {
        return;
    }
    let expressions = term.member("labelSelector").member("matchExpressions");
    match expressions {
        Value::Array(present) => present.extend(requirements),
        absent => *absent = Value::Array(requirements),
    }
}

fn prepare_update(new: &mut Value, old: &Value, cx: &Context<'_>) {
    match cx.part {
        Part::Main => {}
        Part::Status => update_status(new, old),
        Part::Other("ephemeralcontainers") => {
            let containers = walk(new, "spec.ephemeralContainers").clone();
            keep_all_but(new, old, |spec| match containers {
                Value::Null => {
                    spec.drop_member("ephemeralContainers");
                }
                containers => spec.set("ephemeralContainers", containers),
            });
        }
        Part::Other("resize") => resize(new, old),
        Part::Other(_) => {}
    }
}

/// The old object again, with `change` made to its spec.
fn keep_all_but(new: &mut Value, old: &Value, change: impl FnOnce(&mut Value)) {
    keep(new, old, "spec");
    keep(new, old, "status");
    for name in RESET_FOR_STATUS {
        keep(new.member("metadata"), &old["metadata"], name);
    }
    change(new.member("spec"));
}

/// Takes over resources and resize policies only. A changed set of containers stays, for validation to refuse.
fn resize(new: &mut Value, old: &Value) {
    keep(new, old, "status");
    const LISTS: [&str; 2] = ["containers", "initContainers"];
    let names = |object: &Value, list: &str| -> Vec<String> {
        object["spec"][list].as_array().into_iter().flatten().map(|item| item.text("name").to_string()).collect()
    };
    if LISTS.iter().any(|list| names(new, list) != names(old, list)) {
        return;
    }
    let wanted = new["spec"].clone();
    keep_all_but(new, old, |spec| {
        for list in LISTS {
            for (container, wanted) in spec.each(list).zip(wanted[list].as_array().into_iter().flatten()) {
                keep(container, wanted, "resources");
                keep(container, wanted, "resizePolicy");
            }
        }
        keep(spec, &wanted, "resources");
    });
}

/// Keeps what a kubelet of another version may not know: the QoS class and observed generations.
fn update_status(new: &mut Value, old: &Value) {
    // The path to a deletion is not through a status.
    keep(new.member("metadata"), &old["metadata"], "deletionTimestamp");
    let before = &old["status"];
    let status = new.member("status");
    if status.text("qosClass").is_empty() {
        keep(status, before, "qosClass");
    }
    if status["observedGeneration"].as_i64().unwrap_or(0) == 0 {
        keep(status, before, "observedGeneration");
    }
    let mut seen: Map<String, Value> = Map::new();
    for condition in status.each("conditions") {
        let kind = condition.text("type").to_string();
        let nth = seen.get(&kind).and_then(Value::as_u64).unwrap_or(0);
        seen.insert(kind.clone(), (nth + 1).into());
        if condition["observedGeneration"].as_i64().unwrap_or(0) == 0 {
            let mut same_type =
                before["conditions"].as_array().into_iter().flatten().filter(|old| old.text("type") == kind);
            if let Some(old) = same_type.nth(nth as usize) {
                keep(condition, old, "observedGeneration");
            }
        }
    }
}

/// The requested seconds, or the pod's own; none for a pod that no node runs.
fn grace(pod: &Value, requested: Option<i64>) -> Option<i64> {
    let wanted = requested.or_else(|| walk(pod, "spec.terminationGracePeriodSeconds").as_i64()).unwrap_or(0);
    let phase = walk(pod, "status.phase").as_str().unwrap_or_default();
    let unscheduled = walk(pod, "spec.nodeName").as_str().unwrap_or_default().is_empty();
    Some(match wanted {
        _ if unscheduled || matches!(phase, "Failed" | "Succeeded") => 0,
        negative if negative < 0 => 1,
        seconds => seconds,
    })
}

#[cfg(test)]
mod tests;
