//! Pods made from templates, and the events that tell of them.

use client::{Key, Object, Recorder, reference};

use crate::{
    Error,
    kinds::{
        ObjectMeta,
        core::{Pod, PodTemplateSpec},
    },
    meta::{Meta, controller_reference},
    write::Writer,
};

/// A Pod of `owner`, named by the server after the owner.
pub(crate) fn pod<K: Object>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name())),
            namespace: Some(owner.namespace().to_owned()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creates and deletes Pods for one owner and tells so in events about it.
pub(crate) struct PodWriter<'a> {
    pub(crate) writer: &'a Writer,
    pub(crate) recorder: &'a Recorder,
}

impl PodWriter<'_> {
    pub(crate) async fn create<K: Object>(&self, owner: &K, pod: &Pod) -> Result<Pod, Error> {
        match self.writer.create(pod).await {
            Ok(made) => {
                self.recorder.normal(&reference(owner), "SuccessfulCreate", format!("Created pod: {}", made.name()));
                Ok(made)
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let text = format!("Error creating: {}", error.message());
                    self.recorder.warning(&reference(owner), "FailedCreate", text);
                }
                Err(error)
            }
        }
    }

    pub(crate) async fn delete<K: Object>(&self, owner: &K, pod: &Pod) -> Result<(), Error> {
        let key = Key::new(pod.namespace(), pod.name());
        match self.writer.delete::<Pod>(&key, None).await {
            Ok(()) => {
                self.recorder.normal(&reference(owner), "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            Err(error) => {
                let text = format!("Error deleting: {}", error.message());
                self.recorder.warning(&reference(owner), "FailedDelete", text);
                Err(error)
            }
        }
    }
}
