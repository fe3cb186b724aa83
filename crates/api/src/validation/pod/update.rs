//! What a write to an existing Pod may change, by subresource.

use serde_json::Value;

use super::{MIRROR, whole};
use crate::{
    kinds::access::{Members, keep},
    status::FieldError,
    validation::{
        field::{Errors, Field, same},
        names, net,
    },
};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A write to the Pod itself.
pub fn main(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>) {
    whole(errors, new);
    let (spec, before) = (&new.get("spec"), &old.get("spec"));
    for list in ["containers", "initContainers"] {
        if spec.get(list).list().len() != before.get(list).list().len() {
            errors.push(spec.get(list).forbidden("pod updates may not add or remove containers"));
            return;
        }
    }
    if !deadline(errors, spec, before) {
        return;
    }
    tolerations(errors, spec, before);
    gates(errors, spec, before);
    if same(spec.value(), before.value()) {
        return;
    }
    let mut rest = spec.value().clone();
    put_back(&mut rest, before.value());
    if before.value()["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        gated(errors, spec, before, &mut rest);
    }
    if !same(&rest, before.value()) {
        let mut changed = Vec::new();
        differences("", &rest, before.value(), &mut changed);
        errors.push(
            spec.forbidden(format!("pod updates may not change fields other than {UPDATABLE}\n{}", changed.join("\n"))),
        );
    }
}

/// Undoes the allowed changes, so that what is left must equal the old spec.
fn put_back(spec: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        let old = old[list].as_array().cloned().unwrap_or_default();
        for (container, old) in spec.each(list).zip(&old) {
            keep(container, old, "image");
        }
    }
    for name in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        keep(spec, old, name);
    }
    let grace = "terminationGracePeriodSeconds";
    if old[grace].as_i64().is_some_and(|seconds| seconds < 0) && spec[grace] == 1 {
        keep(spec, old, grace);
    }
}

/// A deadline may come closer, never go.
fn deadline(errors: &mut Errors, spec: &Field<'_>, before: &Field<'_>) -> bool {
    let (new, old) = (spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds").int());
    match (new.int(), old) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            new.judge(errors, names::in_range(seconds, 0, i64::from(i32::MAX)));
            false
        }
        (Some(seconds), Some(old)) if old < seconds => {
            errors.push(new.invalid("must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            errors.push(new.invalid_value(Value::Null, "must not update from a positive integer to nil value"));
            true
        }
        _ => true,
    }
}

fn tolerations(errors: &mut Errors, spec: &Field<'_>, before: &Field<'_>) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.drop_member("tolerationSeconds");
        toleration
    };
    let new: Vec<Value> = spec.get("tolerations").list().iter().map(without_seconds).collect();
    if before.get("tolerations").list().iter().any(|old| !new.contains(&without_seconds(old))) {
        errors.push(
            spec.get("tolerations").forbidden("existing toleration can not be modified except its tolerationSeconds"),
        );
    }
}

fn gates(errors: &mut Errors, spec: &Field<'_>, before: &Field<'_>) {
    let gates = &spec.get("schedulingGates");
    let known = before.get("schedulingGates").list();
    for gate in gates.items().filter(|gate| !known.contains(gate.value())) {
        let name = gate.get("name");
        errors
            .push(name.forbidden(format!("only deletion is allowed, but found new scheduling gate '{}'", name.str())));
    }
}

/// While a Pod waits at a gate, its node selection may become stricter.
fn gated(errors: &mut Errors, spec: &Field<'_>, before: &Field<'_>, rest: &mut Value) {
    let selector = spec.get("nodeSelector");
    let known = before.value()["nodeSelector"].as_object();
    for (key, value) in known.into_iter().flatten() {
        if selector.value().get(key) != Some(value) {
            errors
                .push(selector.invalid("only additions to spec.nodeSelector are allowed (no mutations or deletions)"));
            break;
        }
    }
    keep(rest, before.value(), "nodeSelector");
    const NODE: &str = "nodeAffinity";
    let affinity = spec.get("affinity.nodeAffinity");
    let old = &before.value()["affinity"][NODE];
    if same(affinity.value(), old) {
        return;
    }
    node_affinity(errors, &affinity, old);
    if let Some(members) = rest.existing("affinity") {
        keep(members, &before.value()["affinity"], NODE);
        if members.as_object().is_some_and(|members| members.is_empty()) {
            rest.drop_member("affinity");
        }
    } else if !old.is_null() {
        rest.member("affinity").set(NODE, old.clone());
    }
}

