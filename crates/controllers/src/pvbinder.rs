//! Binds claims to volumes: finds the smallest volume that fits, or asks the class's provisioner for a new one.
//!
//! Reads: PersistentVolumeClaim, PersistentVolume, StorageClass.
//! Writes: PersistentVolumeClaim, PersistentVolume and their status.
//! A binding is two-sided: the volume's `claimRef` first, then the claim's `volumeName`. Each write carries the version
//! that was read, and every half-done binding is completed from either side.

mod fit;

use std::{fmt, sync::Arc};

use client::{Informer, Key, Queue, reference};
use k8s_openapi::api::{core::v1::ObjectReference, storage::v1::StorageClass};
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{Driver, Outcome},
    kinds::core::{PersistentVolume, PersistentVolumeClaim},
    meta::Meta,
};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// One side of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Side {
    Claim(Key),
    Volume(Key),
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(key) => write!(f, "volume {key}"),
        }
    }
}

struct Loop {
    scope: Scope,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
}

fn claim_key(reference: &ObjectReference) -> Key {
    Key::new(reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default())
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Side>::new(&scope);
    let claims = driver.watch::<PersistentVolumeClaim>(|change, queue| {
        let Some(claim) = change.new.as_ref().or(change.old.as_ref()) else { return };
        if !volume_name(claim).is_empty() {
            queue.add(Side::Volume(Key::new("", volume_name(claim))));
        }
        queue.add(Side::Claim(claim.key()));
    });
    let volumes = driver.watch::<PersistentVolume>({
        let claims = claims.clone();
        move |change, queue| {
            let Some(volume) = change.new.as_ref().or(change.old.as_ref()) else { return };
            queue.add(Side::Volume(volume.key()));
            match claim_ref(volume) {
                Some(reference) => queue.add(Side::Claim(claim_key(reference))),
                None => wake_pending(&claims, queue),
            }
        }
    });
    let classes = driver.watch::<StorageClass>({
        let claims = claims.clone();
        move |_, queue| wake_pending(&claims, queue)
    });
    let this = Arc::new(Loop { scope, claims, volumes, classes });
    vec![driver.run(1, move |side| {
        let this = this.clone();
        async move {
            match side {
                Side::Claim(key) => this.claim(key).await,
                Side::Volume(key) => this.volume(key).await,
            }
        }
    })]
}

fn wake_pending(claims: &Informer<PersistentVolumeClaim>, queue: &Queue<Side>) {
    let unbound = claims.list().into_iter().filter(|c| c.annotation(BIND_COMPLETED).is_none());
    unbound.for_each(|c| queue.add(Side::Claim(c.key())));
}

impl Loop {
    async fn claim(&self, key: Key) -> Outcome {
        let Some(claim) = self.claims.get(&key).filter(|c| !c.is_deleting()) else { return Ok(None) };
        let volume = self.volumes.get(&Key::new("", volume_name(&claim)));
        let ours = |v: &PersistentVolume| claim_ref(v).is_some_and(|r| fit::is_reserved_for(r, &claim));
        if claim.annotation(BIND_COMPLETED).is_some() {
            return match volume {
                Some(volume) if claim_ref(&volume).is_none() || ours(&volume) => self.bind(&volume, &claim).await,
                Some(_) => {
                    let text = "Two claims are bound to the same volume, this one is bound incorrectly";
                    self.set_phase(&claim, "Lost", Some(("ClaimMisbound", text))).await
                }
                None => {
                    let text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
                    self.set_phase(&claim, "Lost", Some(("ClaimLost", text))).await
                }
            };
        }
        if volume_name(&claim).is_empty() {
            return self.find(&claim).await;
        }
        match volume {
            None => self.set_phase(&claim, "Pending", None).await,
            Some(volume) if ours(&volume) => self.bind(&volume, &claim).await,
            Some(volume) if claim_ref(&volume).is_none() => match fit::mismatch(&claim, &volume) {
                None => self.bind(&volume, &claim).await,
                Some(why) => {
                    let text = format!("Cannot bind to requested volume \"{}\": {why}", volume.name());
                    self.scope.recorder.warning(&reference(&*claim), "VolumeMismatch", text);
                    self.set_phase(&claim, "Pending", None).await
                }
            },
            Some(volume) => {
                let text = format!("volume \"{}\" already bound to a different claim.", volume.name());
                self.scope.recorder.warning(&reference(&*claim), "FailedBinding", text);
                self.set_phase(&claim, "Pending", None).await
            }
        }
    }

