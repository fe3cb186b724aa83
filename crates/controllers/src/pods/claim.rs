//! Adoption and release: which objects belong to a controller by reference and selector.
//!
//! An object is owned if its controller reference carries the owner's uid and its labels match. One that has stopped
//! to match is released, a matching one without a controller is adopted, unless owner or object is being deleted.
//! Before the first adoption the owner is read past the cache: a new object of the same name must not inherit.

use std::sync::Arc;

use client::{Informer, Key, Object};
use serde_json::json;

use crate::{
    Error,
    kinds::LabelSelector,
    meta::{self, Meta},
    write::Writer,
};

/// What should happen to one candidate.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Adopt,
    Release,
    Ignore,
}

fn judge<O: Object, K: Object>(owner: &O, selector: &LabelSelector, candidate: &K) -> Verdict {
    let matches = meta::selects(selector, candidate.labels());
    match candidate.controller_uid() {
        Some(uid) if uid != owner.uid() => Verdict::Ignore,
        Some(_) if matches => Verdict::Keep,
        Some(_) if owner.is_deleting() => Verdict::Ignore,
        Some(_) => Verdict::Release,
        None if matches && !owner.is_deleting() && !candidate.is_deleting() => Verdict::Adopt,
        None => Verdict::Ignore,
    }
}

/// Makes the informer answer [`claim`] without reading whole namespaces. To be called once before the first claim.
pub(crate) fn index<K: Object>(informer: &Informer<K>) {
    informer.add_index(meta::BY_CONTROLLER, meta::by_controller::<K>);
}

/// The objects of kind `K` that belong to `owner`, after adopting and releasing.
///
/// `accept` limits adoption further, beyond the selector (for StatefulSets: by name).
pub(crate) async fn claim<O: Object, K: Object>(
    writer: &Writer,
    owner: &O,
    selector: &LabelSelector,
    informer: &Informer<K>,
    accept: impl Fn(&K) -> bool,
) -> Result<Vec<Arc<K>>, Error> {
    let mut owned = Vec::new();
    let mut alive = None;
    let own = informer.by_index(meta::BY_CONTROLLER, owner.uid());
    let orphans = informer.by_index(meta::BY_CONTROLLER, &meta::orphans_of(owner.namespace()));
    for candidate in own.into_iter().chain(orphans) {
        match judge(owner, selector, &*candidate) {
            Verdict::Keep => owned.push(candidate),
            Verdict::Ignore => {}
            Verdict::Release => release(writer, owner, &*candidate).await?,
            Verdict::Adopt if accept(&candidate) => {
                if alive.is_none() {
                    alive = Some(is_current(writer, owner).await?);
                }
                if alive == Some(true) {
                    owned.extend(adopt(writer, owner, &*candidate).await?.map(Arc::new));
                }
            }
            Verdict::Adopt => {}
        }
    }
    Ok(owned)
}

/// Whether the API still holds this very owner, not on its way out.
pub(crate) async fn is_current<O: Object>(writer: &Writer, owner: &O) -> Result<bool, Error> {
    let fresh = writer.get::<O>(&Key::new(owner.namespace(), owner.name())).await?;
    Ok(fresh.is_some_and(|f| f.uid() == owner.uid() && !f.is_deleting()))
}

async fn adopt<O: Object, K: Object>(writer: &Writer, owner: &O, object: &K) -> Result<Option<K>, Error> {
    let patch = json!({"metadata": {"uid": object.uid(), "ownerReferences": [meta::controller_reference(owner)]}});
    gone_is_none(writer.patch::<K>(&object.key(), patch).await)
}

async fn release<O: Object, K: Object>(writer: &Writer, owner: &O, object: &K) -> Result<(), Error> {
    let patch = json!({"metadata": {"uid": object.uid(),
        "ownerReferences": [{"$patch": "delete", "uid": owner.uid()}]}});
    gone_is_none(writer.patch::<K>(&object.key(), patch).await).map(drop)
}

/// An object that has gone, or been replaced by another of its name, needs nothing from us.
fn gone_is_none<K>(result: Result<K, Error>) -> Result<Option<K>, Error> {
    match result {
        Err(error) if error.is_gone() => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value};

    use super::*;
    use crate::kinds::{apps::ReplicaSet, core::Pod};

    #[test]
    fn verdicts() {
        let owner = |deleting: bool| -> ReplicaSet {
            let mut value = json!({"metadata": {"name": "web", "uid": "u1"}});
            if deleting {
                value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            from_value(value).expect("owner")
        };
        let selector: LabelSelector = from_value(json!({"matchLabels": {"app": "web"}})).expect("selector");
        let by = |uid: &str| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true}]);
        let cases: [(bool, &str, Value, Value, Verdict); 8] = [
            (false, "web", by("u1"), Value::Null, Verdict::Keep),
            (false, "web", by("u2"), Value::Null, Verdict::Ignore),
            (false, "db", by("u1"), Value::Null, Verdict::Release),
            (true, "db", by("u1"), Value::Null, Verdict::Ignore),
            (false, "web", json!([]), Value::Null, Verdict::Adopt),
            (true, "web", json!([]), Value::Null, Verdict::Ignore),
            (false, "web", json!([]), json!("2026-01-01T00:00:00Z"), Verdict::Ignore),
            (false, "db", json!([]), Value::Null, Verdict::Ignore),
        ];
        for (deleting, app, owners, deleted, expected) in cases {
            let pod: Pod = from_value(json!({"metadata": {"labels": {"app": app}, "ownerReferences": owners,
                "deletionTimestamp": deleted}}))
            .expect("pod");
            assert_eq!(judge(&owner(deleting), &selector, &pod), expected, "{deleting} {app} {:?}", pod.metadata);
        }
    }
}
