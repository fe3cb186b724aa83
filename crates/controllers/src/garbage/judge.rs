//! Decides about one object, from what the API says now.

use client::Key;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Value, json};

use super::{
    Collector,
    graph::{self, FOREGROUND, Node, ORPHAN, Owner, Verdict, Work},
};
use crate::{
    Error,
    driver::Outcome,
    kinds::OwnerReference,
    resources::{Resource, SlimMeta},
};

/// One object, found in the graph.
struct Subject {
    uid: String,
    node: Node,
    resource: Resource,
    key: Key,
}

pub(super) async fn pass(collector: &Collector, work: Work) -> Outcome {
    match work {
        Work::Judge(uid) => judge(collector, uid).await?,
        Work::Orphan(uid) => orphan(collector, &uid).await?,
    }
    Ok(None)
}

/// The resource and key of a node; a virtual owner's namespace is dropped if its kind has none.
fn subject(collector: &Collector, uid: &str) -> Result<Option<Subject>, Error> {
    let Some(node) = collector.graph.lock().get(uid).cloned() else { return Ok(None) };
    let table = collector.resources.read();
    let id = match (&node.named_as, node.resource) {
        (Some((api_version, kind)), _) => graph::resolve(&table, api_version, kind),
        (None, id) => id,
    };
    let resource = id.and_then(|id| table.get(usize::try_from(id).ok()?)).cloned();
    let Some(resource) = resource else {
        let named = node.named_as.map(|(version, kind)| format!("{version} {kind}")).unwrap_or_default();
        return Err(Error::Waiting(format!("kind {named} of owner {} is not served", node.key.name)));
    };
    let mut key = node.key.key();
    if !resource.namespaced {
        key.namespace = String::new();
    }
    Ok(Some(Subject { uid: uid.to_owned(), node, resource, key }))
}

async fn judge(collector: &Collector, uid: String) -> Result<(), Error> {
    let Some(subject) = subject(collector, &uid)? else { return Ok(()) };
    if subject.node.deleting && !subject.node.foreground {
        return Ok(());
    }
    let live = collector.anything.get(&subject.resource, &subject.key).await?;
    let Some(live) = live.filter(|m| m.uid == uid) else {
        // The dependents of an owner that never was, or is no more, are judged on their own.
        if subject.node.is_virtual {
            subject.node.dependents.iter().for_each(|d| collector.queue.add(Work::Judge(d.clone())));
        } else {
            let work = collector.graph.lock().remove(&uid);
            work.into_iter().for_each(|w| collector.queue.add(w));
        }
        return Ok(());
    };
    if subject.node.foreground {
        return finish_foreground(collector, &subject, &live).await;
    }
    if live.owner_references.is_empty() {
        return Ok(());
    }
    let mut owners = Vec::new();
    for reference in &live.owner_references {
        owners.push((reference.uid.clone(), state_of(collector, &subject, &live, reference).await?));
    }
    match graph::verdict(&owners, !subject.node.dependents.is_empty()) {
        Verdict::Keep => Ok(()),
        Verdict::LetGo(gone) => set_owners(collector, &subject.resource, &live, |o| !gone.contains(&o.uid)).await,
        Verdict::DeleteForeground => {
            break_circle(collector, &subject, &live).await?;
            delete(collector, &subject, &live, DeleteParams::foreground()).await
        }
        Verdict::Delete => {
            let params = match &live.finalizers {
                f if f.iter().any(|f| f == ORPHAN) => DeleteParams::orphan(),
                f if f.iter().any(|f| f == FOREGROUND) => DeleteParams::foreground(),
                _ => DeleteParams::background(),
            };
            delete(collector, &subject, &live, params).await
        }
    }
}

/// Whether the owner that a reference names lives, where a reference may name it: in the same namespace or in none.
async fn state_of(
    collector: &Collector,
    subject: &Subject,
    live: &SlimMeta,
    reference: &OwnerReference,
) -> Result<Owner, Error> {
    let resource = {
        let table = collector.resources.read();
        let id = graph::resolve(&table, &reference.api_version, &reference.kind);
        id.and_then(|id| table.get(usize::try_from(id).ok()?)).cloned()
    };
    let Some(resource) = resource else {
        return Err(Error::Waiting(format!(
            "kind {} {} of owner {} of {} is not served",
            reference.api_version, reference.kind, reference.name, subject.key
        )));
    };
    if resource.namespaced && live.namespace.is_empty() {
        // A cluster-scoped object cannot be owned by a namespaced one. It is left alone, and its owner told.
        warn_scope(collector, subject, live, reference);
        return Ok(Owner::Alive);
    }
    let namespace = if resource.namespaced { live.namespace.as_str() } else { "" };
    let elsewhere = {
        let graph = collector.graph.lock();
        graph.get(&reference.uid).is_some_and(|n| !n.is_virtual && &*n.key.namespace != namespace)
    };
    let owner = collector.anything.get(&resource, &Key::new(namespace, &*reference.name)).await?;
    Ok(match owner.filter(|o| o.uid == reference.uid) {
        None => {
            if elsewhere {
                warn_scope(collector, subject, live, reference);
            }
            Owner::Absent
        }
        Some(owner) if owner.deletion_timestamp.is_some() && owner.finalizers.iter().any(|f| f == FOREGROUND) => {
            Owner::Waiting
        }
        Some(_) => Owner::Alive,
    })
}

