//! What the runtime has of one pod, read anew for each sync.
//!
//! Exited containers never change, so their answers (and the termination message read from disk) are kept by id.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use futures::future::try_join_all;
use jiff::Timestamp;

use crate::cri::{self, Runtime, v1};
use crate::{labels, termination};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited,
    /// The runtime lost track of it.
    Unknown,
}

/// One run of a container.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sandbox: String,
    /// Runs before this one.
    pub(crate) attempt: u32,
    pub(crate) state: State,
    pub(crate) created: Timestamp,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, ...
    pub(crate) reason: String,
    /// The termination message, or what the runtime says of a failed start.
    pub(crate) message: String,
    /// As the user wrote it.
    pub(crate) image: String,
    /// By digest where the runtime knows one.
    pub(crate) image_ref: String,
    pub(crate) hash: String,
    pub(crate) log_path: String,
    /// What the runtime enforces; absent from runtimes that do not say.
    pub(crate) resources: Option<v1::LinuxContainerResources>,
    pub(crate) user: Option<v1::LinuxContainerUser>,
    /// Seconds of grace that the pod had when it was created, for pods the API no longer knows.
    pub(crate) grace: Option<i64>,
}

/// One sandbox of the pod.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    pub(crate) created: i64,
    /// Asked only for the newest one.
    pub(crate) addresses: Vec<String>,
    pub(crate) host_network: bool,
}

/// Sandboxes and containers of one pod, each list newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) sandboxes: Vec<Sandbox>,
    pub(crate) instances: Vec<Instance>,
}

impl Observed {
    pub(crate) fn newest(&self, container: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == container)
    }

    /// Every run of `container`, newest first.
    pub(crate) fn runs<'a>(&'a self, container: &'a str) -> impl Iterator<Item = &'a Instance> {
        self.instances.iter().filter(move |instance| instance.name == container)
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.state == State::Running)
    }

    /// The sandbox that containers may start in.
    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }
}

/// Reads pods from the runtime and keeps what cannot change.
#[derive(Default)]
pub(crate) struct Observer {
    exited: HashMap<String, Instance>,
}

impl Observer {
    /// Everything the runtime has under the pod's UID.
    pub(crate) async fn observe(&mut self, runtime: &Runtime, uid: &str) -> Result<Observed, cri::Error> {
        let by_uid = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let (sandboxes, containers) =
            futures::try_join!(runtime.sandboxes(by_uid.clone()), runtime.containers(by_uid))?;

        let mut sandboxes: Vec<Sandbox> = sandboxes.into_iter().map(sandbox).collect();
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created, sandbox.attempt)));
        if let Some(newest) = sandboxes.first_mut().filter(|sandbox| sandbox.ready) {
            match runtime.sandbox_status(&newest.id).await {
                Ok(status) => refine(newest, status),
                Err(error) if error.is_not_found() => newest.ready = false,
                Err(error) => return Err(error),
            }
        }

        let fresh = containers.iter().filter(|container| !self.exited.contains_key(&container.id));
        let fresh = try_join_all(fresh.map(|container| async move {
            match runtime.container_status(&container.id).await {
                Ok(status) => Ok(Some((container, status))),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        }))
        .await?;
        let mut instances = BTreeMap::new();
        for (container, status) in fresh.into_iter().flatten() {
            let instance = instance(container, &status);
            if instance.state == State::Exited {
                self.exited.insert(instance.id.clone(), instance.clone());
            }
            instances.insert(instance.id.clone(), instance);
        }
        self.exited.retain(|id, _| containers.iter().any(|container| container.id == *id));
        instances.extend(self.exited.iter().map(|(id, instance)| (id.clone(), instance.clone())));
        let mut instances: Vec<Instance> = instances.into_values().collect();
        instances.sort_by_key(|instance| std::cmp::Reverse((instance.attempt, instance.created)));
        Ok(Observed { sandboxes, instances })
    }
}

fn sandbox(from: v1::PodSandbox) -> Sandbox {
    Sandbox {
        ready: from.state() == v1::PodSandboxState::SandboxReady,
        id: from.id,
        attempt: from.metadata.map_or(0, |metadata| metadata.attempt),
        created: from.created_at,
        addresses: Vec::new(),
        host_network: false,
    }
}

fn refine(sandbox: &mut Sandbox, status: v1::PodSandboxStatus) {
    sandbox.ready = status.state() == v1::PodSandboxState::SandboxReady;
    let namespaces = status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    sandbox.host_network = namespaces.is_some_and(|options| options.network() == v1::NamespaceMode::Node);
    if let Some(network) = status.network {
        let rest = network.additional_ips.into_iter().map(|address| address.ip);
        let all = std::iter::once(network.ip).chain(rest);
        sandbox.addresses = all.filter(|address| !address.is_empty()).collect();
    }
}

fn instance(listed: &v1::Container, status: &v1::ContainerStatus) -> Instance {
    let state = match status.state() {
        v1::ContainerState::ContainerCreated => State::Created,
        v1::ContainerState::ContainerRunning => State::Running,
        v1::ContainerState::ContainerExited => State::Exited,
        v1::ContainerState::ContainerUnknown => State::Unknown,
    };
    let annotation = |name: &str| status.annotations.get(name).cloned();
    let image = status.image.as_ref();
    let image = image.map(|image| match image.user_specified_image.as_str() {
        "" => image.image.clone(),
        named => named.to_owned(),
    });
    let reason = match (state, status.reason.as_str(), status.exit_code) {
        (State::Exited, "", 0) => "Completed",
        (State::Exited, "", _) => "Error",
        (_, reason, _) => reason,
    };
    let mut instance = Instance {
        id: status.id.clone(),
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default(),
        sandbox: listed.pod_sandbox_id.clone(),
        attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        state,
        created: time(status.created_at).unwrap_or_default(),
        started: time(status.started_at),
        finished: time(status.finished_at),
        exit_code: status.exit_code,
        reason: reason.to_owned(),
        message: status.message.clone(),
        image: image.unwrap_or_default(),
        image_ref: status.image_ref.clone(),
        hash: annotation(labels::HASH).unwrap_or_default(),
        log_path: status.log_path.clone(),
        resources: status.resources.as_ref().and_then(|resources| resources.linux.clone()),
        user: status.user.as_ref().and_then(|user| user.linux.clone()),
        grace: annotation(labels::GRACE).and_then(|grace| grace.parse().ok()),
    };
    if state == State::Exited {
        let path = annotation(labels::TERMINATION_PATH).unwrap_or_default();
        let mounted = status.mounts.iter().find(|mount| !path.is_empty() && mount.container_path == path);
        let file = mounted.map(|mount| Path::new(&mount.host_path));
        let from_log = annotation(labels::TERMINATION_POLICY).as_deref() == Some("FallbackToLogsOnError");
        let log = Path::new(&status.log_path);
        if let Some(message) = termination::message(file, from_log && status.exit_code != 0, log) {
            instance.message = message;
        }
    }
    instance
}

/// CRI times are nanoseconds since the epoch; zero means never.
fn time(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds <= 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}