    /// Looks for a volume, and failing that asks for one.
    async fn find(&self, claim: &PersistentVolumeClaim) -> Outcome {
        let class_name = fit::class_of_claim(claim);
        let class = self.classes.get(&Key::new("", class_name));
        let waits = class.as_ref().and_then(|c| c.volume_binding_mode.as_deref()) == Some("WaitForFirstConsumer");
        let delayed = waits && claim.annotation(SELECTED_NODE).is_none();
        if let Some(volume) = fit::best(claim, &self.volumes.list(), delayed) {
            return self.bind(&volume, claim).await;
        }
        let (about, recorder) = (reference(claim), &self.scope.recorder);
        match class {
            _ if delayed => {
                let text = "waiting for first consumer to be created before binding";
                recorder.normal(&about, "WaitForFirstConsumer", text);
            }
            None if class_name.is_empty() => {
                let text = "no persistent volumes available for this claim and no storage class is set";
                recorder.normal(&about, "FailedBinding", text);
            }
            None => {
                let text = format!("storageclass.storage.k8s.io \"{class_name}\" not found");
                recorder.warning(&about, "ProvisioningFailed", text);
            }
            Some(class) if class.provisioner == NO_PROVISIONER => {}
            Some(class) => {
                let name = &class.provisioner;
                if claim.annotation(PROVISIONER) != Some(name) {
                    let mut next = claim.clone();
                    let annotations = next.metadata.annotations.get_or_insert_default();
                    for key in [PROVISIONER, PROVISIONER_BETA] {
                        annotations.insert(key.to_owned(), name.clone());
                    }
                    self.scope.writer.update(&next).await?;
                }
                let text = format!(
                    "Waiting for a volume to be created either by the external provisioner '{name}' or manually by the \
                     system administrator. If volume creation is delayed, please verify that the provisioner is running \
                     and correctly registered."
                );
                recorder.normal(&about, "ExternalProvisioning", text);
            }
        }
        self.set_phase(claim, "Pending", None).await
    }

    async fn set_phase(&self, claim: &PersistentVolumeClaim, phase: &str, event: Option<(&str, &str)>) -> Outcome {
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some(phase) {
            let mut next = claim.clone();
            next.status.get_or_insert_default().phase = Some(phase.to_owned());
            self.scope.writer.update_status(&next).await?;
            if let Some((reason, text)) = event {
                self.scope.recorder.warning(&reference(claim), reason, text);
            }
        }
        Ok(None)
    }

