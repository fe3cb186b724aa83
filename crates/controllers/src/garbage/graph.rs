//! Who owns whom, by uid.
//!
//! Built from metadata events alone. An owner that is named by a dependent but has not been seen is *virtual*: its
//! existence has to be checked at the API. [`Graph::apply`] returns what an event makes worth looking at; the decisions
//! themselves are made later against live objects.

use std::collections::{BTreeSet, HashMap};

use client::Key;

use crate::{
    kinds::OwnerReference,
    resources::{Resource, SlimMeta},
};

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// Index into the collector's table of resources.
pub(super) type ResourceId = u32;

/// An object, or an owner that is only known by reference.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// `None` for a virtual owner whose kind is not known to be served.
    pub(super) resource: Option<ResourceId>,
    pub(super) key: KeyParts,
    /// How dependents name a virtual owner: `(apiVersion, kind)`.
    pub(super) named_as: Option<(String, String)>,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) dependents: BTreeSet<String>,
    pub(super) deleting: bool,
    pub(super) foreground: bool,
    orphaning: bool,
    pub(super) is_virtual: bool,
}

/// Namespace and name; cheap to be default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyParts {
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
}

impl KeyParts {
    pub(super) fn key(&self) -> Key {
        Key::new(&*self.namespace, &*self.name)
    }
}

/// What to look at next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Work {
    /// Decide whether the object with this uid may live.
    Judge(String),
    /// Free the dependents of the object with this uid.
    Orphan(String),
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Judge(uid) => write!(f, "judge {uid}"),
            Self::Orphan(uid) => write!(f, "orphan {uid}"),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The uids of observed objects of one resource.
    pub(super) fn uids_of(&self, resource: ResourceId) -> Vec<String> {
        let mine = self.nodes.iter().filter(|(_, n)| n.resource == Some(resource) && !n.is_virtual);
        mine.map(|(uid, _)| uid.clone()).collect()
    }

    /// Takes in an object that exists.
    pub(super) fn apply(&mut self, resource: ResourceId, meta: &SlimMeta) -> Vec<Work> {
        let mut work = Vec::new();
        let uid = meta.uid.clone();
        let key = KeyParts { namespace: meta.namespace.as_str().into(), name: meta.name.as_str().into() };
        let node = self.nodes.entry(uid.clone()).or_default();
        if node.is_virtual {
            // Dependents elsewhere named it, but an owner in another namespace is no owner.
            work.extend(node.dependents.iter().cloned().map(Work::Judge));
        }
        let former = std::mem::replace(&mut node.owners, meta.owner_references.clone());
        let was_foreground = node.foreground;
        let was_orphaning = node.orphaning;
        node.resource = Some(resource);
        node.key = key;
        node.named_as = None;
        node.is_virtual = false;
        node.deleting = meta.deletion_timestamp.is_some();
        let held_by = |finalizer: &str| node.deleting && meta.finalizers.iter().any(|f| f == finalizer);
        node.foreground = held_by(FOREGROUND);
        node.orphaning = held_by(ORPHAN);
        if node.foreground && !was_foreground {
            work.extend(node.dependents.iter().cloned().map(Work::Judge));
            work.push(Work::Judge(uid.clone()));
        }
        if node.orphaning && !was_orphaning {
            work.push(Work::Orphan(uid.clone()));
        }
        self.link(&uid, &former, &meta.owner_references, &mut work);
        work
    }

    fn link(&mut self, uid: &str, former: &[OwnerReference], owners: &[OwnerReference], work: &mut Vec<Work>) {
        for gone in former.iter().filter(|f| !owners.iter().any(|o| o.uid == f.uid)) {
            self.unlink(uid, &gone.uid, work);
        }
        for owner in owners {
            let before = former.iter().find(|f| f.uid == owner.uid);
            let unblocked = before.is_some_and(|b| b.block_owner_deletion == Some(true))
                && owner.block_owner_deletion != Some(true);
            let child_namespace = self.nodes.get(uid).map(|n| n.key.namespace.clone()).unwrap_or_default();
            let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| {
                work.push(Work::Judge(owner.uid.clone()));
                Node {
                    key: KeyParts { namespace: child_namespace.clone(), name: owner.name.as_str().into() },
                    named_as: Some((owner.api_version.clone(), owner.kind.clone())),
                    is_virtual: true,
                    ..Node::default()
                }
            });
            let new = node.dependents.insert(uid.to_owned());
            if unblocked && node.foreground {
                work.push(Work::Judge(owner.uid.clone()));
            }
            let elsewhere = !node.is_virtual && !node.key.namespace.is_empty() && node.key.namespace != child_namespace
                || node.key.name.as_ref() != owner.name.as_str();
            if new && (node.foreground || elsewhere) {
                work.push(Work::Judge(uid.to_owned()));
            }
        }
    }

    fn unlink(&mut self, uid: &str, owner: &str, work: &mut Vec<Work>) {
        let Some(node) = self.nodes.get_mut(owner) else { return };
        node.dependents.remove(uid);
        if node.foreground {
            work.push(Work::Judge(owner.to_owned()));
        }
        if node.is_virtual && node.dependents.is_empty() {
            self.nodes.remove(owner);
        }
    }

    /// Takes in that the object is gone. Dependents lose their owner and have to be judged.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Work> {
        let mut work = Vec::new();
        let Some(node) = self.nodes.remove(uid) else { return work };
        for owner in &node.owners {
            self.unlink(uid, &owner.uid, &mut work);
        }
        work.extend(node.dependents.iter().cloned().map(Work::Judge));
        if !node.dependents.is_empty() {
            // Dependents still name it; a placeholder keeps the links until they are gone or have let go.
            let placeholder = Node {
                key: node.key,
                resource: node.resource,
                named_as: node.named_as,
                dependents: node.dependents,
                is_virtual: true,
                ..Node::default()
            };
            self.nodes.insert(uid.to_owned(), placeholder);
        }
        work
    }

    /// Dependents that hold up the deletion of this owner.
    pub(super) fn blocking(&self, uid: &str) -> Vec<String> {
        let blocks = |dependent: &String| {
            let owners = self.nodes.get(dependent).map(|n| n.owners.as_slice()).unwrap_or_default();
            owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
        };
        self.nodes.get(uid).into_iter().flat_map(|n| &n.dependents).filter(|d| blocks(d)).cloned().collect()
    }
}

