//! Ingress: HTTP routes into the cluster.

mod validate;

use serde_json::{Value, json};

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::WORKLOAD,
    empty_status: || json!({"loadBalancer": {}}),
    validate: |errors, ingress, _| validate::create(errors, ingress),
    validate_update: Some(validate::update),
    row: Some(row),
    ..Kind::PLAIN
};

fn row(ingress: &Value, now: &str) -> Vec<Value> {
    let spec = &ingress["spec"];
    let mut addresses: Vec<&str> = walk(ingress, "status.loadBalancer.ingress")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|point| [point.text("ip"), point.text("hostname")].into_iter().find(|text| !text.is_empty()))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    let tls = spec["tls"].as_array().is_some_and(|tls| !tls.is_empty());
    vec![
        cells::name(ingress),
        cells::or_none(spec.text("ingressClassName")),
        hosts(spec).into(),
        addresses.join(",").into(),
        if tls { "80, 443".into() } else { "80".into() },
        cells::age(ingress, now),
    ]
}

/// The first three hosts; `*` when no rule names one.
fn hosts(spec: &Value) -> String {
    const SHOWN: usize = 3;
    let rules = spec["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let hosts: Vec<&str> = rules.iter().map(|rule| rule.text("host")).filter(|host| !host.is_empty()).collect();
    if hosts.is_empty() {
        return "*".into();
    }
    let head = hosts[..hosts.len().min(SHOWN)].join(",");
    if hosts.len() > SHOWN { format!("{head} + {} more...", rules.len() - SHOWN) } else { head }
}
