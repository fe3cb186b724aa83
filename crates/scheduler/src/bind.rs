//! Writing a decision down: volumes first, then the binding; or why there is none.

use std::sync::Arc;

use client::{Api, Client, ErrorExt, Recorder, reference};
use k8s_openapi::api::core::v1::{Binding, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{
    cluster::{NodeInfo, PodInfo},
    plugin::Listers,
    plugins::volumes::{self, Need},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to bind pod {pod} to node {node}")]
    Bind { pod: String, node: String, source: kube::Error },
    #[error("failed to reserve volumes for pod {pod}")]
    Reserve { pod: String, source: kube::Error },
    /// The claim was handed over; the pod is tried again when the claim is bound.
    #[error("waiting for claim {claim} of pod {pod} to be bound")]
    Waiting { pod: String, claim: String },
    #[error("volumes of pod {pod} changed: {why}")]
    Changed { pod: String, why: String },
}

/// Binds the pod to the node.
pub(crate) async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), Error> {
    let fail = |source| Error::Bind { pod: pod.key.to_string(), node: node.to_string(), source };
    let mut binding = Binding::default();
    binding.metadata.name = Some(pod.key.name.clone());
    binding.metadata.namespace = Some(pod.key.namespace.clone());
    binding.metadata.uid = Some(pod.uid.clone());
    binding.target.kind = Some("Node".into());
    binding.target.name = Some(node.to_string());
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.key.namespace);
    let answer: Result<serde_json::Value, _> =
        api.create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await;
    answer.map(drop).map_err(fail)
}

/// Reserves volumes for the claims that wait for their first consumer.
///
/// `Err(Waiting)`: the claims know their node now, but are not bound yet; a claim's change wakes the pod.
pub(crate) async fn reserve_volumes(
    client: &Client,
    listers: &Listers,
    pod: &PodInfo,
    node: &NodeInfo,
) -> Result<(), Error> {
    let Some(spec) = &pod.pod.spec else { return Ok(()) };
    let fail = |source| Error::Reserve { pod: pod.key.to_string(), source };
    let mut waiting = None;
    for name in volumes::claim_names(spec, &pod.key.name) {
        let changed = |why: String| Error::Changed { pod: pod.key.to_string(), why };
        let claim = listers
            .claims
            .get(&client::Key::new(pod.namespace(), &name))
            .ok_or_else(|| changed(format!("persistentvolumeclaim \"{name}\" not found")))?;
        let Need::First { claim, class, mut candidates } = volumes::need(&claim, listers).map_err(changed)? else {
            continue;
        };
        candidates.retain(|volume| volumes::reachable(volume, node));
        // The smallest volume that is large enough.
        match candidates.into_iter().min_by_key(|volume| api::volumes::capacity(volume)) {
            Some(volume) => reserve(client, &volume, &claim).await.map_err(fail)?,
            None if volumes::provisions(&class, node) => hand_over(client, &claim, &node.name).await.map_err(fail)?,
            None => return Err(changed(format!("no volume left for persistentvolumeclaim \"{name}\""))),
        }
        waiting = Some(name);
    }
    match waiting {
        Some(claim) => Err(Error::Waiting { pod: pod.key.to_string(), claim }),
        None => Ok(()),
    }
}

/// Points a static volume at the claim; the volume controller completes the binding.
async fn reserve(client: &Client, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), kube::Error> {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let patch = json!({
        "metadata": {"resourceVersion": volume.metadata.resource_version},
        "spec": {"claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace,
            "name": claim.metadata.name,
            "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
        }},
    });
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Tells the provisioner on which node the volume is wanted.
async fn hand_over(client: &Client, claim: &PersistentVolumeClaim, node: &str) -> Result<(), kube::Error> {
    const SELECTED: &str = "volume.kubernetes.io/selected-node";
    if claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED)).is_some_and(|known| known == node) {
        return Ok(());
    }
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let patch = json!({"metadata": {
        "resourceVersion": claim.metadata.resource_version,
        "annotations": {SELECTED: node},
    }});
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Sets the pod's PodScheduled condition to False, with the node that room is being made on, if any.
pub(crate) async fn report(client: &Client, pod: &PodInfo, reason: &str, message: &str, nominated: Option<&str>) {
    let status = pod.pod.status.as_ref();
    let known = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let current = known.iter().find(|condition| condition.type_ == "PodScheduled");
    let same = current.is_some_and(|condition| {
        condition.status == "False"
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message)
    });
    if same && nominated == status.and_then(|status| status.nominated_node_name.as_deref()) {
        return;
    }
    let since = current
        .filter(|condition| condition.status == "False")
        .and_then(|condition| condition.last_transition_time.clone());
    let since = since
        .unwrap_or_else(|| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::now()));
    let mut change = json!({"status": {"conditions": [{
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": pod.pod.metadata.generation,
    }]}});
    if let Some(node) = nominated {
        change["status"]["nominatedNodeName"] = node.into();
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
    let answer = api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(change)).await;
    if let Err(error) = answer
        && !error.is_not_found()
    {
        tracing::warn!(pod = %pod.key, error = &error as &dyn std::error::Error, "failed to report why a pod is unscheduled");
    }
}

/// Deletes a victim of preemption, saying why in its status and in an event.
pub(crate) async fn evict(client: &Client, recorder: &Recorder, victim: &Arc<PodInfo>, for_pod: &PodInfo, node: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), victim.namespace());
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    let condition = json!({"status": {"conditions": [{
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": message,
        "lastTransitionTime": k8s_openapi::jiff::Timestamp::now(),
    }]}});
    let marked = api.patch_status(&victim.key.name, &PatchParams::default(), &Patch::Strategic(condition)).await;
    let gone = match marked {
        Ok(_) => api.delete(&victim.key.name, &DeleteParams::default()).await.map(drop),
        Err(error) => Err(error),
    };
    match gone {
        Ok(()) => recorder.normal(
            &reference(&*victim.pod),
            "Preempted",
            format!("Preempted by pod {} on node {node}", for_pod.uid),
        ),
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            tracing::warn!(pod = %victim.key, error = &error as &dyn std::error::Error, "failed to preempt");
        }
    }
}
