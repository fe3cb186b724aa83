//! Volumes of a pod: directories (or images) that its containers mount.
//!
//! Each kind is one file and a line in [`KINDS`]. Kinds whose content comes from the API render it anew on every sync
//! and write it when it changed; the others are set up once. Everything lives under `pods/UID/volumes` and is taken
//! down from the mount table, so what a kubelet that died left behind goes the same way.

mod atomic;
mod claim;
mod config_map;
mod downward_api;
mod empty_dir;
mod host_path;
mod image;
mod payload;
mod projected;
mod secret;
pub(crate) mod subpath;
pub(crate) mod teardown;
mod tokens;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use crate::objects::{self, Objects};
use crate::pod::PodExt;
use crate::pod::fields::{self, Node};
pub(crate) use tokens::Tokens;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what} \"{name}\" not found")]
    NotFound { what: &'static str, name: String },
    #[error("references non-existent {what} key: {key}")]
    NoKey { what: &'static str, key: String },
    #[error("{0}")]
    Refused(String),
    #[error("failed to {what} {path}")]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Field(#[from] fields::Error),
    #[error(transparent)]
    Objects(#[from] objects::Error),
    #[error("failed to {what}")]
    Api { what: String, source: Box<kube::Error> },
}

impl Error {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// What a container's mount of a volume starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Path(PathBuf),
    /// The root of an image, mounted by the runtime.
    Image(String),
}

/// A volume that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) source: Source,
    pub(crate) read_only: bool,
    /// Rendered from the API: to be set up again on each sync, and at the latest at this time.
    pub(crate) refresh: Option<Timestamp>,
    pub(crate) rendered: bool,
}

impl Mounted {
    fn at(path: &Path) -> Self {
        Self { source: Source::Path(path.to_owned()), read_only: false, refresh: None, rendered: false }
    }

    fn rendered(path: &Path, refresh: Option<Timestamp>) -> Self {
        Self { refresh, rendered: true, ..Self::at(path) }
    }
}

/// What a kind may know and use.
pub(crate) struct Context<'a> {
    pub(crate) pod: &'a core::Pod,
    pub(crate) node: &'a Node,
    pub(crate) client: &'a Client,
    pub(crate) objects: &'a Objects,
    pub(crate) tokens: &'a Tokens,
    /// Addresses of the pod; empty before its sandbox has them.
    pub(crate) addresses: &'a [String],
    /// Bytes of memory that pods of this node may use: the size of a memory volume without a limit.
    pub(crate) memory: i64,
    pub(crate) now: Timestamp,
}

impl Context<'_> {
    fn fs_group(&self) -> Option<u32> {
        let context = self.pod.specification().security_context.as_ref()?;
        context.fs_group.and_then(|group| u32::try_from(group).ok())
    }
}

/// One kind of volume.
#[async_trait]
trait Kind: Send + Sync {
    /// Name of its directory, as every kubelet names it: `kubernetes.io~secret`.
    fn directory(&self) -> &'static str;

    fn owns(&self, volume: &core::Volume) -> bool;

    /// Makes the volume ready at `path`, which does not exist yet the first time. Idempotent.
    async fn set_up(&self, context: &Context<'_>, volume: &core::Volume, path: &Path) -> Result<Mounted, Error>;
}

/// Every kind of volume this node can set up.
const KINDS: &[&dyn Kind] = &[
    &empty_dir::EmptyDir,
    &host_path::HostPath,
    &config_map::ConfigMap,
    &secret::Secret,
    &projected::Projected,
    &downward_api::DownwardApi,
    &claim::Claim,
    &image::Image,
];

/// The volumes of one pod that are set up.
#[derive(Default)]
pub(crate) struct Volumes {
    mounted: HashMap<String, Mounted>,
}

/// A volume that could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" ")]
pub(crate) struct SetUpError {
    pub(crate) volume: String,
    #[source]
    pub(crate) source: Error,
}

impl Volumes {
    /// Sets up what is not, renders anew what comes from the API. Stops at the first failure.
    pub(crate) async fn set_up(&mut self, context: &Context<'_>, pod_dir: &Path) -> Result<(), SetUpError> {
        for volume in context.pod.specification().volumes.iter().flatten() {
            if self.mounted.get(&volume.name).is_some_and(|mounted| !mounted.rendered) {
                continue;
            }
            let mounted = set_up(context, volume, pod_dir).await;
            let mounted = mounted.map_err(|source| SetUpError { volume: volume.name.clone(), source })?;
            self.mounted.insert(volume.name.clone(), mounted);
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Mounted> {
        self.mounted.get(name)
    }

    /// When something must be rendered anew without a change in the API: the earliest token to rotate.
    pub(crate) fn refresh_at(&self) -> Option<Timestamp> {
        self.mounted.values().filter_map(|mounted| mounted.refresh).min()
    }

    pub(crate) fn clear(&mut self) {
        self.mounted.clear();
    }
}

async fn set_up(context: &Context<'_>, volume: &core::Volume, pod_dir: &Path) -> Result<Mounted, Error> {
    let kind = KINDS.iter().find(|kind| kind.owns(volume));
    let kind = kind.ok_or_else(|| Error::Refused("no volume plugin matched".to_owned()))?;
    let path = path_of(pod_dir, kind.directory(), &volume.name);
    kind.set_up(context, volume, &path).await
}

fn path_of(pod_dir: &Path, directory: &str, name: &str) -> PathBuf {
    pod_dir.join("volumes").join(directory).join(name)
}

/// The host directory of an emptyDir of the pod.
pub(crate) fn empty_dir_path(pod: &core::Pod, pod_dir: &Path, name: &str) -> Option<PathBuf> {
    let volume = pod.specification().volumes.iter().flatten().find(|volume| volume.name == name)?;
    volume.empty_dir.as_ref()?;
    Some(path_of(pod_dir, empty_dir::EmptyDir.directory(), name))
}

/// Mounts a tmpfs of at most `bytes` at `path`, unless one is there.
fn mount_tmpfs(path: &Path, bytes: Option<i64>) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
    if teardown::is_mount_point(path).map_err(Error::io("inspect", path))? {
        return Ok(());
    }
    let options = bytes.filter(|bytes| *bytes > 0).map(|bytes| format!("size={bytes}"));
    let none: Option<&str> = None;
    nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), nix::mount::MsFlags::empty(), options.as_deref().or(none))
        .map_err(|errno| Error::io("mount a tmpfs at", path)(errno.into()))
}
