//! Writes a pod's status to the API: only what changed, the newest only, until it is there.
//!
//! The worker never waits for the API, except for the last status of a pod that is about to be deleted. A patch names
//! the pod's UID, so a namesake that came later is not touched.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, ErrorExt};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{PodExt, conditions};

/// Fields that a kubelet owns: absent from a new status, they are removed.
const OWNED: [&str; 14] = [
    "observedGeneration",
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "qosClass",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "resources",
];

/// Sends one pod's statuses.
pub(crate) struct Publisher {
    wanted: watch::Sender<(u64, Option<core::PodStatus>)>,
    sent: watch::Receiver<u64>,
    base: Arc<Mutex<Option<Arc<core::Pod>>>>,
}

impl Publisher {
    pub(crate) fn new(client: Client) -> Self {
        let (wanted, receiver) = watch::channel((0, None));
        let (sender, sent) = watch::channel(0);
        let base = Arc::new(Mutex::new(None));
        tokio::spawn(send_all(client, receiver, sender, base.clone()));
        Self { wanted, sent, base }
    }

    /// Tells what the API has now: the pod itself, or the mirror of a static one.
    pub(crate) fn observe(&self, pod: &Arc<core::Pod>) {
        let mut base = self.base.lock();
        let version =
            |pod: &core::Pod| pod.metadata.resource_version.as_ref().and_then(|text| text.parse::<u64>().ok());
        let newer = base.as_ref().is_none_or(|known| known.uid() != pod.uid() || version(pod) > version(known));
        if newer {
            *base = Some(pod.clone());
        }
    }

    /// The status last asked for.
    pub(crate) fn last(&self) -> Option<core::PodStatus> {
        self.wanted.borrow().1.clone()
    }

    pub(crate) fn publish(&self, status: core::PodStatus) {
        self.wanted.send_if_modified(|(sequence, last)| {
            if last.as_ref() == Some(&status) {
                return false;
            }
            *sequence += 1;
            *last = Some(status);
            true
        });
    }

    /// Returns once the API has the last status, or has no such pod any more.
    pub(crate) async fn flush(&mut self) {
        let target = self.wanted.borrow().0;
        // The sender outlives the wanted status: an error here means that the process ends.
        let _ = self.sent.wait_for(|sent| *sent >= target).await;
    }
}

async fn send_all(
    client: Client,
    mut wanted: watch::Receiver<(u64, Option<core::PodStatus>)>,
    sent: watch::Sender<u64>,
    base: Arc<Mutex<Option<Arc<core::Pod>>>>,
) {
    while wanted.changed().await.is_ok() {
        let mut delay = Duration::from_millis(100);
        loop {
            let (sequence, Some(status)) = wanted.borrow_and_update().clone() else { break };
            let Some(known) = base.lock().clone() else {
                // A static pod without a mirror: there is nowhere to write to yet.
                sent.send_replace(sequence);
                break;
            };
            match send(&client, &known, &status).await {
                Ok(answer) => {
                    if let Some(answer) = answer {
                        let mut base = base.lock();
                        if base.as_ref().is_none_or(|now| now.uid() == answer.uid()) {
                            *base = Some(Arc::new(answer));
                        }
                    }
                    sent.send_replace(sequence);
                    break;
                }
                Err(error) if error.is_not_found() || error.is_conflict() => {
                    debug!(pod = known.full_name(), %error, "the pod is gone; its status has no reader");
                    sent.send_replace(sequence);
                    break;
                }
                Err(error) => {
                    warn!(
                        pod = known.full_name(),
                        error = &error as &dyn std::error::Error,
                        "failed to write a status; will try again"
                    );
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(Duration::from_secs(10));
                }
            }
        }
    }
}

async fn send(client: &Client, known: &core::Pod, status: &core::PodStatus) -> Result<Option<core::Pod>, kube::Error> {
    let Some(changes) = changes(known.reported(), status) else { return Ok(None) };
    let patch = json!({"metadata": {"uid": known.uid()}, "status": changes});
    let api: Api<core::Pod> = Api::namespaced(client.clone(), known.namespace());
    api.patch_status(known.name(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(Some)
}

/// A strategic merge patch from `old` to `new`; `None` when they agree.
fn changes(old: &core::PodStatus, new: &core::PodStatus) -> Option<Map<String, Value>> {
    let object = |status: &core::PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, mut new) = (object(old), object(new));
    let mut patch = Map::new();
    for name in OWNED {
        match (old.get(name), new.remove(name)) {
            (Some(_), None) => {
                patch.insert(name.to_owned(), Value::Null);
            }
            (before, Some(after)) if before != Some(&after) => {
                patch.insert(name.to_owned(), after);
            }
            _ => {}
        }
    }
    for name in ["podIPs", "hostIPs"] {
        // Merged by address otherwise, which would keep the old one.
        if let (true, Some(Value::Array(list))) = (old.contains_key(name), patch.get_mut(name)) {
            list.push(json!({"$patch": "replace"}));
        }
    }
    // Conditions merge by type: those of others are left alone.
    let before: Vec<&Value> = old.get("conditions").and_then(Value::as_array).into_iter().flatten().collect();
    let after = new.remove("conditions").unwrap_or_default();
    let fresh = after.as_array().into_iter().flatten().filter(|one| !before.contains(one)).cloned();
    let changed: Vec<Value> = fresh
        .map(|mut condition| {
            let old = before.iter().find(|old| old.get("type") == condition.get("type"));
            // Merged field by field: what a condition says no more must be taken back.
            for name in ["reason", "message"] {
                if old.is_some_and(|old| old.get(name).is_some()) && condition.get(name).is_none() {
                    condition[name] = Value::Null;
                }
            }
            condition
        })
        .collect();
    let gone = before.iter().filter_map(|old| old.get("type")).filter(|name| {
        let owned = name.as_str().is_some_and(|name| conditions::OWNED.contains(&name));
        owned && !after.as_array().into_iter().flatten().any(|new| new.get("type") == Some(name))
    });
    let gone = gone.map(|name| json!({"type": name, "$patch": "delete"}));
    let changed: Vec<Value> = changed.into_iter().chain(gone).collect();
    if !changed.is_empty() {
        patch.insert("conditions".to_owned(), Value::Array(changed));
    }
    (!patch.is_empty()).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> core::PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_changed() {
        let old = status(json!({"phase": "Pending", "reason": "X", "podIPs": [{"ip": "1"}],
            "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True", "reason": "Y"}]}));
        let new = status(json!({"phase": "Running", "podIPs": [{"ip": "2"}],
            "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "False"}]}));
        assert_eq!(changes(&old, &old), None);
        assert_eq!(
            Value::Object(changes(&old, &new).unwrap()),
            json!({"phase": "Running", "reason": null, "podIPs": [{"ip": "2"}, {"$patch": "replace"}],
                   "conditions": [{"type": "B", "status": "False", "reason": null}]})
        );
    }
}
