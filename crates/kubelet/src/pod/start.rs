//! Starting one container: configuration, creation, start.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::{Kind, PodExt, env, hosts, plan, resources, sandbox, security};
use crate::cri::{self, v1};
use crate::images::Present;
use crate::objects::Objects;
use crate::shared::Shared;
use crate::volumes::{self, Source, Volumes};
use crate::{labels, refer};

/// What kept a container from starting: the reason of its `waiting` state, and the message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Config(String),
    #[error("{}", .0.message())]
    Create(#[source] cri::Error),
    #[error("{}", .0.message())]
    Run(#[source] cri::Error),
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Config(_) => "CreateContainerConfigError",
            Self::Create(_) => "CreateContainerError",
            Self::Run(_) => "RunContainerError",
        }
    }
}

/// What a container is started in.
pub(crate) struct Place<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) pod: &'a core::Pod,
    pub(crate) objects: &'a Objects,
    pub(crate) volumes: &'a Volumes,
    pub(crate) sandbox: &'a str,
    pub(crate) sandbox_config: v1::PodSandboxConfig,
    pub(crate) addresses: &'a [String],
    /// Container that a debugger looks into, by id.
    pub(crate) target: Option<String>,
}

/// Creates and starts `container` as run number `attempt`; returns its id.
pub(crate) async fn start(
    place: &Place<'_>,
    kind: Kind,
    container: &core::Container,
    image: &Present,
    attempt: u32,
) -> Result<String, Error> {
    let config = config(place, kind, container, image, attempt).await?;
    let shared = place.shared;
    let about = refer::container(place.pod, &container.name);
    let id = shared.runtime.create_container(place.sandbox, config, place.sandbox_config.clone()).await;
    let id = id.map_err(Error::Create)?;
    shared.recorder.normal(&about, "Created", "Container created");
    if let Err(error) = shared.runtime.start_container(&id).await {
        return Err(Error::Run(error));
    }
    shared.recorder.normal(&about, "Started", "Container started");
    Ok(id)
}

async fn config(
    place: &Place<'_>,
    kind: Kind,
    container: &core::Container,
    image: &Present,
    attempt: u32,
) -> Result<v1::ContainerConfig, Error> {
    let (pod, shared) = (place.pod, place.shared);
    let bad = |error: &(dyn std::error::Error + 'static)| Error::Config(crate::chain(error));
    let environment = environment(place, container).await.map_err(|error| bad(&error))?;
    let lookup = |name: &str| environment.get(name).cloned();
    let expand = |all: &Option<Vec<String>>| -> Vec<String> {
        all.iter().flatten().map(|text| env::expand(text, &lookup)).collect()
    };
    let security = security::container(pod, container, (image.uid, &image.user), place.target.as_deref());
    let security = security.map_err(|error| bad(&error))?;
    let pod_dir = shared.config.pod_dir(pod.uid());
    let mounts = mounts(place, container, &pod_dir, &lookup, attempt).map_err(Error::Config)?;
    let logs = place.sandbox_config.log_directory.clone();
    std::fs::create_dir_all(Path::new(&logs).join(&container.name))
        .map_err(|error| Error::Config(format!("failed to create the log directory of {}: {error}", container.name)))?;
    let mut annotations = HashMap::from([
        (labels::HASH.to_owned(), plan::hash(container)),
        (labels::RESTART_COUNT.to_owned(), attempt.to_string()),
        (labels::TERMINATION_PATH.to_owned(), termination_path(container).to_owned()),
        (labels::TERMINATION_POLICY.to_owned(), container.termination_message_policy.clone().unwrap_or("File".into())),
        (labels::GRACE.to_owned(), pod.grace().to_string()),
    ]);
    annotations.retain(|_, value| !value.is_empty());
    let mut names: HashMap<String, String> = sandbox::identity(pod).into_iter().collect();
    names.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    let capacity = shared.machine.memory;
    // A debugger has no resources of its own: it lives within the pod's.
    let resources = resources::for_container(pod, container, capacity);
    let envs =
        environment.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone().into_bytes() });
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(v1::ImageSpec {
            image: image.reference.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: envs.collect(),
        mounts,
        labels: names,
        annotations,
        log_path: format!("{}/{attempt}.log", container.name),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(if kind == Kind::Ephemeral {
                v1::LinuxContainerResources { oom_score_adj: resources.oom_score_adj, ..Default::default() }
            } else {
                resources
            }),
            security_context: Some(security),
        }),
        ..Default::default()
    })
}

