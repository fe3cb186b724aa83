//! The node's lease: renewed every ten seconds, so that the control plane sees at once when a node falls silent.

use std::time::Duration;

use client::ErrorExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::shared::Shared;

const NAMESPACE: &str = "kube-node-lease";
const DURATION_SECONDS: i32 = 40;
const PERIOD: Duration = Duration::from_secs(10);
/// Between attempts after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Renews until dropped. `uid`: the Node's.
pub(crate) async fn renew(shared: &Shared, uid: &str) {
    let api: Api<Lease> = Api::namespaced(shared.client.clone(), NAMESPACE);
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        ticks.tick().await;
        while let Err(error) = once(&api, &shared.config.node_name, uid).await {
            if !told {
                warn!(error = &error as &dyn std::error::Error, "failed to renew the node's lease; will try again");
            }
            told = true;
            tokio::time::sleep(RETRY).await;
        }
        told = false;
        shared.metrics.heartbeat.set(Timestamp::now().as_second() as f64);
    }
}

async fn once(api: &Api<Lease>, node: &str, uid: &str) -> Result<(), kube::Error> {
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"holderIdentity": node, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now}});
    match api.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if error.is_not_found() => {}
        other => return other.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..Default::default()
    };
    let lease = Lease {
        metadata: ObjectMeta { name: Some(node.to_owned()), owner_references: Some(vec![owner]), ..Default::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(now),
            ..Default::default()
        }),
    };
    match api.create(&PostParams::default(), &lease).await {
        Err(error) if error.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}
