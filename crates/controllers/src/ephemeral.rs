//! Makes the claims of Pods' ephemeral volumes. The Pod owns them, so they go with it.
//!
//! Reads: Pod, PersistentVolumeClaim.  Writes: PersistentVolumeClaim.

use std::sync::Arc;

use client::{Informer, Key, reference};
use tokio::task::JoinHandle;

use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::{
        ObjectMeta,
        core::{PersistentVolumeClaim, Pod},
    },
    meta::{self, Meta, controller_reference},
    pods::state,
};

fn has_ephemeral(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|v| v.ephemeral.is_some())
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let pods = driver.watch::<Pod>(|change, queue| {
        if change.new.as_ref().is_some_and(|p| has_ephemeral(p) && state::is_active(p)) {
            driver::wake(change, queue);
        }
    });
    let claims = driver.watch::<PersistentVolumeClaim>(|change, queue| {
        if change.new.is_none()
            && let Some(owner) = change.old.as_deref().and_then(meta::owner_key::<Pod>)
        {
            queue.add(owner);
        }
    });
    let scope = Arc::new(scope);
    vec![driver.run(4, move |key| {
        let (scope, pods, claims) = (scope.clone(), pods.clone(), claims.clone());
        async move { pass(&scope, &pods, &claims, key).await }
    })]
}

async fn pass(scope: &Scope, pods: &Informer<Pod>, claims: &Informer<PersistentVolumeClaim>, key: Key) -> Outcome {
    let Some(pod) = pods.get(&key).filter(|p| state::is_active(p)) else { return Ok(None) };
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    for volume in volumes {
        let Some(template) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) else { continue };
        let name = format!("{}-{}", pod.name(), volume.name);
        if let Some(claim) = claims.get(&Key::new(&*key.namespace, &*name)) {
            if claim.controller_uid() != Some(pod.uid()) {
                return Err(Error::Object {
                    kind: "Pod",
                    key: key.clone(),
                    why: format!("claim {name} of volume {} was not made for this pod", volume.name),
                });
            }
            continue;
        }
        let given = template.metadata.clone().unwrap_or_default();
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(key.namespace.clone()),
                labels: given.labels,
                annotations: given.annotations,
                owner_references: Some(vec![controller_reference(&*pod)]),
                ..ObjectMeta::default()
            },
            spec: Some(template.spec.clone()),
            status: None,
        };
        match scope.writer.create(&claim).await {
            Err(error) if error.is_already_exists() => {}
            Err(error) => {
                let text = format!("ephemeral volume {}: create PVC: {}", volume.name, error.message());
                scope.recorder.warning(&reference(&*pod), "FailedCreate", text);
                return Err(error);
            }
            Ok(_) => {}
        }
    }
    Ok(None)
}
