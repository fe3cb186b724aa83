//! The pod network of one node: a bridge, a veth pair for each sandbox, addresses from the node's pod CIDR.
//!
//! ```text
//! pod netns                     node
//! eth0 10.42.0.7/24 ----veth--- nv1a2b3c4d --+
//!   default via 10.42.0.1                    +-- nv0 10.42.0.1/24 --- routing, masquerade --- the world
//! eth0 10.42.0.8/24 ----veth--- nv5e6f7a8b --+
//! ```
//!
//! Packets that leave the pod addresses are masqueraded; host ports are translated to the pod's. Hairpin mode lets a pod
//! reach itself through a Service.
//!
//! Invariants: an address belongs to a sandbox from before its interface exists until after it is gone, also across
//! restarts (one file for each address); everything in the kernel carries the prefix.

mod addresses;
mod links;
mod rules;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::nft;
use addresses::Addresses;

/// How the pod network of a node is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Begins the name of every link and table: `nv` gives the bridge `nv0`.
    pub prefix: String,
    /// The node's share of the cluster's pod addresses.
    pub cidr: Ipv4Net,
    /// All pods' addresses: among them nothing is masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// Where allocated addresses are remembered.
    pub state_dir: PathBuf,
    pub mtu: u32,
}

/// A port of the node that leads to a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub host_port: u16,
    /// Only on this address of the node, if given.
    pub host_ip: Option<IpAddr>,
    pub pod_port: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no address left in {cidr}: {used} are in use")]
    Exhausted { cidr: Ipv4Net, used: usize },
    #[error("cannot {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot {action} {link}")]
    Link { action: &'static str, link: String, source: rtnetlink::Error },
    #[error("cannot enter the network namespace {}", path.display())]
    Enter { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Rules(#[from] nft::Error),
}

/// The pod network of this node.
pub struct PodNetwork {
    config: Config,
    addresses: Mutex<Addresses>,
    /// Pods with host ports: others are taken off without a look at the rules.
    exposed: Mutex<HashSet<Ipv4Addr>>,
}

impl PodNetwork {
    /// Makes the bridge and the rules, or adopts those of an earlier process.
    pub async fn new(config: Config) -> Result<Self, Error> {
        let addresses = Addresses::open(&config.state_dir, config.cidr)?;
        let network = Self { config, addresses: Mutex::new(addresses), exposed: Mutex::default() };
        let bridged_seen = set_sysctls().await;
        links::bridge(&network.bridge(), network.gateway(), network.config.cidr.prefix_len(), network.config.mtu)
            .await?;
        rules::base(&network.config, &network.bridge(), bridged_seen).await?;
        *network.exposed.lock() = rules::pods_with_host_ports(&network.config).await?;
        Ok(network)
    }

    /// Name of the bridge.
    pub fn bridge(&self) -> String {
        bridge_name(&self.config.prefix)
    }

    /// The node's address on the bridge: the pods' default route.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.config.cidr)
    }

    /// Puts a further address on the bridge, so that this process can answer on it (the cluster DNS).
    pub async fn add_bridge_address(&self, address: Ipv4Addr) -> Result<(), Error> {
        links::add_address(&self.bridge(), address, 32).await
    }

    /// Sends packets for these addresses through the bridge, where the proxy finds them: Services work from the node
    /// itself even when it has no other route.
    pub async fn add_route(&self, to: Ipv4Net) -> Result<(), Error> {
        links::add_route(&self.bridge(), to, self.gateway()).await
    }

    /// Connects a sandbox; does nothing twice.
    pub async fn setup(&self, netns: &Path, sandbox: &str, ports: &[HostPort]) -> Result<Vec<IpAddr>, Error> {
        let address = self.addresses.lock().allocate(sandbox)?;
        let made = links::connect(&links::Pair {
            netns: netns.to_path_buf(),
            host_name: self.link_name(sandbox),
            bridge: self.bridge(),
            address,
            prefix_len: self.config.cidr.prefix_len(),
            gateway: self.gateway(),
            mtu: self.config.mtu,
        })
        .await;
        if let Err(error) = made {
            self.undo(sandbox).await;
            return Err(error);
        }
        if self.exposed.lock().remove(&address) {
            // What an earlier owner of the address left would be in the way.
            rules::remove_host_ports(&self.config, address).await?;
        }
        if !ports.is_empty() {
            self.exposed.lock().insert(address);
            if let Err(error) = rules::add_host_ports(&self.config, address, ports).await {
                self.undo(sandbox).await;
                return Err(error);
            }
        }
        Ok(vec![IpAddr::V4(address)])
    }

    /// After a failed setup, whose error is the one to tell.
    async fn undo(&self, sandbox: &str) {
        if let Err(error) = self.teardown(sandbox).await {
            tracing::warn!(sandbox, error = &error as &dyn std::error::Error, "left on the pod network");
        }
    }

    /// Takes a sandbox off the network; does nothing twice.
    pub async fn teardown(&self, sandbox: &str) -> Result<(), Error> {
        links::delete(&self.link_name(sandbox)).await?;
        let address = self.addresses.lock().address(sandbox);
        if let Some(address) = address.filter(|address| self.exposed.lock().contains(address)) {
            rules::remove_host_ports(&self.config, address).await?;
            self.exposed.lock().remove(&address);
        }
        self.addresses.lock().release(sandbox)
    }

    /// Takes everything off the network that belongs to none of `sandboxes`.
    pub async fn reconcile(&self, sandboxes: &[String]) -> Result<(), Error> {
        let leaked = self.addresses.lock().others(sandboxes);
        for sandbox in leaked {
            tracing::info!(sandbox, "taking a leftover off the pod network");
            self.teardown(&sandbox).await?;
        }
        let known: Vec<String> = sandboxes.iter().map(|sandbox| self.link_name(sandbox)).collect();
        for link in links::named(&self.config.prefix).await? {
            if link != self.bridge() && !known.contains(&link) {
                links::delete(&link).await?;
            }
        }
        Ok(())
    }

    /// A link's name holds at most 15 bytes: the prefix and eight digits of a digest.
    fn link_name(&self, sandbox: &str) -> String {
        let digest = Sha256::digest(sandbox.as_bytes());
        let digits: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("{}{digits}", self.config.prefix)
    }
}

/// Lets the kernel route for pods. Gives whether bridged packets pass through the rules.
async fn set_sysctls() -> bool {
    const BRIDGED: &str = "net/bridge/bridge-nf-call-iptables";
    set_sysctl("net/ipv4/ip_forward", "1");
    let known = || Path::new("/proc/sys").join(BRIDGED).exists();
    if !known() {
        // In a module on most distributions; the answer is whether the sysctl is there afterwards.
        let _ = tokio::process::Command::new("modprobe").arg("br_netfilter").output().await;
    }
    if !known() {
        tracing::warn!("no br_netfilter: behind a Service, pods see the node's address instead of the client pod's");
        return false;
    }
    set_sysctl(BRIDGED, "1")
}

/// Writes a sysctl unless it has the value, and gives whether it has it now.
pub(crate) fn set_sysctl(name: &str, value: &str) -> bool {
    let path = Path::new("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|current| current.trim() == value) {
        return true;
    }
    let written = std::fs::write(&path, value);
    if let Err(error) = &written {
        tracing::warn!(sysctl = name, value, %error, "cannot set");
    }
    written.is_ok()
}

fn bridge_name(prefix: &str) -> String {
    format!("{prefix}0")
}

fn gateway(cidr: Ipv4Net) -> Ipv4Addr {
    cidr.hosts().next().unwrap_or(cidr.network())
}

/// Removes everything with the prefix from the kernel, and the memory of addresses.
pub async fn remove_all(prefix: &str, state_dir: &Path) -> Result<(), Error> {
    for link in links::named(prefix).await? {
        links::delete(&link).await?;
    }
    nft::delete_table("ip", &rules::table(prefix)).await?;
    match std::fs::remove_dir_all(state_dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { action: "remove", path: state_dir.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
