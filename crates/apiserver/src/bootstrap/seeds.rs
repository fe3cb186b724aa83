//! Objects of every cluster that are no roles.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{Reconcile, Seed};
use crate::config::{Config, Pem};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Priorities of what the cluster itself needs.
const CRITICAL: [(&str, i64, &str); 2] = [
    ("system-node-critical", 2_000_001_000, "For pods without which their node does not work."),
    ("system-cluster-critical", 2_000_000_000, "For pods without which the cluster does not work."),
];

pub(super) fn all(config: &Config) -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |group, plural, object, reconcile| seeds.push(Seed { group, plural, object, reconcile });
    for name in NAMESPACES {
        add("", "namespaces", json!({"metadata": {"name": name}}), Reconcile::Keep);
    }
    for (name, value, description) in CRITICAL {
        let object = json!({"metadata": {"name": name}, "value": value, "description": description});
        add("scheduling.k8s.io", "priorityclasses", object, Reconcile::Keep);
    }
    add("networking.k8s.io", "servicecidrs", service_cidr(config), Reconcile::Keep);
    if let Some(address) = config.advertise_address {
        add("", "services", service(config), Reconcile::Keep);
        add("", "endpoints", endpoints(address, config.advertise_port), Reconcile::With(endpoints_of));
        let slice = endpoint_slice(address, config.advertise_port);
        add("discovery.k8s.io", "endpointslices", slice, Reconcile::With(endpoints_of));
    }
    if let Some(object) = client_ca(config) {
        add("", "configmaps", object, Reconcile::With(data_of));
    }
    seeds
}

fn service_cidr(config: &Config) -> Value {
    let cidrs: Vec<String> = config.service_cidrs.iter().map(IpNet::to_string).collect();
    json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}})
}

/// The first address of the service range is the API's.
pub(crate) fn api_address(range: IpNet) -> IpAddr {
    match range {
        IpNet::V4(range) => IpAddr::V4((u32::from(range.network()) + 1).into()),
        IpNet::V6(range) => IpAddr::V6((u128::from(range.network()) + 1).into()),
    }
}

fn service(config: &Config) -> Value {
    let address = config.service_cidrs.first().map(|range| api_address(*range).to_string()).unwrap_or_default();
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": [family],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": config.advertise_port}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn endpoints(address: IpAddr, port: u16) -> Value {
    json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": address.to_string()}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    })
}

fn endpoint_slice(address: IpAddr, port: u16) -> Value {
    json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    })
}

/// The API may be reached elsewhere than at the last start.
fn endpoints_of(seed: &Value, stored: &mut Value) {
    for member in ["subsets", "endpoints", "ports"] {
        if let Some(wanted) = seed.get(member) {
            stored[member] = wanted.clone();
        }
    }
}

/// By which CAs clients and front proxies prove who they are; extension API servers read it.
fn client_ca(config: &Config) -> Option<Value> {
    let text = |pem: &Pem| pem.load().ok().and_then(|pem| String::from_utf8(pem).ok());
    let ca = text(config.tls.as_ref()?.client_ca.as_ref()?)?;
    let mut data = json!({"client-ca-file": ca});
    if let Some(front) = &config.request_header {
        data["requestheader-client-ca-file"] = text(&front.ca)?.into();
        data["requestheader-allowed-names"] = json!(front.allowed_names).to_string().into();
        data["requestheader-extra-headers-prefix"] = "[\"X-Remote-Extra-\"]".into();
        data["requestheader-group-headers"] = "[\"X-Remote-Group\"]".into();
        data["requestheader-uid-headers"] = "[\"X-Remote-Uid\"]".into();
        data["requestheader-username-headers"] = "[\"X-Remote-User\"]".into();
    }
    Some(json!({
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": data,
    }))
}

fn data_of(seed: &Value, stored: &mut Value) {
    stored["data"] = seed["data"].clone();
}
