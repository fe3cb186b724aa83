//! The runtime: everything behind the CRI calls.
//!
//! State is in three places, and the last wins: the directories on disk (what was asked for), the shims (what runs),
//! and the maps here, which are rebuilt from the two at open. So the server may die at any moment.

mod adopt;
mod containers;
mod exec;
mod sandboxes;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub(crate) use self::exec::ExecStreams;
use crate::cgroup::{self, Cgroups};
use crate::config::Config;
use crate::container::Container;
use crate::cri::ContainerEventType;
use crate::images::Images;
use crate::sandbox::Sandbox;
use crate::shims::{self, Zygote};
use crate::streams::Tokens;
use crate::{images, server, spec, streams};

/// Events kept for a listener that is slow; one that is slower hears that it missed some and lists anew.
const EVENTS: usize = 1024;
/// How long a killed container may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {id:?} not found")]
    NotFound { what: &'static str, id: String },
    #[error("{0}")]
    Exists(String),
    #[error("{0}")]
    State(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Timeout(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("{what}")]
    Io { what: String, source: std::io::Error },
    #[error("{0}")]
    Shim(String),
    #[error("{what}")]
    Network { what: String, source: anyhow::Error },
    #[error(transparent)]
    Image(#[from] images::Error),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

impl From<shims::Error> for Error {
    fn from(error: shims::Error) -> Error {
        Error::Shim(crate::chain(&error))
    }
}

impl From<cgroup::Error> for Error {
    fn from(error: cgroup::Error) -> Error {
        Error::Shim(crate::chain(&error))
    }
}

impl From<spec::Error> for Error {
    fn from(error: spec::Error) -> Error {
        Error::Invalid(crate::chain(&error))
    }
}

/// Something that happened to a container or sandbox (by its id).
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) kind: ContainerEventType,
    pub(crate) at: i64,
}

/// A container runtime. Clones are the same one.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) images: Images,
    pub(crate) cgroups: Cgroups,
    pub(crate) sandboxes: RwLock<BTreeMap<String, Arc<Sandbox>>>,
    pub(crate) containers: RwLock<BTreeMap<String, Arc<Container>>>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) tokens: Tokens,
    zygote: Zygote,
    /// Ends what runs beside the calls.
    background: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.background.cancel();
    }
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

impl Runtime {
    /// Opens the state, adopts what runs, completes or removes what is half-done, imports the preload folder.
    pub async fn open(config: Config) -> Result<Runtime, Error> {
        // A program that composes more may have chosen one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        for dir in [
            config.root.join("sandboxes"),
            config.root.join("containers"),
            config.run_dir.join("s"),
            config.run_dir.join("netns"),
            config.run_dir.join("shm"),
        ] {
            std::fs::create_dir_all(&dir).map_err(Error::io(format!("cannot make {}", dir.display())))?;
        }
        let images = Images::open(&config.root, config.registries.clone())?;
        let cgroups = Cgroups::detect().map_err(Error::io("cannot use control groups"))?;
        let zygote = Zygote::new(config.shim_command.clone(), config.run_dir.join("shim.log"));
        let inner = Inner {
            images,
            cgroups,
            zygote,
            config,
            sandboxes: RwLock::default(),
            containers: RwLock::default(),
            events: broadcast::Sender::new(EVENTS),
            tokens: Tokens::default(),
            background: CancellationToken::new(),
        };
        let runtime = Runtime { inner: Arc::new(inner) };
        runtime.adopt().await?;
        runtime.preload().await;
        Ok(runtime)
    }

    /// Serves CRI on `listener` and exec, attach and port-forward on their own socket, until `cancel`.
    pub async fn serve(&self, listener: tokio::net::UnixListener, cancel: CancellationToken) -> Result<(), Error> {
        let socket = &self.inner.config.streaming_socket;
        let _ = std::fs::remove_file(socket);
        let streaming = tokio::net::UnixListener::bind(socket)
            .map_err(Error::io(format!("cannot listen on {}", socket.display())))?;
        let streams = streams::serve(self.clone(), streaming, cancel.clone());
        let calls = server::serve(self.clone(), listener, cancel);
        let (calls, ()) = tokio::join!(calls, streams);
        calls.map_err(|error| Error::io("serving CRI failed")(std::io::Error::other(error)))
    }

    /// The images, for those who import, list and remove them without CRI.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// Takes a name away, and the image with its last one, unless containers stand on it. `false`: there is none.
    pub fn remove_image(&self, reference: &str) -> Result<bool, images::Error> {
        self.inner.images.untag(reference, &self.layers_in_use())
    }

    /// Stops and removes all sandboxes and containers, and the cgroup they are in by default; images stay.
    pub async fn remove_all(&self) -> Result<(), Error> {
        let all: Vec<String> = self.inner.sandboxes.read().keys().cloned().collect();
        let removed = futures::future::join_all(all.iter().map(|id| self.remove_sandbox(id))).await;
        removed.into_iter().collect::<Result<(), Error>>()?;
        let parent = self.inner.config.cgroup_parent.trim_matches('/');
        if !parent.is_empty() {
            self.inner.cgroups.remove(parent);
        }
        Ok(())
    }

    async fn preload(&self) {
        let Some(dir) = self.inner.config.preload.clone() else { return };
        let runtime = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            for (path, imported) in runtime.inner.images.preload(&dir) {
                match imported {
                    Ok(image) => {
                        tracing::info!(path = %path.display(), id = image.id, tags = ?image.tags, "preloaded image");
                    }
                    Err(error) => {
                        tracing::warn!(path = %path.display(), error = %crate::chain(&error), "cannot preload")
                    }
                }
            }
        });
        let _ = done.await;
    }

    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        find(&self.inner.sandboxes.read(), "pod sandbox", id)
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        find(&self.inner.containers.read(), "container", id)
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.inner.containers.read().values().filter(|container| container.record.sandbox == sandbox).cloned().collect()
    }

    /// Layers that containers stand on.
    pub(crate) fn layers_in_use(&self) -> BTreeSet<String> {
        self.inner.containers.read().values().flat_map(|container| container.record.layers.iter().cloned()).collect()
    }

    pub(crate) fn emit(&self, id: &str, sandbox: &str, kind: ContainerEventType) {
        // Nobody may be listening.
        let _ = self.inner.events.send(Event { id: id.to_owned(), sandbox: sandbox.to_owned(), kind, at: now() });
    }
}

/// By id, or by a beginning that only one has.
fn find<T>(all: &BTreeMap<String, Arc<T>>, what: &'static str, id: &str) -> Result<Arc<T>, Error> {
    let not_found = || Error::NotFound { what, id: id.to_owned() };
    if let Some(found) = all.get(id) {
        return Ok(Arc::clone(found));
    }
    if id.len() < 6 {
        return Err(not_found());
    }
    let mut matches = all.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
    match (matches.next(), matches.next()) {
        (Some((_, found)), None) => Ok(Arc::clone(found)),
        _ => Err(not_found()),
    }
}
