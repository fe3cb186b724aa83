//! Reports ServiceCIDRs ready, and keeps those that are being deleted while Services still have addresses of theirs
//! that no other range covers.
//!
//! Reads: ServiceCIDR, IPAddress.  Writes: ServiceCIDR, ServiceCIDR/status.

use std::{net::IpAddr, sync::Arc};

use client::{Informer, Key};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{Driver, Outcome},
    kinds::Condition,
    meta::{self, Meta},
};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

struct Loop {
    scope: Scope,
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let ranges = scope.context.informers.of::<ServiceCIDR>();
    driver.wait_for(&ranges);
    // A range may be freed by another that covers it, so a change of one concerns all.
    let wake_all = {
        let (queue, ranges) = (driver.queue(), ranges.clone());
        move || ranges.list().iter().for_each(|r| queue.add(r.key()))
    };
    ranges.on_change({
        let wake_all = wake_all.clone();
        move |_| wake_all()
    });
    let addresses = driver.watch::<IPAddress>({
        let ranges = ranges.clone();
        move |change, queue| {
            if change.new.is_none() {
                ranges.list().iter().filter(|r| r.is_deleting()).for_each(|r| queue.add(r.key()));
            }
        }
    });
    let this = Arc::new(Loop { scope, ranges, addresses });
    vec![driver.run(1, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

fn nets(range: &ServiceCIDR) -> Vec<IpNet> {
    range.spec.iter().flat_map(|s| s.cidrs.iter().flatten()).filter_map(|c| c.parse().ok()).collect()
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(range) = self.ranges.get(&key) else { return Ok(None) };
        let writer = &self.scope.writer;
        let (ready, reason, text) = if range.is_deleting() {
            if !range.has_finalizer(FINALIZER) {
                return Ok(None);
            }
            if !self.is_needed(&range) {
                writer.update(&meta::without_finalizer(&*range, FINALIZER)).await?;
                return Ok(None);
            }
            let text = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            ("False", "Terminating", text)
        } else {
            if !range.has_finalizer(FINALIZER) {
                let mut next = ServiceCIDR::clone(&range);
                next.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
                writer.update(&next).await?;
                return Ok(None);
            }
            ("True", "", "Kubernetes Service CIDR is ready")
        };
        let mut next = ServiceCIDR::clone(&range);
        let conditions = next.status.get_or_insert_default().conditions.get_or_insert_default();
        if conditions.iter().any(|c| c.type_ == "Ready" && c.status == ready) {
            return Ok(None);
        }
        conditions.retain(|c| c.type_ != "Ready");
        conditions.push(Condition {
            type_: "Ready".to_owned(),
            status: ready.to_owned(),
            reason: reason.to_owned(),
            message: text.to_owned(),
            last_transition_time: meta::time(self.scope.now()),
            observed_generation: None,
        });
        writer.update_status(&next).await.map(|_| None)
    }

    /// Whether an address in use lies in this range and in no other that stays.
    fn is_needed(&self, range: &ServiceCIDR) -> bool {
        let own = nets(range);
        let others: Vec<IpNet> = self
            .ranges
            .list()
            .iter()
            .filter(|r| r.name() != range.name() && !r.is_deleting())
            .flat_map(|r| nets(r))
            .collect();
        let used = self.addresses.list();
        let mut used = used.iter().filter_map(|a| a.name().parse::<IpAddr>().ok());
        used.any(|ip| own.iter().any(|n| n.contains(&ip)) && !others.iter().any(|n| n.contains(&ip)))
    }
}
