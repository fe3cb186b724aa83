//! Containers: create, start, stop, remove, change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Error, KILL_PATIENCE, Runtime, now};
use crate::container::{Container, FILTER, Record, State};
use crate::cri::{self, ContainerEventType, NamespaceMode};
use crate::images::Image;
use crate::images::view::View;
use crate::sandbox::Sandbox;
use crate::shim::protocol::{Request, Seccomp};
use crate::spec::{self, Inputs, Paths};

impl Runtime {
    pub(crate) async fn create_container(
        &self,
        sandbox_id: &str,
        config: cri::ContainerConfig,
    ) -> Result<String, Error> {
        let sandbox = self.sandbox(sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::State(format!("sandbox {} is not ready", sandbox.id)));
        }
        let metadata =
            config.metadata.clone().ok_or_else(|| Error::Invalid("the container has no metadata".to_owned()))?;
        check_supported(&config)?;
        let wanted = config.image.clone().unwrap_or_default().image;
        let image = self.inner.images.find(&wanted).ok_or(Error::NotFound { what: "image", id: wanted })?;
        let taken = self.containers_of(&sandbox.id).into_iter().find(|other| other.metadata() == metadata);
        if let Some(other) = taken {
            let text = format!("the name of attempt {} of container {}", metadata.attempt, metadata.name);
            return Err(Error::Exists(format!("{text} is taken by container {}", other.id)));
        }

