//! Node: registered with its status by a kubelet, tainted and cordoned by others.

use serde_json::{Value, json};

use crate::{
    kind::{Context, Part},
    kinds::{
        access::{Members, keep},
        builtin::{Kind, Shape},
        cells,
    },
    validation::{
        field::{Errors, Field, walk},
        taints,
    },
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape { status: true, status_on_create: true, ..Shape::PLAIN },
    default,
    empty_status: || {
        json!({
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                "systemUUID": "",
            },
        })
    },
    create: |node, _| {
        node.member("spec").drop_member("configSource");
        node.member("status").drop_member("config");
    },
    update: |new, old, cx| {
        if cx.part == Part::Status {
            if old["status"]["config"].is_null() {
                new.member("status").drop_member("config");
            }
        } else if old["spec"]["configSource"].is_null() {
            new.member("spec").drop_member("configSource");
        } else {
            keep(new.member("spec"), &old["spec"], "configSource");
        }
    },
    validate: |errors, node, _| validate(errors, node),
    validate_update: Some(validate_update),
    fields: &["spec.unschedulable"],
    field: |node, path| walk(node, path).as_bool().unwrap_or(false).to_string(),
    row: Some(row),
    ..Kind::PLAIN
};

fn default(node: &mut Value) {
    let spec = node.member("spec");
    if !spec.is_object() {
        *spec = json!({});
    }
    align_ranges(spec);
    if let Some(status) = node.existing("status")
        && status["allocatable"].is_null()
        && status["capacity"].is_object()
    {
        let capacity = status["capacity"].clone();
        status.set("allocatable", capacity);
    }
}

/// `podCIDR` is the first of `podCIDRs`.
fn align_ranges(spec: &mut Value) {
    let first = spec["podCIDRs"][0].as_str().unwrap_or_default().to_string();
    match spec.text("podCIDR").to_string() {
        single if single.is_empty() && !first.is_empty() => spec.set("podCIDR", first),
        single if single != first => spec.set("podCIDRs", json!([single])),
        _ => {}
    }
}

fn validate(errors: &mut Errors, node: &Field<'_>) {
    // Upstream's path says `metadata`.
    taints::of_node(errors, &Field::at(node.get("spec.taints").value(), "metadata.taints"));
    ranges(errors, node);
}

fn ranges(errors: &mut Errors, node: &Field<'_>) {
    let ranges = &node.get("spec.podCIDRs");
    for range in ranges.items() {
        if range.str().parse::<ipnet::IpNet>().is_err() {
            errors.push(range.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
        }
    }
    let families =
        |six: bool| ranges.list().iter().filter(|text| text.as_str().unwrap_or_default().contains(':') == six).count();
    if families(true) > 1 || families(false) > 1 {
        errors.push(ranges.invalid("may specify no more than one CIDR for each IP family"));
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part != Part::Status {
        validate(errors, new);
    }
    let addresses = &new.get("status.addresses");
    for (index, address) in addresses.list().iter().enumerate() {
        if addresses.list()[..index].contains(address) {
            errors.push(addresses.index(index).duplicate());
        }
    }
    let (ranges, old_ranges) = (new.get("spec.podCIDRs"), old.get("spec.podCIDRs"));
    if !old_ranges.is_empty() && ranges.value() != old_ranges.value() {
        errors.push(ranges.forbidden("node updates may not change podCIDR except from \"\" to valid"));
    }
    let (provider, old_provider) = (new.get("spec.providerID"), old.get("spec.providerID"));
    if !old_provider.is_empty() && provider.str() != old_provider.str() {
        errors.push(provider.forbidden("node updates may not change providerID except from \"\" to valid"));
    }
    let external = new.get("spec.externalID");
    if external.str() != old.get("spec.externalID").str() {
        errors.push(external.forbidden("may not be updated"));
    }
}

fn row(node: &Value, now: &str) -> Vec<Value> {
    let status = &node["status"];
    let info = &status["nodeInfo"];
    let ready =
        status["conditions"].as_array().into_iter().flatten().rfind(|condition| condition.text("type") == "Ready");
    let mut state = match ready {
        Some(condition) if condition.text("status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if walk(node, "spec.unschedulable") == true {
        state += ",SchedulingDisabled";
    }
    let address = |kind: &str| {
        let addresses = status["addresses"].as_array().into_iter().flatten();
        addresses.filter(|address| address.text("type") == kind).map(|address| address.text("address")).next()
    };
    let or_unknown = |text: &str| if text.is_empty() { "<unknown>".to_string() } else { text.to_string() };
    let mut kernel = or_unknown(info.text("kernelVersion"));
    if !info.text("architecture").is_empty() {
        kernel += &format!(" ({})", info.text("architecture"));
    }
    vec![
        cells::name(node),
        state.into(),
        cells::or_none(&roles(node)),
        cells::age(node, now),
        info.text("kubeletVersion").into(),
        cells::or_none(address("InternalIP").unwrap_or_default()),
        cells::or_none(address("ExternalIP").unwrap_or_default()),
        or_unknown(info.text("osImage")).into(),
        kernel.into(),
        or_unknown(info.text("containerRuntimeVersion")).into(),
    ]
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = walk(node, "metadata.labels")
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_cordoned_and_lists_roles() {
        let node = json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/b": "", "kubernetes.io/role": "a"}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kernelVersion": "6.1", "architecture": "amd64"},
            },
        });
        let cells = row(&node, "2026-01-01T00:00:00Z");
        assert_eq!(cells[1], "Ready,SchedulingDisabled");
        assert_eq!(cells[2], "a,b");
        assert_eq!(cells[8], "6.1 (amd64)");
    }
}
