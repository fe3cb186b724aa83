//! Forgetting connections of UDP clients whose endpoint is gone: they would be sent there for ever.

use std::net::Ipv4Addr;

use tokio::process::Command;

use super::model::{Desired, Target};

/// Connections to forget: those to a Service's address that were sent to a target, or (`None`) that were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stale {
    service: (Option<Ipv4Addr>, u16),
    target: Option<Target>,
}

/// What became stale between two states of a Service.
pub(super) fn stale(old: &Desired, new: &Desired) -> Vec<Stale> {
    let mut all = Vec::new();
    for (service, targets) in &old.udp {
        let left = new.udp.get(service);
        for target in targets.iter().filter(|target| left.is_none_or(|left| !left.contains(target))) {
            all.push(Stale { service: *service, target: Some(*target) });
        }
    }
    // What was sent while there was no endpoint is remembered as not translated.
    all.extend(
        new.udp
            .keys()
            .filter(|service| !old.udp.contains_key(service))
            .map(|service| Stale { service: *service, target: None }),
    );
    all
}

pub(super) async fn forget(all: &[Stale]) {
    for Stale { service: (address, port), target } in all {
        let mut command = Command::new("conntrack");
        command.args(["-D", "-p", "udp", "--orig-port-dst", &port.to_string()]);
        if let Some(address) = address {
            command.args(["--orig-dst", &address.to_string()]);
        }
        if let Some((target, _)) = target {
            command.args(["--dst-nat", &target.to_string()]);
        }
        match command.output().await {
            Ok(output) if output.status.success() => {}
            // Exit code 1: there were none.
            Ok(output) if output.status.code() == Some(1) => {}
            Ok(output) => {
                tracing::warn!(?address, port, "conntrack: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Err(error) => {
                tracing::warn!(?address, port, %error, "cannot start conntrack: UDP clients may talk to a gone pod");
            }
        }
    }
}
