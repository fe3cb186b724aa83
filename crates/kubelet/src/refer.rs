//! What events are about: a pod, a container of it, or the node.

use k8s_openapi::api::core::v1 as core;

use crate::pod::{Kind, PodExt};

pub(crate) fn pod(pod: &core::Pod) -> core::ObjectReference {
    // A static pod is known to the API by the UID of its mirror, which carries the static pod's own as annotation.
    core::ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The pod, with the field path of one container.
pub(crate) fn container(of: &core::Pod, name: &str) -> core::ObjectReference {
    let list = match of.container(name).map(|(kind, _)| kind) {
        Some(Kind::Init | Kind::Sidecar) => "initContainers",
        Some(Kind::Ephemeral) => "ephemeralContainers",
        _ => "containers",
    };
    core::ObjectReference { field_path: Some(format!("spec.{list}{{{name}}}")), ..pod(of) }
}

/// Events about a node use its name as UID, as every kubelet does.
pub(crate) fn node(name: &str) -> core::ObjectReference {
    core::ObjectReference {
        kind: Some("Node".into()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..Default::default()
    }
}