        let record = self.record(&sandbox, &image, &config);
        let dir = self.inner.config.root.join("containers").join(&record.id);
        let container = match self.assemble(&sandbox, &image, config, record) {
            Ok(container) => Arc::new(container),
            Err(error) => {
                unmount_all(&dir);
                let _ = std::fs::remove_dir_all(&dir);
                return Err(error);
            }
        };
        self.inner.containers.write().insert(container.id.clone(), Arc::clone(&container));
        self.emit(&container.id, &sandbox.id, ContainerEventType::ContainerCreatedEvent);
        Ok(container.id.clone())
    }

    /// A new container's identity and what it takes from its image and pod.
    fn record(&self, sandbox: &Sandbox, image: &Image, config: &cri::ContainerConfig) -> Record {
        let id = crate::id::random();
        let parent = sandbox.config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
        let parent = if parent.is_empty() { self.default_cgroup(&sandbox.id) } else { parent };
        let log_path =
            (!config.log_path.is_empty()).then(|| Path::new(&sandbox.config.log_directory).join(&config.log_path));
        let stop_signal =
            cri::Signal::try_from(config.stop_signal).ok().filter(|signal| *signal != cri::Signal::RuntimeDefault);
        let stop_signal = stop_signal.map_or(image.config.config.stop_signal.as_str(), |signal| signal.as_str_name());
        Record {
            image_id: image.id.clone(),
            image_ref: image.digests.first().unwrap_or(&image.id).clone(),
            layers: image.layers.clone(),
            cgroup: format!("{}/{id}", parent.trim_end_matches('/')),
            log_path,
            stop_signal: spec::signal_number(stop_signal).unwrap_or(Signal::SIGTERM as i32),
            created_at: now(),
            sandbox: sandbox.id.clone(),
            user: serde_json::Value::Null,
            seccomp: None,
            id,
        }
    }

    /// The container's directory with its specification. What is left after an error is the caller's to remove.
    fn assemble(
        &self,
        sandbox: &Sandbox,
        image: &Image,
        config: cri::ContainerConfig,
        mut record: Record,
    ) -> Result<Container, Error> {
        let dir = self.inner.config.root.join("containers").join(&record.id);
        let layers = self.inner.images.layers();
        let view = View(record.layers.iter().rev().map(|layer| layers.join(layer)).collect());
        let seccomp = wants_filter(&config)?;
        let shm = if sandbox.has_host_ipc() { Path::new("/dev/shm").to_owned() } else { sandbox.shm.clone() };
        let inputs = Inputs {
            config: &config,
            image: &image.config,
            view: &view,
            paths: Paths {
                rootfs: dir.join("rootfs"),
                resolv_conf: sandbox.dir.join("resolv.conf"),
                hostname: sandbox.dir.join("hostname"),
                hosts: sandbox.dir.join("hosts"),
                shm,
                cgroups: self.inner.cgroups.views(&record.cgroup),
                images: self.mount_images(&config, &dir)?,
            },
            cgroup: &record.cgroup,
            cgroup_v2: self.inner.cgroups.is_v2(),
            hostname: &sandbox.hostname(),
            pid_namespace: self.pid_namespace(sandbox, &config)?,
            seccomp,
            available: &available_capabilities(),
        };
        let (spec, borrowed) = spec::build(&inputs)?;
        record.user = spec["process"]["user"].clone();
        record.seccomp = seccomp.then_some(borrowed);
        if let Some(parent) = record.log_path.as_deref().and_then(Path::parent) {
            std::fs::create_dir_all(parent)
                .map_err(Error::io(format!("cannot make the log directory {}", parent.display())))?;
        }
        let container = Container::new(&self.inner.config, config, record);
        let filter =
            seccomp.then(|| crate::seccomp::encode(&spec::bounding(&spec, container.record.seccomp.as_deref())));
        let prepared = container.prepare(&spec, filter.as_deref());
        prepared.map_err(Error::io(format!("cannot prepare container {}", container.id)))?;
        Ok(container)
    }

    /// Where a PID namespace that is not the container's own comes from.
    fn pid_namespace(&self, sandbox: &Sandbox, config: &cri::ContainerConfig) -> Result<Option<String>, Error> {
        let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = security.and_then(|security| security.namespace_options.clone());
        let options = options.unwrap_or_else(|| sandbox.namespace_options());
        match NamespaceMode::try_from(options.pid).unwrap_or(NamespaceMode::Container) {
            NamespaceMode::Pod => {
                let reaper = sandbox.record.lock().reaper;
                let reaper =
                    reaper.ok_or_else(|| Error::State(format!("sandbox {} shares no PID namespace", sandbox.id)))?;
                Ok(Some(format!("/proc/{reaper}/ns/pid")))
            }
            NamespaceMode::Target => {
                let target = self.container(&options.target_id)?;
                match *target.state.borrow() {
                    State::Running { pid, .. } if target.record.sandbox == sandbox.id => {
                        Ok(Some(format!("/proc/{pid}/ns/pid")))
                    }
                    _ => Err(Error::State(format!("target container {} is not running in this sandbox", target.id))),
                }
            }
            NamespaceMode::Container | NamespaceMode::Node => Ok(None),
        }
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), Error> {
        let container = self.container(id)?;
        let _turn = container.turn.lock().await;
        if *container.state.borrow() != State::Created {
            return Err(Error::State(format!("container {} has been started already", container.id)));
        }
        let sandbox = self.sandbox(&container.record.sandbox)?;
        match self.launch(&sandbox, &container).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let message = format!("failed to start container {}: {}", container.id, crate::chain(&error));
                let at = now();
                container.observe(State::Exited {
                    started_at: at,
                    finished_at: at,
                    code: 128,
                    reason: "StartError",
                    message: message.clone(),
                });
                self.inner.cgroups.remove(&container.record.cgroup);
                self.emit(&container.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
                Err(Error::Shim(message))
            }
        }
    }

    async fn launch(&self, sandbox: &Sandbox, container: &Container) -> Result<(), Error> {
        let cgroups = &self.inner.cgroups;
        let cgroup = &container.record.cgroup;
        cgroups.create(cgroup)?;
        if let Some(resources) = container.resources.read().as_ref() {
            cgroups.apply(cgroup, resources)?;
        }
        if cgroups.is_v2() {
            let spec = container.spec().map_err(Error::io(format!("cannot read container {}", container.id)))?;
            let rules = spec["linux"]["resources"]["devices"].as_array().cloned().unwrap_or_default();
            cgroups.restrict_devices(cgroup, &rules)?;
        }
        let overlay = container.overlay(self.inner.images.layers());
        let mut request = container.start_request(overlay, cgroups.procs(cgroup), cgroups.oom(cgroup));
        request.seccomp = self.seccomp(container);
        let reply = sandbox.shim.call(&Request::Start(request), &[]).await?;
        self.observe(
            container,
            State::Running { pid: reply.pid.unwrap_or(0), started_at: reply.started_at.unwrap_or_else(now) },
        );
        Ok(())
    }

    /// Takes what a shim says and tells it, in order: a short-lived container's end may arrive before the answer to its
    /// start.
    pub(super) fn observe(&self, container: &Container, state: State) {
        let over = matches!(state, State::Exited { .. });
        let Some(before) = container.observe(state) else { return };
        if before == State::Created {
            self.emit(&container.id, &container.record.sandbox, ContainerEventType::ContainerStartedEvent);
        }
        if over {
            self.emit(&container.id, &container.record.sandbox, ContainerEventType::ContainerStoppedEvent);
        }
    }

    pub(super) fn seccomp(&self, container: &Container) -> Option<Seccomp> {
        let borrowed = container.record.seccomp.clone()?;
        Some(Seccomp { program: container.dir.join(FILTER), borrowed })
    }

    /// Asks the container to end, and kills it when `grace` is over; no error for one that is not there or not running.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        // A start under way decides first what there is to stop.
        drop(container.turn.lock().await);
        if !container.is_running() {
            return Ok(());
        }
        let sandbox = self.sandbox(&container.record.sandbox)?;
        let kill = |signal: i32, all: bool| {
            let request = Request::Kill { container: container.id.clone(), signal, all };
            let shim = sandbox.shim.clone();
            async move { shim.call(&request, &[]).await }
        };
        let mut state = container.state.subscribe();
        let over = |state: &State| matches!(state, State::Exited { .. });
        if !grace.is_zero() {
            kill(container.record.stop_signal, false).await?;
            if tokio::time::timeout(grace, state.wait_for(over)).await.is_ok() {
                return Ok(());
            }
        }
        if let Err(error) = kill(Signal::SIGKILL as i32, true).await {
            // Without its shim a container is over as soon as that is noticed.
            tracing::debug!(container = container.id, %error, "cannot kill through the shim");
        }
        match tokio::time::timeout(KILL_PATIENCE, state.wait_for(over)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Timeout(format!(
                "container {} is still there {KILL_PATIENCE:?} after SIGKILL",
                container.id
            ))),
        }
    }

    /// Kills and removes; no error for one that is not there.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.stop_container(&container.id, Duration::ZERO).await?;
        let _turn = container.turn.lock().await;
        if let Ok(sandbox) = self.sandbox(&container.record.sandbox)
            && sandbox.is_ready()
        {
            let _ = sandbox.shim.call(&Request::Forget { container: container.id.clone() }, &[]).await;
        }
        self.remove_files(&container).await;
        self.inner.containers.write().remove(&container.id);
        self.emit(&container.id, &container.record.sandbox, ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    /// Mounts, cgroup and directory of a container that does not run.
    pub(super) async fn remove_files(&self, container: &Arc<Container>) {
        let dir = container.dir.clone();
        let _ = tokio::task::spawn_blocking(move || unmount_all(&dir)).await;
        // Killed processes leave their cgroup a moment later, and with version 1 nobody tells when.
        let mut pause = Duration::from_millis(1);
        while !self.inner.cgroups.remove(&container.record.cgroup) && pause < KILL_PATIENCE / 2 {
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let dir = container.dir.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(dir)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(container = container.id, %error, "cannot remove the container's directory");
        }
    }

    pub(crate) fn update_resources(&self, id: &str, resources: cri::LinuxContainerResources) -> Result<(), Error> {
        let container = self.container(id)?;
        if matches!(*container.state.borrow(), State::Exited { .. }) {
            return Err(Error::State(format!("container {} has exited", container.id)));
        }
        if container.is_running() {
            self.inner.cgroups.apply(&container.record.cgroup, &resources)?;
        }
        let mut known = container.resources.write();
        *known = Some(merge(known.take().unwrap_or_default(), resources));
        Ok(())
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let container = self.container(id)?;
        if !container.is_running() {
            return Err(Error::State(format!("container {} is not running", container.id)));
        }
        let sandbox = self.sandbox(&container.record.sandbox)?;
        sandbox.shim.call(&Request::ReopenLog { container: container.id.clone() }, &[]).await?;
        Ok(())
    }
}

