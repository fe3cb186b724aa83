//! The pod network's nftables: masquerade and host ports.
//!
//! ```text
//! prerouting, output   to an address of the node: (protocol . port) -> (pod . port), narrower addresses first
//! postrouting          from pods to the world, from a pod to itself, and from 127.0.0.1 to a pod: masquerade
//! forward              from and to pods: accepted
//! ```

use std::{collections::HashSet, fmt::Write, net::Ipv4Addr};

use super::{Config, Error, HostPort};
use crate::nft;

pub(super) fn table(prefix: &str) -> String {
    format!("navarch-{prefix}-pods")
}

/// Makes the chains; host ports that are there stay.
///
/// A pod that reaches itself through a Service or host port would get an answer from its own address, which it does not
/// expect: that is masqueraded. nft cannot compare source with destination, so there is a set of each address with
/// itself. Between two pods the source stays, which needs the kernel to see the answer: bridged packets must pass
/// through the rules. A kernel that cannot (`bridged_seen` is false) gets all of those connections masqueraded.
pub(super) async fn base(config: &Config, bridge: &str, bridged_seen: bool) -> Result<(), Error> {
    Ok(nft::apply(&base_text(config, bridge, bridged_seen)).await?)
}

fn base_text(config: &Config, bridge: &str, bridged_seen: bool) -> String {
    let table = table(&config.prefix);
    let (pods, cluster) = (config.cidr, config.cluster_cidr);
    let own = if bridged_seen {
        "ct status dnat ip saddr . ip daddr @itself masquerade".to_string()
    } else {
        format!("ct status dnat ip saddr {pods} ip daddr {pods} masquerade")
    };
    let mut text = format!(
        "table ip {table} {{
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map address-ports {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  set itself {{ type ipv4_addr . ipv4_addr; }}
  chain prerouting {{ type nat hook prerouting priority -95; }}
  chain output {{ type nat hook output priority -95; }}
  chain postrouting {{ type nat hook postrouting priority 105; }}
  chain forward {{ type filter hook forward priority -5; }}
}}
flush chain ip {table} prerouting
flush chain ip {table} output
flush chain ip {table} postrouting
flush chain ip {table} forward
flush set ip {table} itself
table ip {table} {{
  chain prerouting {{
    fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @address-ports
    fib daddr type local dnat ip to meta l4proto . th dport map @ports
  }}
  chain output {{
    fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @address-ports
    fib daddr type local dnat ip to meta l4proto . th dport map @ports
  }}
  chain postrouting {{
    ip saddr {pods} ip daddr != {cluster} oifname != \"{bridge}\" masquerade
    {own}
    ct status dnat ip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade
  }}
  chain forward {{
    iifname \"{bridge}\" accept
    oifname \"{bridge}\" accept
  }}
}}
"
    );
    if bridged_seen {
        let _ = write!(text, "add element ip {table} itself {{ ");
        for address in pods.hosts() {
            let _ = write!(text, "{address} . {address}, ");
        }
        text.push_str("}\n");
    }
    text
}

pub(super) async fn add_host_ports(config: &Config, pod: Ipv4Addr, ports: &[HostPort]) -> Result<(), Error> {
    let table = table(&config.prefix);
    let mut text = String::new();
    for port in ports {
        let HostPort { protocol, host_port, pod_port, .. } = port;
        text += &match port.host_ip {
            Some(ip) if !ip.is_unspecified() => format!(
                "add element ip {table} address-ports {{ {ip} . {protocol} . {host_port} : {pod} . {pod_port} }}\n"
            ),
            _ => format!("add element ip {table} ports {{ {protocol} . {host_port} : {pod} . {pod_port} }}\n"),
        };
    }
    Ok(nft::apply(&text).await?)
}

/// Removes all host ports of a pod.
pub(super) async fn remove_host_ports(config: &Config, pod: Ipv4Addr) -> Result<(), Error> {
    let table = table(&config.prefix);
    let mut text = String::new();
    for (map, elements) in listed(config).await? {
        for (element, _) in elements.iter().filter(|(_, target)| *target == pod) {
            let _ = writeln!(text, "delete element ip {table} {map} {{ {element} }}");
        }
    }
    if text.is_empty() { Ok(()) } else { Ok(nft::apply(&text).await?) }
}

/// Pods that have host ports.
pub(super) async fn pods_with_host_ports(config: &Config) -> Result<HashSet<Ipv4Addr>, Error> {
    Ok(listed(config).await?.into_iter().flat_map(|(_, elements)| elements).map(|(_, pod)| pod).collect())
}

/// The host ports in the kernel: by map, each element and the pod that it leads to.
async fn listed(config: &Config) -> Result<Vec<(&'static str, Vec<(String, Ipv4Addr)>)>, Error> {
    let table = table(&config.prefix);
    let mut all = Vec::new();
    for map in ["ports", "address-ports"] {
        all.push((map, elements_of(&nft::query(&["list", "map", "ip", &table, map]).await?)));
    }
    Ok(all)
}

/// Elements of a listed map and the pods that they lead to.
fn elements_of(listing: &str) -> Vec<(String, Ipv4Addr)> {
    let Some((_, body)) = listing.split_once("elements = {") else { return Vec::new() };
    let body = body.split('}').next().unwrap_or_default();
    body.split(',')
        .filter_map(|element| {
            let (key, target) = element.split_once(" : ")?;
            let pod = target.trim().split(' ').next()?.parse().ok()?;
            Some((format!("{} : {}", key.trim(), target.trim()), pod))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_with_their_pods() {
        let listing = "table ip t {\n\tmap ports {\n\t\ttype inet_proto . inet_service : ipv4_addr . inet_service\n\t\telements = { tcp . 80 : 10.0.0.2 . 8080,\n\t\t\t     udp . 53 : 10.0.0.22 . 53 }\n\t}\n}\n";
        let expected = [
            ("tcp . 80 : 10.0.0.2 . 8080".to_string(), Ipv4Addr::new(10, 0, 0, 2)),
            ("udp . 53 : 10.0.0.22 . 53".to_string(), Ipv4Addr::new(10, 0, 0, 22)),
        ];
        assert_eq!(elements_of(listing), expected);
        assert_eq!(elements_of("table ip t {}"), []);
    }
}
