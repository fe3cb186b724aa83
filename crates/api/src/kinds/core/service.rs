//! Service: defaults, the fields that follow `type`, and values that an update carries over from before.
//!
//! Cluster IPs and node ports are handed out by the API server's allocator, after these hooks; what is here only keeps
//! what was allocated, or drops it when the new type has no use for it.

mod validate;

use serde_json::{Value, json};

use crate::{
    kind::{Context, Part},
    kinds::{
        access::{Members, keep},
        builtin::{Kind, Shape},
        cells,
    },
    validation::{field::walk, names},
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::STATUS,
    name: names::label_name,
    default,
    empty_status: || json!({"loadBalancer": {}}),
    create: |service, _| align_cluster_ips(service, None),
    update,
    validate: validate::create,
    validate_update: Some(validate::update),
    fields: &["spec.clusterIP", "spec.type"],
    row: Some(row),
    create_on_update: true,
    ..Kind::PLAIN
};

/// Seconds that ClientIP affinity lasts when nobody says: three hours.
const AFFINITY_TIMEOUT_S: i64 = 10800;

fn default(service: &mut Value) {
    let spec = service.member("spec");
    spec.fill("sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => {
            spec.drop_member("sessionAffinityConfig");
        }
        "ClientIP" if walk(spec, "sessionAffinityConfig.clientIP.timeoutSeconds").is_null() => {
            spec.set("sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_TIMEOUT_S}}));
        }
        _ => {}
    }
    spec.fill("type", "ClusterIP");
    for port in spec.each("ports") {
        port.fill("protocol", "TCP");
        let target = &port["targetPort"];
        if target.is_null() || target == 0 || target == "" {
            let number = port["port"].as_i64().unwrap_or(0);
            port.set("targetPort", number);
        }
    }
    if externally_accessible(spec) {
        spec.fill("externalTrafficPolicy", "Cluster");
    }
    if spec.text("type") != "ExternalName" {
        spec.fill("internalTrafficPolicy", "Cluster");
    }
    if spec.text("type") == "LoadBalancer" {
        spec.fill("allocateLoadBalancerNodePorts", true);
        for ingress in service.member("status").member("loadBalancer").each("ingress") {
            if !ingress.text("ip").is_empty() {
                ingress.fill("ipMode", "VIP");
            }
        }
    }
}

fn items<'a>(spec: &'a Value, list: &str) -> &'a [Value] {
    spec[list].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Reachable from outside the cluster: by node port, load balancer or external address.
