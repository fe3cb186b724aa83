//! Empties namespaces that are being deleted and then lets them go.
//!
//! Reads: Namespace, Pod, everything with a namespace.  Writes: deletes everything with a namespace,
//! Namespace/status, Namespace/finalize.
//! Order: Pods first, and the rest only when they are gone, so that no Pod outlives what it depends on (network
//! policies, for one). What remains, and why, is told in the conditions.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::{Informer, Key};
use jiff::Timestamp;
use tokio::task::JoinHandle;

use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::core::{Namespace, NamespaceCondition, Pod},
    meta::{self, Meta},
    resources::{self, Anything, Discovered, Resource},
};

const FINALIZER: &str = "kubernetes";

/// When to look again at what cannot be watched.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_FOR_PODS: Duration = Duration::from_secs(5);

struct Loop {
    scope: Scope,
    namespaces: Informer<Namespace>,
    anything: Anything,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let namespaces = driver.watch::<Namespace>(|change, queue| {
        if change.new.as_ref().is_some_and(|n| n.is_deleting()) {
            driver::wake(change, queue);
        }
    });
    driver.watch::<Pod>({
        let namespaces = namespaces.clone();
        move |change, queue| {
            if let (Some(old), None) = (&change.old, &change.new) {
                let key = Key::new("", old.namespace());
                if namespaces.get(&key).is_some_and(|n| n.is_deleting()) {
                    queue.add(key);
                }
            }
        }
    });
    let anything = Anything::new(scope.writer.client().clone());
    let this = Arc::new(Loop { scope, namespaces, anything });
    vec![driver.run(10, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

/// What stands between a namespace and its end.
#[derive(Debug, Default)]
struct Remains {
    /// Objects by `resource.group`.
    resources: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    undiscovered: BTreeMap<String, String>,
    failures: Vec<String>,
    only_pods: bool,
}

impl Remains {
    fn nothing(&self) -> bool {
        self.resources.is_empty() && self.undiscovered.is_empty() && self.failures.is_empty()
    }
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(namespace) = self.namespaces.get(&key).filter(|n| n.is_deleting()) else { return Ok(None) };
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(None);
        }
        let discovered = resources::discover(self.anything.client()).await?;
        let remains = self.empty(&key.name, discovered).await;
        let writer = &self.scope.writer;
        let mut next = Namespace::clone(&namespace);
        set_conditions(&mut next, &remains, self.scope.now());
        if next.status != namespace.status {
            next = writer.update_status(&next).await?;
        }
        if !remains.nothing() {
            return Ok(Some(if remains.only_pods { AGAIN_FOR_PODS } else { AGAIN }));
        }
        next.spec.get_or_insert_default().finalizers =
            Some(finalizers.into_iter().filter(|f| f != FINALIZER).collect());
        match writer.update_subresource("finalize", &next).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(|_| None),
        }
    }

    async fn empty(&self, namespace: &str, discovered: Discovered) -> Remains {
        let mut remains = Remains { undiscovered: discovered.failed, only_pods: true, ..Remains::default() };
        let (pods, others): (Vec<_>, Vec<_>) =
            discovered.resources.into_iter().filter(|r| r.namespaced).partition(is_pods);
        for resource in &pods {
            self.delete(namespace, resource, &mut remains).await;
        }
        if remains.nothing() || !remains.undiscovered.is_empty() && remains.resources.is_empty() {
            remains.only_pods = false;
            for resource in &others {
                self.delete(namespace, resource, &mut remains).await;
            }
        }
        remains
    }

    async fn delete(&self, namespace: &str, resource: &Resource, remains: &mut Remains) {
        match self.delete_and_count(namespace, resource).await {
            Ok(left) if left.is_empty() => {}
            Ok(left) => {
                for finalizer in left.iter().flat_map(|m| &m.finalizers) {
                    *remains.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
                remains.resources.insert(resource.full_name(), left.len());
            }
            // The kind went away in the meantime, and with it its objects.
            Err(error) if error.is_not_found() => {}
            Err(error) => remains.failures.push(crate::error::chain(&error)),
        }
    }

    async fn delete_and_count(&self, namespace: &str, resource: &Resource) -> Result<Vec<resources::SlimMeta>, Error> {
        let (present, _) = self.anything.list(resource, namespace).await?;
        if present.is_empty() {
            return Ok(present);
        }
        if present.iter().any(|m| m.deletion_timestamp.is_none()) {
            if resource.collection {
                self.anything.delete_all(resource, namespace).await?;
            } else {
                for meta in &present {
                    let policy = kube::api::DeleteParams::background();
                    self.anything.delete(resource, &meta.key(), None, policy).await?;
                }
            }
        }
        Ok(self.anything.list(resource, namespace).await?.0)
    }
}

fn is_pods(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

fn set_conditions(namespace: &mut Namespace, remains: &Remains, now: Timestamp) {
    let counts = |map: &BTreeMap<String, usize>, word: &str| {
        map.iter().map(|(name, n)| format!("{name} {word} {n} resource instances")).collect::<Vec<_>>().join(", ")
    };
    let groups = remains.undiscovered.iter().map(|(g, why)| format!("{g}: {why}")).collect::<Vec<_>>().join(", ");
    let left = format!("Some resources are remaining: {}", counts(&remains.resources, "has"));
    let held = format!("Some content in the namespace has finalizers remaining: {}", counts(&remains.finalizers, "in"));
    let failed = format!(
        "Failed to delete all resource types, {} remaining: {}",
        remains.failures.len(),
        remains.failures.join(", ")
    );
    let undiscovered = format!("Discovery failed for some groups, {} failing: {groups}", remains.undiscovered.len());
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            !remains.undiscovered.is_empty(),
            "DiscoveryFailed",
            undiscovered,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "",
            String::new(),
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            !remains.failures.is_empty(),
            "ContentDeletionFailed",
            failed,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            !remains.resources.is_empty(),
            "SomeResourcesRemain",
            left,
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            !remains.finalizers.is_empty(),
            "SomeFinalizersRemain",
            held,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    let status = namespace.status.get_or_insert_default();
    status.phase = Some("Terminating".to_owned());
    let conditions = status.conditions.get_or_insert_default();
    for (kind, bad, bad_reason, bad_text, good_reason, good_text) in rows {
        let (value, reason, text) =
            if bad { ("True", bad_reason, bad_text) } else { ("False", good_reason, good_text.to_owned()) };
        let old = conditions.iter_mut().find(|c| c.type_ == kind);
        let since = match &old {
            Some(c)
                if c.status == value && c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(&text) =>
            {
                continue;
            }
            Some(c) if c.status == value => c.last_transition_time.clone(),
            _ => Some(meta::time(now)),
        };
        let next = NamespaceCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(text),
            last_transition_time: since,
        };
        match old {
            Some(old) => *old = next,
            None => conditions.push(next),
        }
    }
}