async fn environment(
    place: &Place<'_>,
    container: &core::Container,
) -> Result<std::collections::BTreeMap<String, String>, env::Error> {
    let (pod, shared) = (place.pod, place.shared);
    let links = pod.specification().enable_service_links != Some(false);
    let known = shared.services.list();
    let services = env::services(known.iter().map(Arc::as_ref), pod.namespace(), links);
    let pod_dir = shared.config.pod_dir(pod.uid());
    let directories = |name: &str| volumes::empty_dir_path(pod, &pod_dir, name);
    let sources = env::Sources {
        pod,
        container,
        node: &shared.fields,
        addresses: place.addresses,
        objects: place.objects,
        services,
        directories: &directories,
    };
    env::environment(&sources).await
}

fn termination_path(container: &core::Container) -> &str {
    container.termination_message_path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/dev/termination-log")
}

fn mounts(
    place: &Place<'_>,
    container: &core::Container,
    pod_dir: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
    attempt: u32,
) -> Result<Vec<v1::Mount>, String> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let mounted = place.volumes.get(&mount.name);
        let mounted = mounted.ok_or_else(|| {
            format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name)
        })?;
        let sub_path = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
            (Some(expression), _) if !expression.is_empty() => expanded(expression, lookup)?,
            (_, path) => path.unwrap_or_default().to_owned(),
        };
        let absolute = |path: &str| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut result = v1::Mount {
            container_path: absolute(&mount.mount_path),
            readonly: mount.read_only == Some(true) || mounted.read_only,
            recursive_read_only: mount.recursive_read_only.as_deref() == Some("Enabled"),
            ..Default::default()
        };
        result.set_propagation(match mount.mount_propagation.as_deref() {
            Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
            Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
            _ => v1::MountPropagation::PropagationPrivate,
        });
        match &mounted.source {
            Source::Path(path) if sub_path.is_empty() => result.host_path = path.to_string_lossy().into_owned(),
            Source::Path(path) => {
                let below = pod_dir.join("volume-subpaths").join(&mount.name).join(&container.name);
                let bound = volumes::subpath::bind(path, &sub_path, &below.join(index.to_string()));
                let bound = bound.map_err(|error| {
                    format!(
                        "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {error}",
                        mount.name, container.name
                    )
                })?;
                result.host_path = bound.to_string_lossy().into_owned();
            }
            Source::Image(reference) => {
                result.image = Some(cri::image_spec(reference));
                result.image_sub_path = sub_path;
            }
        }
        mounts.push(result);
    }
    let taken = |mounts: &[v1::Mount], path: &str| mounts.iter().any(|mount| mount.container_path == path);
    if !taken(&mounts, "/etc/hosts") {
        let file = write_hosts(place, pod_dir).map_err(|error| format!("failed to write the hosts file: {error}"))?;
        mounts.push(v1::Mount { container_path: "/etc/hosts".into(), host_path: text(&file), ..Default::default() });
    }
    let path = termination_path(container);
    if !taken(&mounts, path) {
        let file = termination_file(pod_dir, &container.name, attempt)
            .map_err(|error| format!("failed to make the termination message file: {error}"))?;
        mounts.push(v1::Mount { container_path: path.to_owned(), host_path: text(&file), ..Default::default() });
    }
    Ok(mounts)
}

/// Expands a `subPathExpr`: unlike elsewhere, a name without a value is an error.
fn expanded(expression: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let result = env::expand(expression, &|name| {
        let value = lookup(name);
        if value.is_none() {
            *missing.borrow_mut() = Some(name.to_owned());
        }
        value
    });
    match missing.into_inner() {
        Some(name) => Err(format!("failed to expand subPathExpr {expression:?}: missing value for {name:?}")),
        None => Ok(result),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn write_hosts(place: &Place<'_>, pod_dir: &Path) -> std::io::Result<PathBuf> {
    let (hostname, domain) = hosts::name(place.pod, &place.shared.config.cluster_domain);
    let host = if place.pod.is_host_network() {
        std::fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        String::new()
    };
    let content = hosts::hosts(place.pod, place.addresses, &hostname, domain.as_deref(), &host);
    let file = pod_dir.join("etc-hosts");
    std::fs::create_dir_all(pod_dir)?;
    // Written in place: containers that run have this very file mounted.
    if std::fs::read_to_string(&file).ok().as_deref() != Some(&content) {
        std::fs::write(&file, content)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644))?;
    }
    Ok(file)
}

/// An empty file for each run, that whoever the container runs as may write.
fn termination_file(pod_dir: &Path, container: &str, attempt: u32) -> std::io::Result<PathBuf> {
    let directory = pod_dir.join("containers").join(container);
    std::fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{attempt}.termination"));
    std::fs::write(&file, "")?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666))?;
    Ok(file)
}
