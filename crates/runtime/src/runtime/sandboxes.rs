//! Sandboxes: run, stop, remove.

use std::sync::Arc;
use std::time::Duration;

use super::{Error, Runtime, now};
use crate::cri::{self, ContainerEventType};
use crate::sandbox::{Record, Sandbox};
use crate::shim::protocol::Request;

/// A shim that does not answer a shutdown in time is killed.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

impl Runtime {
    pub(crate) async fn run_sandbox(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String, Error> {
        if !handler.is_empty() && handler != "runc" {
            return Err(Error::NotFound { what: "runtime handler", id: handler.to_owned() });
        }
        let metadata =
            config.metadata.clone().ok_or_else(|| Error::Invalid("the sandbox has no metadata".to_owned()))?;
        let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let users = security.and_then(|security| security.namespace_options.as_ref()?.userns_options.as_ref());
        if users.is_some_and(|users| users.mode == cri::NamespaceMode::Pod as i32) {
            return Err(Error::Unsupported(
                "user namespaces are not supported by this runtime; set hostUsers: true".to_owned(),
            ));
        }
        let record = Record {
            id: crate::id::random(),
            runtime_handler: handler.to_owned(),
            created_at: now(),
            ..Record::default()
        };
        let sandbox =
            Sandbox::new(&self.inner.config, config, record).map_err(Error::io("cannot reach the run directory"))?;
        let sandbox = Arc::new(sandbox);
        // Held until all is done: whoever wants to stop or remove it waits.
        let _turn = sandbox.turn.lock().await;
        {
            let mut all = self.inner.sandboxes.write();
            let name = |metadata: &cri::PodSandboxMetadata| {
                (metadata.name.clone(), metadata.namespace.clone(), metadata.uid.clone(), metadata.attempt)
            };
            if let Some(other) = all.values().find(|other| name(&other.metadata()) == name(&metadata)) {
                let text =
                    format!("the name of attempt {} of pod {}/{}", metadata.attempt, metadata.namespace, metadata.name);
                return Err(Error::Exists(format!("{text} is taken by sandbox {}", other.id)));
            }
            all.insert(sandbox.id.clone(), Arc::clone(&sandbox));
        }
        if let Err(error) = self.make(&sandbox).await {
            self.unmake(&sandbox).await;
            self.forget_sandbox(&sandbox);
            return Err(error);
        }
        self.emit(&sandbox.id, &sandbox.id, ContainerEventType::ContainerCreatedEvent);
        self.emit(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStartedEvent);
        Ok(sandbox.id.clone())
    }

    async fn make(&self, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        sandbox.prepare().map_err(Error::io(format!("cannot prepare sandbox {}", sandbox.id)))?;
        if let Some(logs) = Some(&sandbox.config.log_directory).filter(|logs| !logs.is_empty()) {
            std::fs::create_dir_all(logs).map_err(Error::io(format!("cannot make the log directory {logs}")))?;
        }
        let reply = self.inner.zygote.fork(sandbox.namespaces()).await?;
        {
            let mut record = sandbox.record.lock();
            record.shim = reply.pid;
            record.reaper = reply.reaper;
        }
        if let Some(netns) = &sandbox.netns {
            let request = sandbox.network_request();
            let addresses = self.inner.config.network.setup(netns, &request).await.map_err(|source| {
                Error::Network { what: format!("failed to set up the network of sandbox {}", sandbox.id), source }
            })?;
            sandbox.record.lock().ips = addresses;
        }
        sandbox.record.lock().ready = true;
        sandbox.save().map_err(Error::io(format!("cannot record sandbox {}", sandbox.id)))?;
        self.follow(Arc::clone(sandbox)).await?;
        Ok(())
    }

    /// Ends all containers and gives the network back; no error for one that is not there.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        self.stop(&sandbox).await
    }

    async fn stop(&self, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        let containers = self.containers_of(&sandbox.id);
        let stops = containers.iter().map(|container| self.stop_container(&container.id, Duration::ZERO));
        futures::future::join_all(stops).await.into_iter().collect::<Result<(), _>>()?;
        if !sandbox.is_ready() {
            return Ok(());
        }
        // Before anything is taken away: the end of the shim is meant from here on.
        sandbox.record.lock().ready = false;
        if let Err(error) = self.teardown_network(sandbox).await {
            sandbox.record.lock().ready = true;
            return Err(error);
        }
        self.end_shim(sandbox).await;
        sandbox.unmount();
        sandbox.save().map_err(Error::io(format!("cannot record sandbox {}", sandbox.id)))?;
        self.emit(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
        Ok(())
    }

    async fn teardown_network(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let Some(netns) = &sandbox.netns else { return Ok(()) };
        let request = sandbox.network_request();
        self.inner.config.network.teardown(netns, &request).await.map_err(|source| Error::Network {
            what: format!("failed to take down the network of sandbox {}", sandbox.id),
            source,
        })
    }

    async fn end_shim(&self, sandbox: &Sandbox) {
        let shutdown = sandbox.shim.call(&Request::Shutdown, &[]);
        let answered = matches!(tokio::time::timeout(SHUTDOWN_PATIENCE, shutdown).await, Ok(Ok(_)));
        let shim = sandbox.record.lock().shim;
        if let (false, Some(pid)) = (answered, shim) {
            kill_shim(pid);
        }
    }

    /// Removes a stopped or running sandbox with its containers; no error for one that is not there.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        self.stop(&sandbox).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        self.forget_sandbox(&sandbox);
        self.emit(&sandbox.id, &sandbox.id, ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    /// Undoes a sandbox that did not become ready.
    pub(super) async fn unmake(&self, sandbox: &Sandbox) {
        if let Err(error) = self.teardown_network(sandbox).await {
            tracing::warn!(sandbox = sandbox.id, error = %crate::chain(&error), "left-over network");
        }
        self.end_shim(sandbox).await;
        sandbox.unmount();
    }

    pub(super) fn forget_sandbox(&self, sandbox: &Sandbox) {
        self.inner.sandboxes.write().remove(&sandbox.id);
        let own_cgroup = self.default_cgroup(&sandbox.id);
        self.inner.cgroups.remove(&own_cgroup);
        if let Err(error) = std::fs::remove_dir_all(&sandbox.dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(sandbox = sandbox.id, %error, "cannot remove the sandbox's directory");
        }
    }

    /// For sandboxes whose pod has no cgroup of its own.
    pub(crate) fn default_cgroup(&self, sandbox: &str) -> String {
        format!("{}/{sandbox}", self.inner.config.cgroup_parent.trim_end_matches('/'))
    }
}

/// Kills a process if it is a shim: numbers are used again.
pub(super) fn kill_shim(pid: i32) {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim() == "navarch-shim" {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}
