//! Sandboxes, containers and images as CRI shows them, and CRI's filters.

use std::collections::HashMap;

use serde_json::json;

use crate::container::{Container, State};
use crate::cri;
use crate::images::{Image, parse};
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;

type Labels = HashMap<String, String>;

fn labels_match(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn sandbox_state(sandbox: &Sandbox) -> cri::PodSandboxState {
    if sandbox.is_ready() { cri::PodSandboxState::SandboxReady } else { cri::PodSandboxState::SandboxNotready }
}

pub(super) fn sandboxes(runtime: &Runtime, filter: Option<cri::PodSandboxFilter>) -> Vec<cri::PodSandbox> {
    let filter = filter.unwrap_or_default();
    let all = runtime.inner.sandboxes.read();
    let wanted = all.values().filter(|sandbox| {
        (filter.id.is_empty() || sandbox.id.starts_with(&filter.id))
            && filter.state.as_ref().is_none_or(|state| state.state == sandbox_state(sandbox) as i32)
            && labels_match(&filter.label_selector, &sandbox.config.labels)
    });
    wanted
        .map(|sandbox| {
            let record = sandbox.record.lock().clone();
            cri::PodSandbox {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                state: (if record.ready {
                    cri::PodSandboxState::SandboxReady
                } else {
                    cri::PodSandboxState::SandboxNotready
                }) as i32,
                created_at: record.created_at,
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
                runtime_handler: record.runtime_handler,
            }
        })
        .collect()
}

pub(super) fn sandbox_status(sandbox: &Sandbox) -> cri::PodSandboxStatus {
    let record = sandbox.record.lock().clone();
    let mut ips = record.ips.iter().map(ToString::to_string);
    let network = cri::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
    };
    let namespaces = cri::Namespace { options: Some(sandbox.namespace_options()) };
    cri::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox) as i32,
        created_at: record.created_at,
        network: Some(network),
        linux: Some(cri::LinuxPodSandboxStatus { namespaces: Some(namespaces) }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.runtime_handler,
    }
}

pub(super) fn sandbox_info(sandbox: &Sandbox) -> Labels {
    let record = sandbox.record.lock().clone();
    let info = json!({"pid": record.shim, "netns": sandbox.netns, "ips": record.ips});
    HashMap::from([("info".to_owned(), info.to_string())])
}

pub(super) fn containers(runtime: &Runtime, filter: Option<cri::ContainerFilter>) -> Vec<cri::Container> {
    let filter = filter.unwrap_or_default();
    let all = runtime.inner.containers.read();
    let wanted = all.values().filter(|container| {
        (filter.id.is_empty() || container.id.starts_with(&filter.id))
            && (filter.pod_sandbox_id.is_empty() || container.record.sandbox.starts_with(&filter.pod_sandbox_id))
            && filter.state.as_ref().is_none_or(|state| state.state == container.state.borrow().cri() as i32)
            && labels_match(&filter.label_selector, &container.config.labels)
    });
    wanted
        .map(|container| cri::Container {
            id: container.id.clone(),
            pod_sandbox_id: container.record.sandbox.clone(),
            metadata: container.config.metadata.clone(),
            image: container.config.image.clone(),
            image_ref: container.record.image_ref.clone(),
            image_id: container.record.image_id.clone(),
            state: container.state.borrow().cri() as i32,
            created_at: container.record.created_at,
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        })
        .collect()
}

pub(super) fn container_status(container: &Container) -> cri::ContainerStatus {
    let state = container.state.borrow().clone();
    let mut status = cri::ContainerStatus {
        id: container.id.clone(),
        metadata: container.config.metadata.clone(),
        state: state.cri() as i32,
        created_at: container.record.created_at,
        image: container.config.image.clone(),
        image_ref: container.record.image_ref.clone(),
        image_id: container.record.image_id.clone(),
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        mounts: container.config.mounts.clone(),
        log_path: container.record.log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        resources: container
            .resources
            .read()
            .clone()
            .map(|linux| cri::ContainerResources { linux: Some(linux), ..Default::default() }),
        user: user(container),
        stop_signal: container.config.stop_signal,
        ..Default::default()
    };
    match state {
        State::Created => {}
        State::Running { started_at, .. } => status.started_at = started_at,
        State::Exited { started_at, finished_at, code, reason, message } => {
            status.started_at = started_at;
            status.finished_at = finished_at;
            status.exit_code = code;
            status.reason = reason.to_owned();
            status.message = message;
        }
    }
    status
}

/// The user that the first process started as.
fn user(container: &Container) -> Option<cri::ContainerUser> {
    let user = container.record.user.as_object()?;
    let number = |name: &str| user.get(name).and_then(serde_json::Value::as_i64).unwrap_or(0);
    let groups = user.get("additionalGids").and_then(serde_json::Value::as_array);
    let linux = cri::LinuxContainerUser {
        uid: number("uid"),
        gid: number("gid"),
        supplemental_groups: groups.into_iter().flatten().filter_map(serde_json::Value::as_i64).collect(),
    };
    Some(cri::ContainerUser { linux: Some(linux) })
}

pub(super) fn container_info(container: &Container) -> Labels {
    let pid = match *container.state.borrow() {
        State::Running { pid, .. } => Some(pid),
        _ => None,
    };
    let spec = container.spec().unwrap_or_default();
    let info = json!({
        "sandboxID": container.record.sandbox, "pid": pid, "cgroup": container.record.cgroup,
        "layers": container.record.layers, "runtimeSpec": spec,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

pub(super) fn image(image: &Image) -> cri::Image {
    let user = image.config.config.user.split(':').next().unwrap_or_default();
    let (uid, username) = match (user, user.parse::<i64>()) {
        (_, Ok(uid)) => (Some(cri::Int64Value { value: uid }), String::new()),
        ("", _) => (Some(cri::Int64Value { value: 0 }), String::new()),
        (name, _) => (None, name.to_owned()),
    };
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.tags.iter().cloned().collect(),
        repo_digests: image.digests.iter().cloned().collect(),
        size: image.size,
        uid,
        username,
        spec: Some(cri::ImageSpec { image: image.id.clone(), ..Default::default() }),
        pinned: false,
    }
}

pub(super) fn image_info(image: &Image) -> Labels {
    let config = &image.config.config;
    let info = json!({
        "layers": image.layers,
        "imageSpec": {"config": {
            "User": config.user, "Env": config.env, "Entrypoint": config.entrypoint, "Cmd": config.cmd,
            "WorkingDir": config.working_dir, "StopSignal": config.stop_signal, "Labels": config.labels,
        }},
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

pub(super) fn images(runtime: &Runtime, filter: Option<cri::ImageFilter>) -> Vec<cri::Image> {
    let wanted = filter.and_then(|filter| filter.image).map(|spec| spec.image).filter(|name| !name.is_empty());
    match wanted {
        Some(name) => runtime.inner.images.find(&name).iter().map(|found| image(found)).collect(),
        None => runtime.inner.images.list().iter().map(|found| image(found)).collect(),
    }
}

/// Whether a reference can be an image's at all; ids are.
pub(super) fn check_reference(reference: &str) -> Result<(), crate::runtime::Error> {
    if reference.is_empty() {
        return Err(crate::runtime::Error::Invalid("the image reference is empty".to_owned()));
    }
    if !reference.starts_with("sha256:") {
        parse(reference)?;
    }
    Ok(())
}
