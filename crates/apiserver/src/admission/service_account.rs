//! `ServiceAccount`: every pod runs as an account that exists, and gets its token where it wants one.

use std::time::Duration;

use api::status::Status;
use async_trait::async_trait;
use rand::RngExt;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::{
    catalog,
    registry::{read, store_failed},
};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Asks for an hour; the odd seconds tell the server that the kubelet will refresh it.
const TOKEN_SECONDS: i64 = 3607;
/// A new namespace's default account is made by a controller: how long a pod waits for it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pods that a kubelet mirrors from its own disk.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

pub(crate) struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "pods")
    }

    async fn mutate(&self, attributes: &Attributes<'_>, pod: &mut Value) -> Result<bool, Status> {
        if pod["metadata"]["annotations"].get(MIRROR).is_some() {
            check_mirror(attributes, pod)?;
            return Ok(false);
        }
        let given = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        let name = if given.is_empty() { "default".to_string() } else { given.to_string() };
        pod["spec"]["serviceAccountName"] = name.clone().into();
        pod["spec"]["serviceAccount"] = name.clone().into();
        let Some(account) = wait_for(attributes, &name).await? else {
            return Err(attributes.forbid(format!(
                "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                attributes.namespace
            )));
        };
        let automount = |object: &Value| object["automountServiceAccountToken"].as_bool();
        if automount(&pod["spec"]).or(automount(&account)).unwrap_or(true) {
            mount_token(&mut pod["spec"]);
        }
        let none = pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty);
        if none && account["imagePullSecrets"].as_array().is_some_and(|own| !own.is_empty()) {
            pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(true)
    }
}

/// A mirror pod has no account and uses nothing that needs the API.
fn check_mirror(attributes: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
    let spec = &pod["spec"];
    if !spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        return Err(attributes.forbid("a mirror pod may not reference service accounts"));
    }
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        for (source, why) in [
            ("secret", "a mirror pod may not reference secrets"),
            ("configMap", "a mirror pod may not reference configmaps"),
            ("persistentVolumeClaim", "a mirror pod may not reference persistentvolumeclaims"),
        ] {
            if !volume[source].is_null() {
                return Err(attributes.forbid(why));
            }
        }
    }
    Ok(())
}

/// The account; the default one is waited for, because its namespace may be a moment old.
async fn wait_for(attributes: &Attributes<'_>, name: &str) -> Result<Option<Value>, Status> {
    let (server, namespace) = (attributes.server(), &attributes.namespace);
    let key = catalog::prefix("", "serviceaccounts", namespace) + name;
    let before = server.store().revision().await.map_err(store_failed)?;
    let found = read::by_name(server, "", "serviceaccounts", namespace, name).await?;
    if found.is_some() || name != "default" {
        return Ok(found);
    }
    let mut watch = server.store().watch(&key, before).await.map_err(store_failed)?;
    // Whatever comes, or nothing in time: the store has the last word.
    let _ = tokio::time::timeout(PATIENCE, async {
        while let Some(Ok(item)) = watch.recv().await {
            if matches!(item, store::WatchItem::Events(_)) {
                break;
            }
        }
    })
    .await;
    read::by_name(server, "", "serviceaccounts", namespace, name).await
}

/// Adds the token's volume and mounts it where nothing else is mounted.
fn mount_token(spec: &mut Value) {
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    let known = volumes
        .iter()
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_string);
    let name = known.clone().unwrap_or_else(|| {
        let mut random = rand::rng();
        let letters = b"bcdfghjklmnpqrstvwxz2456789";
        let suffix: String = (0..5).map(|_| char::from(letters[random.random_range(0..letters.len())])).collect();
        format!("{VOLUME_PREFIX}{suffix}")
    });
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let taken = container["volumeMounts"]
                .as_array()
                .is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH));
            if taken {
                continue;
            }
            if !container["volumeMounts"].is_array() {
                container["volumeMounts"] = json!([]);
            }
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.push(json!({"name": name, "mountPath": MOUNT_PATH, "readOnly": true}));
                mounted = true;
            }
        }
    }
    if mounted && known.is_none() {
        let mut volumes = volumes;
        volumes.push(token_volume(&name));
        spec["volumes"] = volumes.into();
    }
}

fn token_volume(name: &str) -> Value {
    let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_mounted_where_nothing_else_is() {
        let mut spec = json!({"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
        ]});
        mount_token(&mut spec);
        let volume = spec["volumes"][0]["name"].clone();
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        let before = spec.clone();
        mount_token(&mut spec);
        assert_eq!(spec, before, "mounting is idempotent");
    }
}