/// What this process could hand on at most; nothing if the kernel does not tell.
fn available_capabilities() -> std::collections::BTreeSet<String> {
    let held = caps::read(None, caps::CapSet::Bounding).unwrap_or_default();
    held.into_iter().map(|capability| capability.to_string()).collect()
}

/// Refuses what would otherwise be left out silently.
fn check_supported(config: &cri::ContainerConfig) -> Result<(), Error> {
    if let Some(device) = config.cdi_devices.first() {
        return Err(Error::Unsupported(format!("CDI device {:?}: CDI is not supported by this runtime", device.name)));
    }
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let apparmor = security.and_then(|security| security.apparmor.as_ref());
    let localhost = cri::security_profile::ProfileType::Localhost as i32;
    match apparmor.filter(|profile| profile.profile_type == localhost) {
        Some(profile) => {
            let text =
                format!("AppArmor profile {:?}: AppArmor is not supported by this runtime", profile.localhost_ref);
            Err(Error::Unsupported(text))
        }
        None => Ok(()),
    }
}

/// Whether a container's system calls are to be filtered.
fn wants_filter(config: &cri::ContainerConfig) -> Result<bool, Error> {
    use cri::security_profile::ProfileType;
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let Some(security) = security.filter(|security| !security.privileged) else { return Ok(false) };
    let Some(profile) = &security.seccomp else { return Ok(false) };
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(true),
        Ok(ProfileType::Unconfined) => Ok(false),
        Ok(ProfileType::Localhost) | Err(_) => {
            let text = format!(
                "seccomp profile {:?}: only RuntimeDefault and Unconfined are supported",
                profile.localhost_ref
            );
            Err(Error::Unsupported(text))
        }
    }
}