    /// Completes both sides of a binding.
    async fn bind(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Outcome {
        let writer = &self.scope.writer;
        let mut volume = volume.clone();
        let known = claim_ref(&volume).and_then(|r| r.uid.as_deref());
        if known != Some(claim.uid()) {
            if claim_ref(&volume).is_none() {
                let annotations = volume.metadata.annotations.get_or_insert_default();
                annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
            }
            let mut target = reference(claim);
            target.resource_version.clone_from(&claim.metadata.resource_version);
            volume.spec.get_or_insert_default().claim_ref = Some(target);
            volume = writer.update(&volume).await?;
        }
        volume = self.set_volume_phase(volume, "Bound").await?;
        let mut next = claim.clone();
        let spec = next.spec.get_or_insert_default();
        let by_us = spec.volume_name.as_deref().is_none_or(str::is_empty);
        spec.volume_name = Some(volume.name().to_owned());
        let annotations = next.metadata.annotations.get_or_insert_default();
        annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
        if by_us {
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        if next != *claim {
            next = writer.update(&next).await?;
        }
        let before = next.status.clone();
        let status = next.status.get_or_insert_default();
        let offered = volume.spec.clone().unwrap_or_default();
        if status.phase.as_deref() != Some("Bound") {
            status.phase = Some("Bound".to_owned());
            status.access_modes = offered.access_modes;
            status.capacity = offered.capacity.map(|c| c.into_iter().filter(|(k, _)| k == "storage").collect());
            status.current_volume_attributes_class_name = offered.volume_attributes_class_name;
        }
        if next.status != before {
            writer.update_status(&next).await?;
        }
        Ok(None)
    }

    async fn set_volume_phase(
        &self,
        mut volume: PersistentVolume,
        phase: &str,
    ) -> Result<PersistentVolume, crate::Error> {
        let status = volume.status.get_or_insert_default();
        if status.phase.as_deref() == Some(phase) {
            return Ok(volume);
        }
        status.phase = Some(phase.to_owned());
        status.message = None;
        status.reason = None;
        self.scope.writer.update_status(&volume).await
    }

    async fn volume(&self, key: Key) -> Outcome {
        let Some(volume) = self.volumes.get(&key) else { return Ok(None) };
        let Some(target) = claim_ref(&volume) else {
            return self.set_volume_phase(PersistentVolume::clone(&volume), "Available").await.map(|_| None);
        };
        let Some(uid) = target.uid.as_deref().filter(|u| !u.is_empty()) else {
            // Reserved for a claim that has yet to come.
            return self.set_volume_phase(PersistentVolume::clone(&volume), "Available").await.map(|_| None);
        };
        let claim_key = claim_key(target);
        let mut claim = self.claims.get(&claim_key).map(|c| PersistentVolumeClaim::clone(&c));
        if claim.as_ref().is_none_or(|c| c.uid() != uid) {
            // The cache may be behind; giving away a volume in use would lose data.
            claim = self.scope.writer.get(&claim_key).await?;
        }
        let Some(claim) = claim.filter(|c| c.uid() == uid) else { return self.reclaim(&volume).await };
        if volume_name(&claim) == key.name {
            self.set_volume_phase(PersistentVolume::clone(&volume), "Bound").await?;
        } else if !volume_name(&claim).is_empty() && claim.annotation(BIND_COMPLETED).is_some() {
            return self.give_back(&volume).await;
        }
        Ok(None)
    }

    /// The claim took another volume: this one is free again.
    async fn give_back(&self, volume: &PersistentVolume) -> Outcome {
        if volume.annotation(PROVISIONED_BY).is_some() {
            return self.reclaim(volume).await;
        }
        let mut next = volume.clone();
        let by_us = volume.annotation(BOUND_BY_CONTROLLER).is_some();
        let spec = next.spec.get_or_insert_default();
        if by_us {
            spec.claim_ref = None;
            next.metadata.annotations.get_or_insert_default().remove(BOUND_BY_CONTROLLER);
        } else if let Some(target) = &mut spec.claim_ref {
            target.uid = None;
            target.resource_version = None;
        }
        let next = self.scope.writer.update(&next).await?;
        self.set_volume_phase(next, "Available").await.map(|_| None)
    }

    /// The claim is gone. Who provisioned the volume deletes it; here it is only marked.
    async fn reclaim(&self, volume: &PersistentVolume) -> Outcome {
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if phase == "Failed" {
            return Ok(None);
        }
        let released = self.set_volume_phase(volume.clone(), "Released").await?;
        let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
        let (reason, text) = match policy {
            Some("Recycle") => ("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned()),
            Some("Delete") if volume.annotation(PROVISIONED_BY).is_none() => {
                let name = volume.name();
                let text = format!(
                    "error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched"
                );
                ("VolumeFailedDelete", text)
            }
            _ => return Ok(None),
        };
        let mut failed = released;
        let status = failed.status.get_or_insert_default();
        status.phase = Some("Failed".to_owned());
        status.message = Some(text.clone());
        self.scope.writer.update_status(&failed).await?;
        self.scope.recorder.warning(&reference(volume), reason, text);
        Ok(None)
    }
}
