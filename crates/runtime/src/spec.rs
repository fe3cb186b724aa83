//! From what CRI asks for, and what the image says, to an OCI runtime specification.
//!
//! Network, IPC and UTS namespaces are not mentioned: a container's process is born in its shim's. Limits are not
//! either, but for devices: the cgroup is set up before (`cgroup`), libcontainer only joins it.

mod mounts;
mod process;
mod user;

use serde_json::{Value, json};

pub(crate) use self::mounts::Paths;
pub(crate) use self::process::{exec, signal_number};
use crate::cri::{self, NamespaceMode};
use crate::images::manifest::ImageConfig;
use crate::images::view::View;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no command specified")]
    NoCommand,
    #[error("{0}")]
    User(String),
    #[error("{0}")]
    Invalid(String),
    #[error("host path {path:?} of the mount at {at:?}")]
    HostPath { path: String, at: String, source: std::io::Error },
}

/// All that a specification is made of.
pub(crate) struct Inputs<'a> {
    pub(crate) config: &'a cri::ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) view: &'a View,
    pub(crate) paths: Paths,
    pub(crate) cgroup: &'a str,
    pub(crate) cgroup_v2: bool,
    pub(crate) hostname: &'a str,
    /// Where the PID namespace comes from, if it is neither its own nor the host's.
    pub(crate) pid_namespace: Option<String>,
    /// Whether a system call filter is installed after all: lends the capabilities that takes.
    pub(crate) seccomp: bool,
    /// Capabilities (`CAP_...`) that this machine lets anybody have: `ALL` is these.
    pub(crate) available: &'a std::collections::BTreeSet<String>,
}

/// Capabilities that a process needs to install a filter and to give them back.
pub(crate) const BORROWED: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];

impl Inputs<'_> {
    fn security(&self) -> cri::LinuxContainerSecurityContext {
        self.config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
    }

    fn is_privileged(&self) -> bool {
        self.security().privileged
    }

    fn pid_mode(&self) -> NamespaceMode {
        let options = self.security().namespace_options.unwrap_or_default();
        NamespaceMode::try_from(options.pid).unwrap_or(NamespaceMode::Container)
    }
}

/// The specification, and the capabilities that its process borrows.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<(Value, Vec<String>), Error> {
    let security = inputs.security();
    let privileged = security.privileged;
    let (process, borrowed) = process::process(inputs)?;
    let (mounts, propagation) = mounts::mounts(inputs)?;

    let mut namespaces = vec![json!({"type": "mount"})];
    match (inputs.pid_mode(), &inputs.pid_namespace) {
        (NamespaceMode::Node, _) => {}
        (_, Some(path)) => namespaces.push(json!({"type": "pid", "path": path})),
        (_, None) => namespaces.push(json!({"type": "pid"})),
    }
    if inputs.cgroup_v2 && !privileged {
        namespaces.push(json!({"type": "cgroup"}));
    }

    let (devices, rules) = devices(inputs)?;
    let mut linux = json!({
        "cgroupsPath": inputs.cgroup,
        "namespaces": namespaces,
        "devices": devices,
        "resources": {"devices": rules},
    });
    if !privileged {
        linux["maskedPaths"] = json!(security.masked_paths);
        linux["readonlyPaths"] = json!(security.readonly_paths);
    }
    if let Some(propagation) = propagation {
        linux["rootfsPropagation"] = json!(propagation);
    }
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": inputs.paths.rootfs, "readonly": security.readonly_rootfs},
        "mounts": mounts,
        "linux": linux,
    });
    Ok((spec, borrowed))
}

/// The capabilities that a built specification leaves its process, without those that are given back.
pub(crate) fn bounding(spec: &Value, borrowed: Option<&[String]>) -> std::collections::BTreeSet<String> {
    let held = spec["process"]["capabilities"]["bounding"].as_array().into_iter().flatten();
    held.filter_map(Value::as_str)
        .filter(|name| !borrowed.is_some_and(|borrowed| borrowed.iter().any(|lent| lent == name)))
        .map(str::to_owned)
        .collect()
}

/// Device nodes, and the rules of the devices cgroup.
fn devices(inputs: &Inputs<'_>) -> Result<(Vec<Value>, Vec<Value>), Error> {
    if inputs.is_privileged() {
        let mut devices = Vec::new();
        mounts::host_devices(std::path::Path::new("/dev"), &mut devices);
        return Ok((devices, vec![json!({"allow": true, "access": "rwm"})]));
    }
    let (mut devices, mut rules) = (Vec::new(), vec![json!({"allow": false, "access": "rwm"})]);
    for device in &inputs.config.devices {
        let mut nodes = Vec::new();
        mounts::device_nodes(&device.host_path, &device.container_path, &mut nodes).map_err(|source| {
            Error::HostPath { path: device.host_path.clone(), at: device.container_path.clone(), source }
        })?;
        for node in nodes {
            rules.push(json!({
                "allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"],
                "access": device.permissions,
            }));
            devices.push(node);
        }
    }
    // What every container has: the pseudo devices and its own terminals.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    Ok((devices, rules))
}

#[cfg(test)]
mod tests;
