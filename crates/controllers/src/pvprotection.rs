//! Keeps PersistentVolumes that are being deleted as long as they are bound.
//!
//! Reads: PersistentVolume.  Writes: the finalizer `kubernetes.io/pv-protection`.

use std::sync::Arc;

use client::Key;
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{self, Driver},
    kinds::core::PersistentVolume,
    meta::{self, Meta},
};

const FINALIZER: &str = "kubernetes.io/pv-protection";

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let volumes = driver.watch::<PersistentVolume>(driver::wake);
    let scope = Arc::new(scope);
    vec![driver.run(1, move |key| {
        let (scope, volumes) = (scope.clone(), volumes.clone());
        async move {
            let Some(volume) = volumes.get(&key) else { return Ok(None) };
            let protected = volume.has_finalizer(FINALIZER);
            let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
            let next = match (volume.is_deleting(), protected) {
                (true, true) if !bound => meta::without_finalizer(&*volume, FINALIZER),
                (false, false) => {
                    let mut next = PersistentVolume::clone(&volume);
                    next.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
                    next
                }
                _ => return Ok(None),
            };
            scope.writer.update(&next).await.map(|_| None)
        }
    })]
}