fn externally_accessible(spec: &Value) -> bool {
    match spec.text("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !items(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

fn needs_cluster_ip(spec: &Value) -> bool {
    spec.text("type") != "ExternalName"
}

fn needs_node_port(spec: &Value) -> bool {
    matches!(spec.text("type"), "NodePort" | "LoadBalancer")
}

fn needs_health_check_port(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

fn node_port(port: &Value) -> i64 {
    port["nodePort"].as_i64().unwrap_or(0)
}

fn update(new: &mut Value, old: &Value, cx: &Context<'_>) {
    if cx.part == Part::Main {
        carry_over(new.member("spec"), &old["spec"]);
        align_cluster_ips(new, Some(old));
        drop_by_type(new.member("spec"), &old["spec"]);
    }
}

/// Allocated values that the writer left out stay as they are.
fn carry_over(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if new.text("clusterIP").is_empty() {
            keep(new, old, "clusterIP");
        }
        if items(new, "clusterIPs").is_empty() {
            keep(new, old, "clusterIPs");
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        let taken: Vec<i64> = items(new, "ports").iter().map(node_port).filter(|port| *port != 0).collect();
        for port in new.each("ports").filter(|port| node_port(port) == 0) {
            let before = items(old, "ports").iter().rfind(|old| old.text("name") == port.text("name")).map(node_port);
            if let Some(number) = before
                && number != 0
                && !taken.contains(&number)
            {
                port.set("nodePort", number);
            }
        }
    }
    if needs_health_check_port(old)
        && needs_health_check_port(new)
        && new["healthCheckNodePort"].as_i64().unwrap_or(0) == 0
    {
        keep(new, old, "healthCheckNodePort");
    }
}

/// `clusterIP` is the first of `clusterIPs`: whoever writes one of them gets the other.
fn align_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let first =
        |spec: &Value| items(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or_default().to_string();
    let spec = new.member("spec");
    let single = spec.text("clusterIP").to_string();
    let Some(old) = old else {
        if !single.is_empty() && items(spec, "clusterIPs").is_empty() {
            spec.set("clusterIPs", json!([single]));
        }
        return;
    };
    let before = &old["spec"];
    let list_changed = spec["clusterIPs"] != before["clusterIPs"];
    if single.is_empty() && !before.text("clusterIP").is_empty() && !list_changed {
        spec.drop_member("clusterIPs");
    } else if single != before.text("clusterIP") && !list_changed {
        spec.set("clusterIPs", json!([single]));
    } else if single.is_empty() && list_changed && needs_cluster_ip(spec) && !first(spec).is_empty() {
        let first = first(spec);
        spec.set("clusterIP", first);
    }
}

/// Fields that the new type does not have, and that the writer did not touch, go.
fn drop_by_type(new: &mut Value, old: &Value) {
    let drop_unchanged = |new: &mut Value, names: &[&str]| {
        if names.iter().all(|name| new[*name] == old[*name]) {
            for name in names {
                new.drop_member(name);
            }
        }
    };
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        drop_unchanged(new, &["clusterIP", "clusterIPs"]);
        drop_unchanged(new, &["ipFamilies"]);
        drop_unchanged(new, &["ipFamilyPolicy"]);
    }
    if needs_health_check_port(old) && !needs_health_check_port(new) {
        drop_unchanged(new, &["healthCheckNodePort"]);
    }
    if old.text("type") == "LoadBalancer" && new.text("type") != "LoadBalancer" {
        drop_unchanged(new, &["allocateLoadBalancerNodePorts"]);
        drop_unchanged(new, &["loadBalancerClass"]);
    }
    if externally_accessible(old) && !externally_accessible(new) {
        drop_unchanged(new, &["externalTrafficPolicy"]);
    }
    if needs_node_port(old) && !needs_node_port(new) {
        let known: Vec<i64> = items(old, "ports").iter().map(node_port).collect();
        if items(new, "ports").iter().map(node_port).all(|port| port == 0 || known.contains(&port)) {
            for port in new.each("ports") {
                port.drop_member("nodePort");
            }
        }
    }
}

fn row(service: &Value, now: &str) -> Vec<Value> {
    let spec = &service["spec"];
    let ports: Vec<String> = items(spec, "ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (cells::count(port, "port"), port.text("protocol"));
            match node_port(port) {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    vec![
        cells::name(service),
        spec.text("type").into(),
        cells::or_none(items(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or_default()),
        external_address(service).into(),
        cells::or_none(&ports.join(",")),
        cells::age(service, now),
        cells::labels(&spec["selector"]),
    ]
}

fn external_address(service: &Value) -> String {
    let spec = &service["spec"];
    let mut addresses: Vec<&str> = Vec::new();
    match spec.text("type") {
        "ExternalName" => return spec.text("externalName").to_string(),
        "LoadBalancer" => {
            for ingress in walk(service, "status.loadBalancer.ingress").as_array().into_iter().flatten() {
                addresses
                    .extend([ingress.text("ip"), ingress.text("hostname")].into_iter().find(|text| !text.is_empty()));
            }
            addresses.sort_unstable();
            addresses.dedup();
        }
        "ClusterIP" | "NodePort" => {}
        _ => return "<unknown>".to_string(),
    }
    addresses.extend(items(spec, "externalIPs").iter().filter_map(Value::as_str));
    match addresses.is_empty() {
        false => addresses.join(","),
        true if spec.text("type") == "LoadBalancer" => "<pending>".to_string(),
        true => cells::NONE.to_string(),
    }
}
