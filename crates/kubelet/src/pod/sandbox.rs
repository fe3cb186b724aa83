//! The sandbox of a pod as CRI wants it described.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1 as core;

use super::{PodExt, resources, security};
use crate::cri::v1;
use crate::labels;

/// Parts of a sandbox that come from the node rather than the pod.
pub(crate) struct Surroundings<'a> {
    pub(crate) attempt: u32,
    pub(crate) cgroup: &'a str,
    pub(crate) log_directory: &'a Path,
    pub(crate) hostname: &'a str,
    pub(crate) dns: v1::DnsConfig,
}

pub(crate) fn config(pod: &core::Pod, around: Surroundings<'_>) -> v1::PodSandboxConfig {
    let sysctls = pod.specification().security_context.as_ref().and_then(|context| context.sysctls.as_ref());
    let sysctls = sysctls.into_iter().flatten().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()));
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt: around.attempt,
        }),
        // A pod on the host's network keeps the host's name.
        hostname: if pod.is_host_network() { String::new() } else { around.hostname.to_owned() },
        log_directory: around.log_directory.to_string_lossy().into_owned(),
        dns_config: Some(around.dns),
        port_mappings: ports(pod),
        labels: labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: around.cgroup.to_owned(),
            security_context: Some(security::sandbox(pod)),
            sysctls: sysctls.collect(),
            overhead: None,
            resources: Some(resources::for_sandbox(pod)),
        }),
        ..Default::default()
    }
}

/// Labels that find everything of a pod in the runtime, and the pod's own.
fn labels(pod: &core::Pod) -> HashMap<String, String> {
    let own: BTreeMap<String, String> = pod.metadata.labels.clone().unwrap_or_default();
    own.into_iter().chain(identity(pod)).collect()
}

pub(crate) fn identity(pod: &core::Pod) -> [(String, String); 3] {
    [
        (labels::POD_NAME.to_owned(), pod.name().to_owned()),
        (labels::POD_NAMESPACE.to_owned(), pod.namespace().to_owned()),
        (labels::POD_UID.to_owned(), pod.uid().to_owned()),
    ]
}

fn ports(pod: &core::Pod) -> Vec<v1::PortMapping> {
    let containers = pod.containers();
    let ports = containers.iter().flat_map(|(_, container)| container.ports.iter().flatten());
    let mappings = ports.filter(|_| !pod.is_host_network()).map(|port| {
        let mut mapping = v1::PortMapping {
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
            ..Default::default()
        };
        mapping.set_protocol(match port.protocol.as_deref() {
            Some("UDP") => v1::Protocol::Udp,
            Some("SCTP") => v1::Protocol::Sctp,
            _ => v1::Protocol::Tcp,
        });
        mapping
    });
    mappings.collect()
}

/// Where a pod's logs are: `NAMESPACE_NAME_UID` under the node's log directory.
pub(crate) fn log_directory(root: &Path, pod: &core::Pod) -> PathBuf {
    root.join(format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid()))
}
