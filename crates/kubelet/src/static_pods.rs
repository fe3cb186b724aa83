//! Pods from manifests in a directory of the node: they run without an API, and the API is shown a mirror of each.
//!
//! A static pod's UID is a hash of its manifest, so a changed manifest is another pod. The directory is watched; it is
//! read whole at start and after each change.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::ErrorExt;
use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use crate::labels;
use crate::pod::PodExt;
use crate::pods::Pods;
use crate::shared::Shared;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("not a Pod manifest")]
    Parse(#[from] serde_saphyr::Error),
    #[error("it is a {0}, not a Pod")]
    Kind(String),
    #[error("it has no metadata.name")]
    Name,
}

/// The static pod that a manifest describes on this node.
fn parse(text: &str, node: &str) -> Result<core::Pod, Error> {
    let mut pod: core::Pod = serde_saphyr::from_str(text)?;
    let name = pod.metadata.name.clone().filter(|name| !name.is_empty()).ok_or(Error::Name)?;
    let kind: HashMap<String, serde_json::Value> = serde_saphyr::from_str(text)?;
    let kind = kind.get("kind").and_then(|kind| kind.as_str()).unwrap_or_default();
    if kind != "Pod" {
        return Err(Error::Kind(kind.to_owned()));
    }
    let hash = Sha256::digest(format!("{node}\n{text}"));
    let uid: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    pod.metadata.name = Some(format!("{name}-{node}"));
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(labels::SOURCE.to_owned(), "file".to_owned());
    annotations.insert(labels::STATIC_HASH.to_owned(), uid.clone());
    pod.metadata.uid = Some(uid);
    pod.status = None;
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node.to_owned());
        // No taint drives away a pod that only this node can run.
        let tolerations = spec.tolerations.get_or_insert_default();
        let all = core::Toleration {
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            ..Default::default()
        };
        if !tolerations.contains(&all) {
            tolerations.push(all);
        }
    }
    Ok(pod)
}

fn read_all(directory: &Path, node: &str) -> HashMap<String, Arc<core::Pod>> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut pods = HashMap::new();
    for path in entries.map(|entry| entry.path()) {
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if hidden || !path.is_file() {
            continue;
        }
        let parsed = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let parsed = parsed.and_then(|text| parse(&text, node).map_err(|error| crate::chain(&error)));
        match parsed {
            Ok(pod) => drop(pods.insert(pod.uid().to_owned(), Arc::new(pod))),
            Err(error) => warn!(path = %path.display(), error, "a static pod's manifest is left out"),
        }
    }
    pods
}

/// Runs the directory's pods and keeps their mirrors. `loaded` fires once it has been read the first time.
pub(crate) async fn follow(
    shared: &Arc<Shared>,
    pods: &Pods,
    directory: &Path,
    loaded: tokio::sync::oneshot::Sender<()>,
) {
    let mut loaded = Some(loaded);
    let mut known: HashMap<String, Arc<core::Pod>> = HashMap::new();
    let mut changes = watch(directory);
    loop {
        let found = read_all(directory, &shared.config.node_name);
        for (uid, pod) in &found {
            if !known.contains_key(uid) {
                pods.set(pod.clone());
            }
        }
        for (uid, pod) in &known {
            if !found.contains_key(uid) {
                pods.remove(pod);
            }
        }
        known = found;
        if let Some(loaded) = loaded.take() {
            // Nobody waits any more when the process ends.
            let _ = loaded.send(());
        }
        let retry = mirror(shared, pods, &known).await;
        tokio::select! {
            () = changed(&mut changes) => {}
            () = pods.changed.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(5)), if retry => {}
        }
    }
}

type Changes = Option<inotify::EventStream<[u8; 1024]>>;

fn watch(directory: &Path) -> Changes {
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
    let open = || {
        std::fs::create_dir_all(directory)?;
        let inotify = Inotify::init()?;
        inotify.watches().add(directory, mask)?;
        inotify.into_event_stream([0; 1024])
    };
    match open() {
        Ok(stream) => Some(stream),
        Err(error) => {
            warn!(path = %directory.display(), %error, "changes of static pods will only be seen after a restart");
            None
        }
    }
}

async fn changed(changes: &mut Changes) {
    match changes {
        Some(stream) => {
            if stream.next().await.is_none() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

/// Creates missing mirrors and deletes those whose pod is gone. True: some write failed.
async fn mirror(shared: &Shared, pods: &Pods, known: &HashMap<String, Arc<core::Pod>>) -> bool {
    let mirrors = pods.mirrors();
    let mut failed = false;
    for (uid, pod) in known.iter().filter(|(uid, _)| !mirrors.contains_key(*uid)) {
        let api: Api<core::Pod> = Api::namespaced(shared.client.clone(), pod.namespace());
        match api.create(&PostParams::default(), &image_of(shared, pod, uid)).await {
            Ok(_) => {}
            // The informer has not shown it yet, or the mirror of an older manifest is on its way out.
            Err(error) if error.is_already_exists() => failed = true,
            Err(error) => {
                debug!(pod = pod.full_name(), %error, "failed to create the mirror of a static pod; will try again");
                failed = true;
            }
        }
    }
    for (_, mirror) in mirrors.iter().filter(|(uid, _)| !known.contains_key(*uid)) {
        let api: Api<core::Pod> = Api::namespaced(shared.client.clone(), mirror.namespace());
        let uid = Some(mirror.uid().to_owned());
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..Default::default()
        };
        if let Err(error) = api.delete(mirror.name(), &parameters).await
            && !error.is_not_found()
        {
            failed = true;
        }
    }
    failed
}

fn image_of(shared: &Shared, pod: &core::Pod, uid: &str) -> core::Pod {
    let mut mirror = pod.clone();
    mirror.metadata.uid = None;
    mirror.metadata.annotations.get_or_insert_default().insert(labels::MIRROR.to_owned(), uid.to_owned());
    if let Some(node) = shared.node_uid.get() {
        mirror.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: shared.config.node_name.clone(),
            uid: node.clone(),
            controller: Some(true),
            ..Default::default()
        }]);
    }
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uid_follows_the_manifest() {
        let text =
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: i\n";
        let one = parse(text, "node").unwrap();
        assert_eq!((one.name(), one.namespace(), one.uid().len()), ("web-node", "default", 32));
        assert!(one.is_static() && !one.is_mirror());
        assert_eq!(one.uid(), parse(text, "node").unwrap().uid());
        assert_ne!(one.uid(), parse(&text.replace("image: i", "image: j"), "node").unwrap().uid());
        assert!(parse("kind: Service\nmetadata: {name: x}", "node").is_err());
        assert!(parse("kind: Pod\nmetadata: {}", "node").is_err());
    }
}
