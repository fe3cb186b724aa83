//! What is allowed in a pod's spec but likely not meant.

use serde_json::Value;

use crate::{
    kinds::access::Members,
    validation::{field::walk, names},
};

/// Labels of nodes that have new names: old, new.
const NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Warnings about the spec at `path` (`spec`, `spec.template.spec`).
pub fn of_spec(path: &str, spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for key in spec["nodeSelector"].as_object().into_iter().flat_map(|map| map.keys()) {
        if let Some((_, new)) = NODE_LABELS.iter().find(|(old, _)| old == key) {
            out.push(format!("{path}.nodeSelector[{key}]: deprecated since v1.14; use \"{new}\" instead"));
        }
    }
    if !spec["topologySpreadConstraints"].is_null() {
        for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
            if constraint["labelSelector"].is_null() {
                out.push(format!(
                    "{path}.topologySpreadConstraints[{index}].labelSelector: a null labelSelector results in matching no pod"
                ));
            }
        }
    }
    for (index, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            out.push(format!("{path}.imagePullSecrets[{index}].name: invalid empty name \"\""));
        } else if list(spec, "imagePullSecrets")[..index].contains(secret) {
            out.push(format!("{path}.imagePullSecrets[{index}].name: duplicate name {:?}", secret.text("name")));
        }
    }
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        let ip = alias.text("ip");
        if list(spec, "hostAliases")[..index].iter().any(|other| other.text("ip") == ip) {
            out.push(format!("{path}.hostAliases[{index}].ip: duplicate ip {ip:?}"));
        }
    }
    volumes(path, spec, &mut out);
    for kind in ["initContainers", "containers"] {
        for (index, container) in list(spec, kind).iter().enumerate() {
            of_container(&format!("{path}.{kind}[{index}]"), container, &mut out);
        }
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        out.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    out
}

fn volumes(path: &str, spec: &Value, out: &mut Vec<String>) {
    const GONE: &[(&str, &str)] = &[
        ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        for (name, why) in GONE {
            if !volume[*name].is_null() {
                out.push(format!("{path}.volumes[{index}].{name}: {why}"));
            }
        }
    }
}

fn of_container(path: &str, container: &Value, out: &mut Vec<String>) {
    for (index, variable) in list(container, "env").iter().enumerate() {
        let name = variable.text("name");
        let before = &list(container, "env")[..index];
        // A value that builds on the earlier one is how a variable is extended.
        let (value, reference) = (variable.text("value"), format!("$({name})"));
        let extends = variable["valueFrom"].is_null() && value.contains(&reference) && value != reference;
        if before.iter().any(|other| other.text("name") == name) && !extends {
            out.push(format!(
                "{path}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
    let ports = list(container, "ports");
    for (index, port) in ports.iter().enumerate() {
        let same =
            |other: &&Value| other["containerPort"] == port["containerPort"] && other["protocol"] == port["protocol"];
        if let Some(first) = ports[..index].iter().position(|other| same(&other)) {
            out.push(format!("{path}.ports[{index}]: duplicate port definition with {path}.ports[{first}]"));
        }
    }
    for list_name in ["requests", "limits"] {
        for (resource, amount) in container["resources"][list_name].as_object().into_iter().flatten() {
            let fraction = matches!(resource.as_str(), "memory" | "ephemeral-storage")
                && super::resources::parse(amount).is_some_and(|amount| amount.milli_value() % 1000 != 0);
            if fraction {
                let amount = amount.as_str().unwrap_or_default();
                out.push(format!(
                    "{path}.resources.{list_name}[{resource}]: fractional byte value {amount:?} is invalid, must be an integer"
                ));
            }
        }
    }
}

/// Warns of a name that is no DNS label although pods' hostnames are made of it.
pub fn of_name(object: &Value, used_in: &str) -> Option<String> {
    let messages = names::dns_label(object["metadata"].text("name"));
    (!messages.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            messages.join(" ")
        )
    })
}

/// Warnings about a workload's template, on create and when the update changed it. `named` when pods' names come from it.
pub fn of_workload(new: &Value, old: Option<&Value>, template: &str, named: bool) -> Vec<String> {
    let at = walk(new, template);
    let changed = old.is_none_or(|old| new["metadata"]["generation"] != old["metadata"]["generation"]);
    let mut out = Vec::new();
    if named && old.is_none() {
        out.extend(of_name(new, "Pod names and hostnames"));
    }
    if changed {
        out.extend(of_spec(&format!("{template}.spec"), &at["spec"]));
    }
    out
}
