//! Gives each node its range of Pod addresses.
//!
//! Reads: Node.  Writes: Node (`spec.podCIDR`, `spec.podCIDRs`).
//! Invariant: one worker, and what it has given out counts as used until the cache shows it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use client::{Informer, Key};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    Error,
    context::{Config, Scope},
    driver::{self, Driver, Outcome},
    kinds::core::Node,
    meta::Meta,
    nodelifecycle::node_reference,
};

const DEFAULT_MASK_V4: u8 = 24;
const DEFAULT_MASK_V6: u8 = 64;

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let nodes = driver.watch::<Node>(driver::wake);
    let given = Arc::new(Mutex::new(HashMap::<String, Vec<IpNet>>::new()));
    let scope = Arc::new(scope);
    vec![driver.run(1, move |key| {
        let (scope, nodes, given) = (scope.clone(), nodes.clone(), given.clone());
        async move { pass(&scope, &nodes, &given, key).await }
    })]
}

fn ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.filter_map(|text| text.parse().ok()).collect()
}

async fn pass(scope: &Scope, nodes: &Informer<Node>, given: &Mutex<HashMap<String, Vec<IpNet>>>, key: Key) -> Outcome {
    let config = scope.config();
    let node = nodes.get(&key);
    if config.cluster_cidrs.is_empty() || node.as_ref().is_none_or(|n| !ranges(n).is_empty()) {
        given.lock().remove(&key.name);
        return Ok(None);
    }
    let Some(node) = node else { return Ok(None) };
    let mut used: Vec<IpNet> = nodes.list().iter().flat_map(|n| ranges(n)).collect();
    used.extend(given.lock().iter().filter(|(name, _)| **name != key.name).flat_map(|(_, r)| r.clone()));
    used.extend(&config.service_cidrs);
    let mut chosen = Vec::new();
    for cluster in &config.cluster_cidrs {
        let Some(range) = first_free(*cluster, mask(config, cluster), &used) else {
            let text = format!("Node {} status is now: CIDRNotAvailable", key.name);
            scope.recorder.normal(&node_reference(&node), "CIDRNotAvailable", text);
            return Err(Error::Object {
                kind: "Node",
                key,
                why: format!("no free pod range is left in {cluster}; enlarge --cluster-cidr"),
            });
        };
        chosen.push(range);
    }
    given.lock().insert(key.name.clone(), chosen.clone());
    let texts: Vec<_> = chosen.iter().map(ToString::to_string).collect();
    let patch = json!({"metadata": {"uid": node.uid()}, "spec": {"podCIDR": texts[0], "podCIDRs": texts}});
    match scope.writer.patch::<Node>(&key, patch).await {
        Ok(_) => Ok(None),
        Err(error) => {
            given.lock().remove(&key.name);
            Err(error)
        }
    }
}

fn mask(config: &Config, cluster: &IpNet) -> u8 {
    let (configured, default) = match cluster {
        IpNet::V4(_) => (config.node_mask_v4, DEFAULT_MASK_V4),
        IpNet::V6(_) => (config.node_mask_v6, DEFAULT_MASK_V6),
    };
    if configured == 0 { default.max(cluster.prefix_len()) } else { configured }
}

/// The lowest range of this size in `cluster` that overlaps none of `used`.
fn first_free(cluster: IpNet, mask: u8, used: &[IpNet]) -> Option<IpNet> {
    let width = u32::from(if matches!(cluster, IpNet::V4(_)) { 32 - mask.min(32) } else { 128 - mask.min(128) });
    let step = 1u128.checked_shl(width)?;
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let (mut at, end) = (number(cluster.network()), number(cluster.broadcast()));
    while at.checked_add(step - 1)? <= end {
        let net = match cluster {
            IpNet::V4(_) => IpNet::V4(Ipv4Net::new(Ipv4Addr::from(u32::try_from(at).ok()?), mask).ok()?),
            IpNet::V6(_) => IpNet::V6(Ipv6Net::new(Ipv6Addr::from(at), mask).ok()?),
        };
        let overlap = used.iter().find(|u| u.contains(&net.network()) || net.contains(&u.network()));
        match overlap {
            None => return Some(net),
            // Jump behind what is in the way, to the next multiple of the size.
            Some(other) => {
                let behind = number(other.broadcast()).checked_add(1)?.max(at + step);
                at = behind.div_ceil(step) * step;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_free_range() {
        let cases: [(&str, u8, &[&str], Option<&str>); 7] = [
            ("10.42.0.0/16", 24, &[], Some("10.42.0.0/24")),
            ("10.42.0.0/16", 24, &["10.42.0.0/24", "10.42.1.0/24"], Some("10.42.2.0/24")),
            ("10.42.0.0/16", 24, &["10.42.1.0/24"], Some("10.42.0.0/24")),
            ("10.42.0.0/16", 24, &["10.42.0.0/20"], Some("10.42.16.0/24")),
            ("10.42.0.0/24", 25, &["10.42.0.0/25", "10.42.0.128/25"], None),
            ("10.42.0.0/16", 24, &["10.0.0.0/8"], None),
            ("fd00::/48", 64, &["fd00::/64"], Some("fd00:0:0:1::/64")),
        ];
        for (cluster, mask, used, expected) in cases {
            let used: Vec<IpNet> = used.iter().map(|u| u.parse().expect("net")).collect();
            let got = first_free(cluster.parse().expect("net"), mask, &used);
            assert_eq!(got, expected.map(|e| e.parse().expect("net")), "{cluster} without {used:?}");
        }
    }
}
