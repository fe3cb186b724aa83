//! What a server finds when it starts, and how it hears what happens to containers afterwards.
//!
//! Each ready sandbox has a task that listens to its shim. The shim tells all it knows when the task connects, so ends
//! that happened while no server ran are news like any other. A shim that hangs up without having been told to is dead,
//! and its containers, which lost the reader of their output, end with it.

use std::sync::Arc;

use super::sandboxes::kill_shim;
use super::{Error, Runtime, now};
use crate::container::{Container, State};
use crate::cri::ContainerEventType;
use crate::sandbox::{Record, Sandbox, release};
use crate::shim::protocol::{Reply, Request};
use crate::shims::Call;

impl Runtime {
    pub(super) async fn adopt(&self) -> Result<(), Error> {
        let config = &self.inner.config;
        for dir in directories(&config.root.join("containers"))? {
            match Container::load(config, &dir) {
                Ok(container) => {
                    self.inner.containers.write().insert(container.id.clone(), Arc::new(container));
                }
                Err(why) => {
                    tracing::info!(dir = %dir.display(), why, "removing a half-made container");
                    let _ = std::fs::remove_dir_all(&dir);
                }
            }
        }
        let mut known = Vec::new();
        for dir in directories(&config.root.join("sandboxes"))? {
            let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Without a readable configuration it is as good as never made.
            let (sandbox_config, record) = Sandbox::load(&dir).unwrap_or_default();
            let was_made = record.is_some();
            let record = record.unwrap_or_else(|| Record { id: id.clone(), ..Record::default() });
            let sandbox =
                Sandbox::new(config, sandbox_config, record).map_err(Error::io("cannot reach the run directory"))?;
            let sandbox = Arc::new(sandbox);
            known.push(id);
            if was_made {
                self.inner.sandboxes.write().insert(sandbox.id.clone(), Arc::clone(&sandbox));
                if sandbox.is_ready() && self.follow(Arc::clone(&sandbox)).await.is_err() {
                    self.shim_died(&sandbox).await;
                }
            } else {
                tracing::info!(sandbox = sandbox.id, "removing a half-made sandbox");
                self.unmake(&sandbox).await;
                self.forget_sandbox(&sandbox);
            }
        }
        let containers: Vec<_> = self.inner.containers.read().values().cloned().collect();
        for container in containers {
            if !known.contains(&container.record.sandbox) {
                self.lost(&container);
                let _ = self.remove_container(&container.id).await;
            }
        }
        self.sweep_run_dir(&known).await;
        let in_use = self.layers_in_use();
        self.inner.images.sweep(&in_use)?;
        Ok(())
    }

    /// Names in the kernel that belong to no known sandbox.
    async fn sweep_run_dir(&self, known: &[String]) {
        let run = &self.inner.config.run_dir;
        let prefix = format!("{}-", self.inner.config.prefix);
        for (dir, directory) in [("s", false), ("netns", false), ("shm", true)] {
            for entry in std::fs::read_dir(run.join(dir)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let id = name.strip_prefix(&prefix).unwrap_or(&name);
                if known.iter().any(|known| known == id) {
                    continue;
                }
                if dir == "s"
                    && let Ok(shim) = crate::shims::Shim::new(&entry.path())
                {
                    let _ = shim.call(&Request::Shutdown, &[]).await;
                }
                tracing::info!(path = %entry.path().display(), "removing a left-over");
                release(&entry.path(), directory);
            }
        }
    }

    /// Connects to the shim, takes in what it knows, and goes on listening in a task.
    pub(super) async fn follow(&self, sandbox: Arc<Sandbox>) -> Result<(), Error> {
        let (first, _, call) = sandbox.shim.open_call(&Request::Events, &[]).await?;
        {
            let mut record = sandbox.record.lock();
            record.shim = first.pid;
            record.reaper = first.reaper;
        }
        self.take_in(&first);
        // A container that was running and of which its shim knows nothing ended in between.
        for container in self.containers_of(&sandbox.id) {
            if container.is_running() && !first.containers.iter().any(|status| status.id == container.id) {
                self.lost(&container);
            }
        }
        // The task must not keep the runtime alive: it would never close.
        let runtime = Arc::downgrade(&self.inner);
        let cancel = self.inner.background.clone();
        tokio::spawn(async move {
            let listening = listen(call, |reply| {
                if let Some(inner) = runtime.upgrade() {
                    Runtime { inner }.take_in(&reply);
                }
            });
            if cancel.run_until_cancelled(listening).await.is_none() {
                return;
            }
            if let Some(inner) = runtime.upgrade()
                && sandbox.is_ready()
            {
                Runtime { inner }.shim_died(&sandbox).await;
            }
        });
        Ok(())
    }

    fn take_in(&self, reply: &Reply) {
        for status in &reply.containers {
            let Ok(container) = self.container(&status.id) else { continue };
            self.observe(&container, State::from_status(status));
        }
    }

    async fn shim_died(&self, sandbox: &Arc<Sandbox>) {
        tracing::warn!(sandbox = sandbox.id, "the shim is gone; ending what it held");
        for container in self.containers_of(&sandbox.id) {
            self.lost(&container);
        }
        let request = sandbox.network_request();
        if let Some(netns) = &sandbox.netns
            && let Err(error) = self.inner.config.network.teardown(netns, &request).await
        {
            tracing::warn!(sandbox = sandbox.id, %error, "left-over network");
        }
        let shim = {
            let mut record = sandbox.record.lock();
            record.ready = false;
            record.shim.take()
        };
        if let Some(pid) = shim {
            kill_shim(pid);
        }
        sandbox.unmount();
        if let Err(error) = sandbox.save() {
            tracing::warn!(sandbox = sandbox.id, %error, "cannot record the end of the sandbox");
        }
        self.emit(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
    }

    /// Ends a container whose shim knows nothing of it. The shim's last word counts if it had one.
    fn lost(&self, container: &Arc<Container>) {
        let last = std::fs::read(container.dir.join("status.json")).ok();
        let last = last.and_then(|json| serde_json::from_slice(&json).ok()).map(|status| State::from_status(&status));
        let started_at = match (&last, &*container.state.borrow()) {
            (Some(State::Running { started_at, .. }), _) | (_, State::Running { started_at, .. }) => *started_at,
            (Some(State::Exited { .. }), _) => 0,
            _ => return,
        };
        let ended = match last {
            Some(exited @ State::Exited { .. }) => exited,
            _ => State::Exited {
                started_at,
                finished_at: now(),
                code: 255,
                reason: "Unknown",
                message: "the process that watched the container is gone".to_owned(),
            },
        };
        for pid in self.inner.cgroups.pids(&container.record.cgroup) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        self.observe(container, ended);
    }
}

async fn listen(mut call: Call, mut each: impl FnMut(Reply)) {
    while let Ok((reply, _)) = call.reply().await {
        each(reply);
    }
}

fn directories(path: &std::path::Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let entries = std::fs::read_dir(path).map_err(Error::io(format!("cannot list {}", path.display())))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}