fn node_affinity(errors: &mut Errors, affinity: &Field<'_>, old: &Value) {
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution");
    let old_terms = old["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].as_array();
    let Some(old_terms) = old_terms else { return };
    let terms = &required.get("nodeSelectorTerms");
    if terms.list().len() != old_terms.len() {
        errors.push(terms.invalid("no additions/deletions to non-empty NodeSelectorTerms list are allowed"));
        return;
    }
    for (term, old) in terms.items().zip(old_terms) {
        let grown = ["matchExpressions", "matchFields"].iter().all(|list| {
            let old = old[*list].as_array().map(Vec::as_slice).unwrap_or_default();
            let new = term.get(list).list();
            new.len() >= old.len() && new[..old.len()] == *old
        });
        if !grown {
            errors.push(term.invalid("only additions are allowed (no mutations or deletions)"));
        }
    }
}

/// Lines that say which members differ and how.
fn differences(path: &str, new: &Value, old: &Value, out: &mut Vec<String>) {
    match (new, old) {
        (Value::Object(left), Value::Object(right)) => {
            for name in left.keys().chain(right.keys().filter(|name| !left.contains_key(*name))) {
                let null = &Value::Null;
                let (left, right) = (left.get(name).unwrap_or(null), right.get(name).unwrap_or(null));
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                differences(&path, left, right, out);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differences(&format!("{path}[{index}]"), left, right, out);
            }
        }
        _ if same(new, old) => {}
        _ => out.push(format!("- {path}: {old}\n+ {path}: {new}")),
    }
}

/// A write to `status`.
pub fn status(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>) {
    let (status, before) = (&new.get("status"), &old.get("status"));
    let conditions = &status.get("conditions");
    for condition in conditions.items() {
        let generation = condition.get("observedGeneration");
        if generation.int().is_some_and(|number| number < 0) {
            errors.push(generation.invalid("must be a non-negative integer"));
        }
        let kind = condition.get("type").str();
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            errors.extend(
                names::qualified_name(kind)
                    .into_iter()
                    .map(|message| condition.get("Type").invalid_value(kind, message)),
            );
        }
    }
    let (nominated, was) = (status.get("nominatedNodeName"), before.get("nominatedNodeName"));
    if !nominated.is_empty() && nominated.str() != was.str() {
        nominated.judge(errors, names::dns_subdomain(nominated.str()));
        if !old.get("spec.nodeName").is_empty() {
            errors.push(nominated.forbidden("may not be set on pods that are already bound to a node"));
        }
    }
    let generation = status.get("observedGeneration");
    if generation.int().is_some_and(|number| number < 0) {
        errors.push(generation.invalid("must be a non-negative integer"));
    }
    status.get("qosClass").immutable(errors, &before.get("qosClass"));
    for (list, spec_list) in
        [("containerStatuses", "spec.containers"), ("initContainerStatuses", "spec.initContainers")]
    {
        transitions(errors, status, before, list, &new.get(spec_list), new.get("spec.restartPolicy").str());
    }
    for list in ["podIPs", "hostIPs"] {
        addresses(errors, &status.get(list));
    }
}

/// A container that has ended and will not restart stays ended.
fn transitions(
    errors: &mut Errors,
    status: &Field<'_>,
    before: &Field<'_>,
    list: &str,
    containers: &Field<'_>,
    pod_policy: &str,
) {
    let is_init = list == "initContainerStatuses";
    if !is_init && pod_policy == "Always" {
        return;
    }
    let statuses = status.get(list);
    for (index, old) in before.value()[list].as_array().into_iter().flatten().enumerate() {
        let ended = &old["state"]["terminated"];
        if ended.is_null() {
            continue;
        }
        let own = containers.list().iter().find(|container| container["name"] == old["name"]);
        let policy = own.map_or("", |container| container.text("restartPolicy"));
        let failed = ended["exitCode"].as_i64().unwrap_or(0) != 0;
        let restarts = match policy {
            "Always" => true,
            "OnFailure" => failed,
            "Never" => false,
            _ if own.is_some_and(|container| container["restartPolicyRules"].is_array()) => true,
            _ if is_init => failed && pod_policy != "Never",
            _ => pod_policy == "Always" || failed && pod_policy == "OnFailure",
        };
        let revived =
            statuses.list().iter().any(|new| new["name"] == old["name"] && new["state"]["terminated"].is_null());
        let ruled = own.is_some_and(|container| container["restartPolicyRules"].is_array());
        if revived && !restarts && !ruled {
            errors.push(FieldError::forbidden(
                format!("{}[{index}].state", statuses.path()),
                "may not be transitioned to non-terminated state",
            ));
        }
    }
}