/// What the collector knows of one of an object's owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Alive,
    /// Deleted in the foreground, waiting for its dependents.
    Waiting,
    Absent,
}

/// What becomes of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Remove the references to these owners.
    LetGo(Vec<String>),
    /// Delete, dependents before the object itself.
    DeleteForeground,
    Delete,
}

/// The rule: an object lives as long as one of its owners does. A dead owner's reference goes when another is alive.
pub(super) fn verdict(owners: &[(String, Owner)], has_dependents: bool) -> Verdict {
    if owners.is_empty() {
        return Verdict::Keep;
    }
    let of = |kind: Owner| owners.iter().filter(move |(_, o)| *o == kind);
    if of(Owner::Alive).next().is_some() {
        let gone: Vec<String> = owners.iter().filter(|(_, o)| *o != Owner::Alive).map(|(uid, _)| uid.clone()).collect();
        return if gone.is_empty() { Verdict::Keep } else { Verdict::LetGo(gone) };
    }
    if of(Owner::Waiting).next().is_some() && has_dependents {
        return Verdict::DeleteForeground;
    }
    Verdict::Delete
}

/// Finds the resource for `(apiVersion, kind)` of a reference.
pub(super) fn resolve(resources: &[Resource], api_version: &str, kind: &str) -> Option<ResourceId> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let found = resources.iter().position(|r| r.group == group && r.kind == kind)?;
    ResourceId::try_from(found).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn meta(uid: &str, owners: &[&str], extra: Value) -> SlimMeta {
        let owners: Vec<_> = owners
            .iter()
            .map(|o| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o, "uid": o, "blockOwnerDeletion": true}))
            .collect();
        let mut value = json!({"name": uid, "namespace": "ns", "uid": uid, "ownerReferences": owners});
        value.as_object_mut().expect("object").extend(extra.as_object().cloned().unwrap_or_default());
        from_value(value).expect("meta")
    }

    fn judged(work: &[Work]) -> Vec<&str> {
        work.iter()
            .map(|w| match w {
                Work::Judge(uid) | Work::Orphan(uid) => uid.as_str(),
            })
            .collect()
    }

    #[test]
    fn an_unseen_owner_is_checked_and_its_loss_judges_dependents() {
        let mut graph = Graph::default();
        assert_eq!(judged(&graph.apply(0, &meta("pod", &["set"], json!({})))), ["set"]);
        assert!(graph.get("set").expect("virtual").is_virtual);
        assert_eq!(judged(&graph.apply(1, &meta("set", &[], json!({})))), ["pod"]);
        assert_eq!(judged(&graph.remove("set")), ["pod"]);
        assert!(graph.remove("pod").is_empty());
        assert!(graph.nodes.is_empty(), "nothing is left behind");
    }

    #[test]
    fn foreground_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        graph.apply(0, &meta("set", &[], json!({})));
        graph.apply(1, &meta("pod", &["set"], json!({})));
        let dying = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        assert_eq!(judged(&graph.apply(0, &meta("set", &[], dying.clone()))), ["pod", "set"]);
        assert!(graph.apply(0, &meta("set", &[], dying)).is_empty(), "once is enough");
        assert_eq!(graph.blocking("set"), ["pod"]);
        assert_eq!(judged(&graph.remove("pod")), ["set"]);
        assert!(graph.blocking("set").is_empty());
    }

    #[test]
    fn orphaning() {
        let mut graph = Graph::default();
        graph.apply(0, &meta("set", &[], json!({})));
        let dying = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [ORPHAN]});
        assert_eq!(graph.apply(0, &meta("set", &[], dying)), [Work::Orphan("set".into())]);
    }

    #[test]
    fn verdicts() {
        use Owner::{Absent, Alive, Waiting};
        let cases: [(&[Owner], bool, Verdict); 8] = [
            (&[], false, Verdict::Keep),
            (&[Alive], true, Verdict::Keep),
            (&[Alive, Absent], true, Verdict::LetGo(vec!["1".into()])),
            (&[Waiting, Alive], false, Verdict::LetGo(vec!["0".into()])),
            (&[Absent], true, Verdict::Delete),
            (&[Waiting], false, Verdict::Delete),
            (&[Waiting], true, Verdict::DeleteForeground),
            (&[Absent, Waiting], true, Verdict::DeleteForeground),
        ];
        for (owners, dependents, expected) in cases {
            let named: Vec<_> = owners.iter().enumerate().map(|(i, o)| (i.to_string(), *o)).collect();
            assert_eq!(verdict(&named, dependents), expected, "{owners:?}");
        }
    }
}