/// Values of zero leave what is known.
fn merge(known: cri::LinuxContainerResources, new: cri::LinuxContainerResources) -> cri::LinuxContainerResources {
    let number = |new: i64, known: i64| if new == 0 { known } else { new };
    let text = |new: String, known: String| if new.is_empty() { known } else { new };
    cri::LinuxContainerResources {
        cpu_period: number(new.cpu_period, known.cpu_period),
        cpu_quota: number(new.cpu_quota, known.cpu_quota),
        cpu_shares: number(new.cpu_shares, known.cpu_shares),
        memory_limit_in_bytes: number(new.memory_limit_in_bytes, known.memory_limit_in_bytes),
        memory_swap_limit_in_bytes: number(new.memory_swap_limit_in_bytes, known.memory_swap_limit_in_bytes),
        oom_score_adj: number(new.oom_score_adj, known.oom_score_adj),
        cpuset_cpus: text(new.cpuset_cpus, known.cpuset_cpus),
        cpuset_mems: text(new.cpuset_mems, known.cpuset_mems),
        hugepage_limits: if new.hugepage_limits.is_empty() { known.hugepage_limits } else { new.hugepage_limits },
        unified: if new.unified.is_empty() { known.unified } else { new.unified },
    }
}

/// Unmounts what is mounted in a container's directory: its root and its image volumes.
fn unmount_all(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name == "rootfs" || name.starts_with("image-")) {
            while nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH).is_ok() {}
        }
    }
}
