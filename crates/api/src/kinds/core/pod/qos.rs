//! Quality-of-service class, and what pod-level resources are when only part of them is given (KEP-2837).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{kinds::access::Members, quantity::Quantity};

const COUNTED: [&str; 2] = ["cpu", "memory"];

/// Milli-units of an amount; none for what is no quantity (validation says so).
fn milli(amount: &Value) -> Option<i128> {
    let text = match amount {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    text.parse::<Quantity>().ok().map(|quantity| i128::from(quantity.milli_value()))
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the pod's own resources or those of its containers.
pub(crate) fn class(spec: &Value) -> &'static str {
    let of_pod = spec["resources"].is_object().then(|| &spec["resources"]);
    let of_containers = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten())
        .map(|container| &container["resources"]);
    let parts: Vec<&Value> = match of_pod {
        Some(resources) => vec![resources],
        None => of_containers.collect(),
    };
    let mut guaranteed = true;
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for part in parts {
        sum(&mut requests, &part["requests"]);
        let counted = sum(&mut limits, &part["limits"]);
        guaranteed &= counted == COUNTED.len() || of_pod.is_some() && part["limits"].is_null();
    }
    match (requests.is_empty() && limits.is_empty(), guaranteed && requests == limits) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

/// Adds the counted amounts above zero; how many there were.
fn sum(total: &mut BTreeMap<&'static str, i128>, list: &Value) -> usize {
    let amounts: Vec<(&'static str, i128)> = COUNTED
        .into_iter()
        .filter_map(|name| list.get(name).and_then(milli).filter(|amount| *amount > 0).map(|amount| (name, amount)))
        .collect();
    for (name, amount) in &amounts {
        *total.entry(name).or_default() += amount;
    }
    amounts.len()
}

/// Requests of the pod as a whole that follow from its limits and its containers' requests.
pub(super) fn default_pod_resources(spec: &mut Value) {
    let Some(limits) = spec["resources"]["limits"].as_object().filter(|limits| !limits.is_empty()).cloned() else {
        return;
    };
    let supported = |name: &str| COUNTED.contains(&name) || name.starts_with("hugepages-");
    let mut requests: Map<String, Value> = spec["resources"]["requests"].as_object().cloned().unwrap_or_default();
    for name in COUNTED {
        if !requests.contains_key(name)
            && let Some(amount) = effective_request(spec, name)
        {
            requests.insert(name.into(), amount);
        }
    }
    for (name, amount) in limits {
        if supported(&name) {
            requests.entry(name).or_insert(amount);
        }
    }
    if !requests.is_empty() {
        spec.member("resources").set("requests", requests);
    }
}

/// What the containers ask for together: the running ones' sum, or an init container's peak when that is more.
fn effective_request(spec: &Value, name: &str) -> Option<Value> {
    let request = |container: &Value| container["resources"]["requests"].get(name).and_then(milli);
    let list = |list: &'static str| spec[list].as_array().into_iter().flatten();
    let mut any = false;
    let mut add = |total: &mut i128, amount: Option<i128>| {
        any |= amount.is_some();
        *total += amount.unwrap_or(0);
    };
    let mut running = 0;
    for container in list("containers") {
        add(&mut running, request(container));
    }
    let (mut sidecars, mut peak) = (0, 0);
    for container in list("initContainers") {
        let mut own = sidecars;
        add(&mut own, request(container));
        peak = peak.max(own);
        if container.text("restartPolicy") == "Always" {
            sidecars = own;
        }
    }
    any.then(|| {
        let milli = (running + sidecars).max(peak);
        match (milli % 1000, milli / 1000) {
            (0, whole) => whole.to_string().into(),
            _ => format!("{milli}m").into(),
        }
    })
}