fn addresses(errors: &mut Errors, list: &Field<'_>) {
    for address in list.items() {
        let ip = address.get("ip");
        let start = errors.len();
        net::address(errors, &ip);
        for error in &mut errors[start..] {
            error.field = address.path();
        }
    }
    let six = list.list().iter().filter(|address| address.text("ip").contains(':')).count();
    if six > 1 || list.list().len() - six > 1 {
        errors.push(list.invalid("may specify no more than one IP for each IP family"));
    }
}

/// A write to `ephemeralcontainers`: they come, and stay as they came.
pub fn ephemeral_containers(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>) {
    if old.get("metadata.annotations").key(MIRROR).exists() {
        errors.push(FieldError::forbidden("", "static pods do not support ephemeral containers"));
        return;
    }
    whole(errors, new);
    let list = new.get("spec.ephemeralContainers");
    for old in old.get("spec.ephemeralContainers").list() {
        let name = old.text("name");
        match list.list().iter().find(|container| container.text("name") == name) {
            None => errors.push(list.forbidden(format!("existing ephemeral containers {name:?} may not be removed\n"))),
            Some(new) if !same(new, old) => {
                let mut changed = Vec::new();
                differences("", new, old, &mut changed);
                errors.push(list.forbidden(format!(
                    "existing ephemeral containers {name:?} may not be changed\n{}",
                    changed.join("\n")
                )));
            }
            Some(_) => {}
        }
    }
}

/// A write to `resize`: cpu and memory change, nothing is taken away.
pub fn resize(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>) {
    if old.get("metadata.annotations").key(MIRROR).exists() {
        errors.push(FieldError::forbidden("", "static pods cannot be resized"));
        return;
    }
    if old.get("spec.os.name").str() == "windows" {
        errors.push(FieldError::forbidden("", "windows pods cannot be resized"));
        return;
    }
    whole(errors, new);
    let spec = &new.get("spec");
    if crate::kinds::pod_qos_class(spec.value()) != old.get("status.qosClass").str() {
        errors.push(
            spec.invalid_value(
                old.get("status.qosClass").str(),
                "Pod QOS Class may not change as a result of resizing",
            ),
        );
    }
    let running = old.get("status.containerStatuses");
    let first = running.list().iter().find(|status| !status["state"]["running"].is_null());
    if first.is_some_and(|status| status["resources"].is_null()) {
        errors.push(spec.forbidden("Pod running on node without support for resize"));
    }
    for list in ["containers", "initContainers"] {
        let (containers, before) = (&spec.get(list), old.value()["spec"][list].as_array());
        let before = before.map(Vec::as_slice).unwrap_or_default();
        if containers.list().len() != before.len() {
            errors.push(containers.forbidden(format!("{list} may not be added or removed on resize")));
            continue;
        }
        for (container, old) in containers.items().zip(before) {
            if container.get("name").str() != old.text("name") {
                errors
                    .push(container.get("name").forbidden(format!("{list} may not be renamed or reordered on resize")));
                continue;
            }
            resized(errors, spec, &container, old);
        }
    }
}

fn resized(errors: &mut Errors, spec: &Field<'_>, container: &Field<'_>, old: &Value) {
    let resources = &container.get("resources");
    for (name, what) in
        [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")]
    {
        let new = resources.get(name);
        let gone = old["resources"][name]
            .as_object()
            .is_some_and(|list| list.keys().any(|resource| new.value().get(resource).is_none()));
        if gone {
            errors.push(new.forbidden(what));
        }
        let others = |list: &Value| -> Vec<(String, Value)> {
            let list = list.as_object().into_iter().flatten();
            list.filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory"))
                .map(|(name, amount)| (name.clone(), amount.clone()))
                .collect()
        };
        if others(new.value()) != others(&old["resources"][name]) {
            errors.push(spec.forbidden("only cpu and memory resources are mutable"));
        }
    }
    if !same(container.get("resizePolicy").value(), &old["resizePolicy"]) {
        errors.push(spec.forbidden("only cpu and memory resources are mutable"));
    }
}
