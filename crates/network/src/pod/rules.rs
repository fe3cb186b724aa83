//! The pod network's nftables: masquerade and host ports.
//!
//! ```text
//! prerouting, output   to an address of the node: (protocol . port) -> (pod . port), narrower addresses first
//! postrouting          from pods to the world, from a pod to itself, and node ports: masquerade
//! forward              from and to pods: accepted
//! ```

use std::net::Ipv4Addr;

use super::{Config, Error, HostPort};
use crate::nft;

pub(super) fn table(prefix: &str) -> String {
    format!("navarch-{prefix}-pods")
}

/// Makes the chains; host ports that are there stay.
pub(super) async fn base(config: &Config, bridge: &str) -> Result<(), Error> {
    Ok(nft::apply(&base_text(config, bridge)).await?)
}

fn base_text(config: &Config, bridge: &str) -> String {
    let table = table(&config.prefix);
    let (pods, cluster) = (config.cidr, config.cluster_cidr);
    format!(
        "table ip {table} {{
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map address-ports {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain prerouting {{ type nat hook prerouting priority -95; }}
  chain output {{ type nat hook output priority -95; }}
  chain postrouting {{ type nat hook postrouting priority 105; }}
  chain forward {{ type filter hook forward priority -5; }}
}}
flush chain ip {table} prerouting
flush chain ip {table} output
flush chain ip {table} postrouting
flush chain ip {table} forward
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
    ct status dnat ip saddr {pods} ip daddr {pods} masquerade
    ct status dnat ip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade
  }}
  chain forward {{
    iifname \"{bridge}\" accept
    oifname \"{bridge}\" accept
  }}
}}
"
    )
}

pub(super) async fn add_host_ports(config: &Config, pod: Ipv4Addr, ports: &[HostPort]) -> Result<(), Error> {
    // What an earlier owner of the address left would be in the way.
    remove_host_ports(config, pod).await?;
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
    for map in ["ports", "address-ports"] {
        let listing = nft::query(&["list", "map", "ip", &table, map]).await?;
        for element in elements_of(&listing, pod) {
            text += &format!("delete element ip {table} {map} {{ {element} }}\n");
        }
    }
    if text.is_empty() { Ok(()) } else { Ok(nft::apply(&text).await?) }
}

/// Keys of a listed map that lead to `pod`.
fn elements_of(listing: &str, pod: Ipv4Addr) -> Vec<String> {
    let Some((_, body)) = listing.split_once("elements = {") else { return Vec::new() };
    let body = body.split('}').next().unwrap_or_default();
    let wanted = format!("{pod} ");
    body.split(',')
        .filter_map(|element| element.split_once(" : "))
        .filter(|(_, target)| target.trim_start().starts_with(&wanted))
        .map(|(key, target)| format!("{} : {}", key.trim(), target.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_their_pod() {
        let listing = "table ip t {\n\tmap ports {\n\t\ttype inet_proto . inet_service : ipv4_addr . inet_service\n\t\telements = { tcp . 80 : 10.0.0.2 . 8080,\n\t\t\t     udp . 53 : 10.0.0.22 . 53 }\n\t}\n}\n";
        assert_eq!(elements_of(listing, Ipv4Addr::new(10, 0, 0, 2)), ["tcp . 80 : 10.0.0.2 . 8080"]);
        assert_eq!(elements_of("table ip t {}", Ipv4Addr::new(10, 0, 0, 2)), [""; 0]);
    }
}
