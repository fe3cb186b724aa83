//! Keeps PersistentVolumeClaims that are being deleted until no Pod uses them.
//!
//! Reads: PersistentVolumeClaim, Pod.  Writes: the finalizer `kubernetes.io/pvc-protection`.

use std::sync::Arc;

use client::{Informer, Key};
use kube::api::ListParams;
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::core::{PersistentVolumeClaim, Pod},
    meta::{self, Meta},
    pods::state,
};

const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// Index of Pods by the claims they name, as `NAMESPACE/NAME`.
pub(crate) const BY_CLAIM: &str = "claim";

pub(crate) fn by_claim(pod: &Pod) -> Vec<String> {
    claims(pod).map(|name| Key::new(pod.namespace(), name).to_string()).collect()
}

/// Names of the claims in the Pod's volumes, those of ephemeral volumes too.
pub(crate) fn claims(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter_map(|volume| {
        match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => Some(source.claim_name.clone()),
            (None, Some(_)) => Some(format!("{}-{}", pod.name(), volume.name)),
            (None, None) => None,
        }
    })
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let claims = driver.watch::<PersistentVolumeClaim>(driver::wake);
    let pods = driver.watch::<Pod>({
        let claims = claims.clone();
        move |change, queue| {
            let ended = change.new.as_ref().is_none_or(|p| state::is_terminal(p));
            let Some(pod) = change.new.as_ref().or(change.old.as_ref()).filter(|_| ended) else { return };
            for name in self::claims(pod) {
                let key = Key::new(pod.namespace(), name);
                if claims.get(&key).is_some_and(|c| c.is_deleting()) {
                    queue.add(key);
                }
            }
        }
    });
    pods.add_index(BY_CLAIM, by_claim);
    let scope = Arc::new(scope);
    vec![driver.run(4, move |key| {
        let (scope, claims, pods) = (scope.clone(), claims.clone(), pods.clone());
        async move { pass(&scope, &claims, &pods, key).await }
    })]
}

/// A Pod that was never placed mounts nothing.
fn uses(pod: &Pod, claim: &str) -> bool {
    !state::node_name(pod).is_empty() && claims(pod).any(|name| name == claim)
}

async fn pass(scope: &Scope, claims: &Informer<PersistentVolumeClaim>, pods: &Informer<Pod>, key: Key) -> Outcome {
    let Some(claim) = claims.get(&key) else { return Ok(None) };
    let protected = claim.has_finalizer(FINALIZER);
    if !claim.is_deleting() {
        if !protected {
            let mut next = PersistentVolumeClaim::clone(&claim);
            next.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
            scope.writer.update(&next).await?;
        }
        return Ok(None);
    }
    if !protected || pods.by_index(BY_CLAIM, &key.to_string()).iter().any(|p| uses(p, &key.name)) {
        return Ok(None);
    }
    // The cache may be behind; a Pod that is missed here would lose its data.
    let live = scope.writer.list::<Pod>(&key.namespace, &ListParams::default()).await?;
    if live.iter().any(|p| uses(p, &key.name)) {
        return Ok(None);
    }
    scope.writer.update(&meta::without_finalizer(&*claim, FINALIZER)).await.map(|_| None)
}
