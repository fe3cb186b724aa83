//! What happens in the runtime, turned into wakes of pod workers.
//!
//! The runtime streams its events; each wakes the pod it is about, which then reads its state anew. A runtime without
//! the stream is read whole once a second, and what differs from the last reading wakes its pod. Even with a stream a
//! slow reading now and then catches what it might have lost.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use tracing::{debug, info};

use crate::cri;
use crate::labels;
use crate::pods::Pods;
use crate::shared::Shared;

/// Between readings of a runtime that streams, and of one that does not.
const WITH_STREAM: Duration = Duration::from_secs(300);
const WITHOUT_STREAM: Duration = Duration::from_secs(1);

/// Runs until dropped.
pub(crate) async fn follow(shared: &Shared, pods: &Pods) {
    let mut last = HashMap::new();
    let mut delay = Duration::from_millis(100);
    loop {
        let mut pause = WITH_STREAM;
        match shared.runtime.events().await {
            Ok(stream) => {
                delay = Duration::from_millis(100);
                // What happened before the stream began is in this reading.
                relist(shared, pods, &mut last).await;
                listen(shared, pods, stream, &mut last).await;
            }
            Err(error) if error.is_unimplemented() => {
                info!("the runtime has no events; its state is read every second");
                loop {
                    relist(shared, pods, &mut last).await;
                    tokio::time::sleep(WITHOUT_STREAM).await;
                }
            }
            Err(error) => {
                debug!(%error, "the runtime does not answer");
                pause = delay;
                delay = (delay * 2).min(Duration::from_secs(5));
            }
        }
        tokio::time::sleep(pause.min(delay)).await;
    }
}

async fn listen(
    shared: &Shared,
    pods: &Pods,
    mut stream: tonic::Streaming<cri::v1::ContainerEventResponse>,
    last: &mut HashMap<String, String>,
) {
    let mut readings = tokio::time::interval(WITH_STREAM);
    readings.tick().await;
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(event)) => {
                    shared.metrics.events.inc();
                    let metadata = event.pod_sandbox_status.and_then(|sandbox| sandbox.metadata);
                    if let Some(metadata) = metadata {
                        pods.wake(&metadata.uid);
                    }
                }
                Some(Err(error)) => {
                    debug!(%error, "the runtime's events broke off");
                    return;
                }
                None => return,
            },
            _ = readings.tick() => relist(shared, pods, last).await,
        }
    }
}

/// Wakes the pods whose containers or sandboxes differ from `last`.
async fn relist(shared: &Shared, pods: &Pods, last: &mut HashMap<String, String>) {
    shared.metrics.relists.inc();
    let read = futures::try_join!(shared.runtime.sandboxes(HashMap::new()), shared.runtime.containers(HashMap::new()));
    let Ok((sandboxes, containers)) = read else { return };
    let mut now: HashMap<String, Vec<String>> = HashMap::new();
    for sandbox in sandboxes {
        let uid = sandbox.metadata.map(|metadata| metadata.uid).unwrap_or_default();
        now.entry(uid).or_default().push(format!("{}={}", sandbox.id, sandbox.state));
    }
    for container in containers {
        let uid = container.labels.get(labels::POD_UID).cloned().unwrap_or_default();
        now.entry(uid).or_default().push(format!("{}={}", container.id, container.state));
    }
    let mut states = HashMap::new();
    for (uid, mut parts) in now {
        parts.sort();
        states.insert(uid, parts.join(" "));
    }
    let changed = states.iter().filter(|(uid, state)| last.get(*uid) != Some(state)).map(|(uid, _)| uid);
    let gone = last.keys().filter(|uid| !states.contains_key(*uid));
    for uid in changed.chain(gone) {
        pods.wake(uid);
    }
    *last = states;
}
