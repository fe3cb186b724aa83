//! The history of a DaemonSet's or StatefulSet's Pod template, kept as ControllerRevisions.
//!
//! A revision holds the patch `{"spec": {"template": {..., "$patch": "replace"}}}` that `kubectl rollout undo` applies.
//! Its name follows from the template, so it is never made twice; a name taken by another template raises the
//! collision count, which goes into the owner's status.

use std::sync::Arc;

use client::{Informer, Key, Object};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::{
    Error,
    kinds::{LabelSelector, ObjectMeta, apps::ControllerRevision, core::PodTemplateSpec},
    meta::{Meta, controller_reference},
    pods::{claim, hash},
    write::Writer,
};

/// On Pods: the revision they were made from.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";

/// The revisions of one owner.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// The revision of the present template.
    pub(crate) latest: Arc<ControllerRevision>,
    /// All others, oldest first.
    pub(crate) others: Vec<Arc<ControllerRevision>>,
    /// To be kept in the owner's status.
    pub(crate) collisions: Option<i32>,
}

/// What the history needs to know of its owner.
pub(crate) struct Source<'a, O> {
    pub(crate) owner: &'a O,
    pub(crate) selector: &'a LabelSelector,
    pub(crate) template: &'a PodTemplateSpec,
    pub(crate) collisions: Option<i32>,
    /// The label that carries the hash on the revision.
    pub(crate) hash_label: &'static str,
}

fn patch_of(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

fn data(revision: &ControllerRevision) -> Value {
    revision.data.as_ref().map(|d| d.0.clone()).unwrap_or_default()
}

fn same(revision: &ControllerRevision, patch: &Value) -> bool {
    hash::canonical(&data(revision)) == hash::canonical(patch)
}

/// The template that a revision keeps.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = data(revision).get_mut("spec")?.get_mut("template")?.take();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Finds or makes the revision of the present template; a template that returns becomes the newest revision again.
pub(crate) async fn sync<O: Object>(
    writer: &Writer,
    informer: &Informer<ControllerRevision>,
    source: Source<'_, O>,
) -> Result<History, Error> {
    let mut all = claim::claim(writer, source.owner, source.selector, informer, |_| true).await?;
    all.sort_by(|a, b| (a.revision, a.created(), a.name()).cmp(&(b.revision, b.created(), b.name())));
    let patch = patch_of(source.template);
    let newest = all.last().map_or(0, |r| r.revision);
    let Some(index) = all.iter().rposition(|r| same(r, &patch)) else {
        let (made, collisions) = create(writer, &source, &patch, newest + 1).await?;
        return Ok(History { latest: Arc::new(made), others: all, collisions });
    };
    let mut latest = all.remove(index);
    if latest.revision < newest {
        let mut next = ControllerRevision::clone(&latest);
        next.revision = newest + 1;
        latest = Arc::new(writer.update(&next).await?);
    }
    Ok(History { latest, others: all, collisions: source.collisions })
}

async fn create<O: Object>(
    writer: &Writer,
    source: &Source<'_, O>,
    patch: &Value,
    number: i64,
) -> Result<(ControllerRevision, Option<i32>), Error> {
    let mut collisions = source.collisions;
    loop {
        let hash = hash::of(source.template, collisions);
        let mut labels = source.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        labels.insert(source.hash_label.to_owned(), hash.clone());
        let base: String = source.owner.name().chars().take(223).collect();
        let revision = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{base}-{hash}")),
                namespace: Some(source.owner.namespace().to_owned()),
                labels: Some(labels),
                annotations: source.owner.meta().annotations.clone(),
                owner_references: Some(vec![controller_reference(source.owner)]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(patch.clone())),
            revision: number,
        };
        match writer.create(&revision).await {
            Ok(made) => return Ok((made, collisions)),
            Err(error) if error.is_already_exists() => {
                let key = Key::new(source.owner.namespace(), revision.name());
                match writer.get::<ControllerRevision>(&key).await? {
                    Some(found) if found.controller_uid() == Some(source.owner.uid()) && same(&found, patch) => {
                        return Ok((found, collisions));
                    }
                    Some(_) => collisions = Some(collisions.unwrap_or(0) + 1),
                    None => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Drops the oldest revisions beyond `limit` that nothing refers to.
pub(crate) async fn clean_up(
    writer: &Writer,
    history: &History,
    limit: i32,
    in_use: impl Fn(&ControllerRevision) -> bool,
) -> Result<(), Error> {
    let idle: Vec<_> = history.others.iter().filter(|r| !in_use(r)).collect();
    let excess = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    for revision in &idle[..excess] {
        writer.delete::<ControllerRevision>(&revision.key(), Some(revision.uid())).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    #[test]
    fn a_template_survives_its_patch() {
        let original: PodTemplateSpec = from_value(json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}))
        .expect("template");
        let patch = patch_of(&original);
        assert_eq!(patch["spec"]["template"]["$patch"], "replace");
        let revision = ControllerRevision { data: Some(RawExtension(patch.clone())), ..ControllerRevision::default() };
        assert!(same(&revision, &patch));
        assert_eq!(template(&revision), Some(original));
    }
}