fn warn_scope(collector: &Collector, subject: &Subject, live: &SlimMeta, reference: &OwnerReference) {
    let about = ObjectReference {
        api_version: Some(subject.resource.api_version()),
        kind: Some(subject.resource.kind.clone()),
        namespace: Some(live.namespace.clone()).filter(|n| !n.is_empty()),
        name: Some(live.name.clone()),
        uid: Some(live.uid.clone()),
        ..ObjectReference::default()
    };
    let named = format!(
        "[{}/{}, namespace: {}, name: {}, uid: {}]",
        reference.api_version, reference.kind, live.namespace, reference.name, reference.uid
    );
    let text = format!("ownerRef {named} does not exist in namespace \"{}\"", live.namespace);
    collector.scope.recorder.warning(&about, "OwnerRefInvalidNamespace", text);
}

async fn delete(collector: &Collector, subject: &Subject, live: &SlimMeta, params: DeleteParams) -> Result<(), Error> {
    let exactly =
        Preconditions { uid: Some(subject.uid.clone()), resource_version: Some(live.resource_version.clone()) };
    collector.anything.delete(&subject.resource, &subject.key, Some(exactly), params).await
}

/// Lets an owner go that was deleted in the foreground, once nothing blocks it; until then judges what does.
async fn finish_foreground(collector: &Collector, subject: &Subject, live: &SlimMeta) -> Result<(), Error> {
    let blocking = collector.graph.lock().blocking(&subject.uid);
    if blocking.is_empty() {
        return drop_finalizer(collector, subject, live, FOREGROUND).await;
    }
    for dependent in blocking {
        let waits = collector.graph.lock().get(&dependent).is_some_and(|n| n.foreground);
        if !waits {
            collector.queue.add(Work::Judge(dependent));
        }
    }
    Ok(())
}

/// Owners that own each other and wait for each other would wait for ever: this one stops to block.
async fn break_circle(collector: &Collector, subject: &Subject, live: &SlimMeta) -> Result<(), Error> {
    let circle = {
        let graph = collector.graph.lock();
        subject.node.dependents.iter().any(|d| graph.get(d).is_some_and(|n| n.foreground))
    };
    if !circle {
        return Ok(());
    }
    let mut owners = live.owner_references.clone();
    owners.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
    patch(collector, &subject.resource, live, json!({"ownerReferences": owners})).await
}

/// Frees the dependents of an owner and then the owner itself.
async fn orphan(collector: &Collector, uid: &str) -> Result<(), Error> {
    let Some(owner) = subject(collector, uid)? else { return Ok(()) };
    for dependent in &owner.node.dependents {
        let Some(dependent) = subject(collector, dependent)? else { continue };
        let live = collector.anything.get(&dependent.resource, &dependent.key).await?;
        if let Some(live) = live.filter(|l| l.uid == dependent.uid && l.owner_references.iter().any(|o| o.uid == uid)) {
            set_owners(collector, &dependent.resource, &live, |o| o.uid != uid).await?;
        }
    }
    match collector.anything.get(&owner.resource, &owner.key).await? {
        Some(live) if live.uid == uid => drop_finalizer(collector, &owner, &live, ORPHAN).await,
        _ => Ok(()),
    }
}

async fn set_owners(
    collector: &Collector,
    resource: &Resource,
    live: &SlimMeta,
    keep: impl Fn(&OwnerReference) -> bool,
) -> Result<(), Error> {
    let owners: Vec<_> = live.owner_references.iter().filter(|o| keep(o)).collect();
    patch(collector, resource, live, json!({"ownerReferences": owners})).await
}

async fn drop_finalizer(
    collector: &Collector,
    subject: &Subject,
    live: &SlimMeta,
    finalizer: &str,
) -> Result<(), Error> {
    if !live.finalizers.iter().any(|f| f == finalizer) {
        return Ok(());
    }
    let rest: Vec<_> = live.finalizers.iter().filter(|f| *f != finalizer).collect();
    patch(collector, &subject.resource, live, json!({"finalizers": rest})).await
}

/// Patches metadata of exactly the version that was read.
async fn patch(collector: &Collector, resource: &Resource, live: &SlimMeta, mut meta: Value) -> Result<(), Error> {
    meta["uid"] = json!(live.uid);
    meta["resourceVersion"] = json!(live.resource_version);
    match collector.anything.merge_patch(resource, &live.key(), json!({"metadata": meta})).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
