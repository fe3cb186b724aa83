//! The status of a pod, from what the runtime has.
//!
//! Pure: the same inputs give the same status. [`super::publish`] writes it to the API.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::{Instance, Observed, State};
use super::plan::Health;
use super::resize::Pending;
use super::{Kind, PodExt, conditions, phase, resources, restart};

/// Why a container that should run does not: what its `waiting` state shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A verdict on the whole pod that no container shows: eviction, deadline, rejection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Everything a status is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a core::Pod,
    pub(crate) observed: &'a Observed,
    /// The status last written, or the API's.
    pub(crate) old: &'a core::PodStatus,
    /// Reasons from the last sync, by container.
    pub(crate) waiting: &'a HashMap<String, Waiting>,
    pub(crate) health: &'a dyn Fn(&str) -> Option<Health>,
    pub(crate) failure: Option<&'a Failure>,
    /// A resize that the node has not accepted, and why an accepted one is not applied.
    pub(crate) pending: Option<&'a Pending>,
    pub(crate) resize_error: Option<&'a str>,
    /// Nothing of the pod will start again.
    pub(crate) terminal: bool,
    pub(crate) node_addresses: &'a [String],
    /// `containerd`, `navarch`: the scheme of container ids.
    pub(crate) runtime_name: &'a str,
    /// The pod's address once it has one; kept after its sandbox is gone.
    pub(crate) addresses: &'a [String],
    pub(crate) start: Timestamp,
    pub(crate) now: Timestamp,
}

pub(crate) fn status(from: &Inputs<'_>) -> core::PodStatus {
    let (pod, old) = (from.pod, from.old);
    let of = |wanted: &dyn Fn(Kind) -> bool, old: &Option<Vec<core::ContainerStatus>>| {
        let containers = pod.containers();
        let chosen = containers.iter().filter(|(kind, _)| wanted(*kind));
        let all: Vec<core::ContainerStatus> = chosen
            .map(|(kind, spec)| {
                container(from, *kind, spec, old.iter().flatten().find(|status| status.name == spec.name))
            })
            .collect();
        (!all.is_empty()).then_some(all)
    };
    let init = of(&|kind| matches!(kind, Kind::Init | Kind::Sidecar), &old.init_container_statuses);
    let regular = of(&|kind| kind == Kind::Regular, &old.container_statuses);
    let ephemeral = of(&|kind| kind == Kind::Ephemeral, &old.ephemeral_container_statuses);
    let all: Vec<core::ContainerStatus> = init.iter().chain(&regular).flatten().cloned().collect();

    let initialized = pod.specification().containers.iter().any(|container| {
        from.observed.newest(&container.name).is_some_and(|instance| instance.state != State::Created)
    });
    let mut phase = phase::phase(pod, &all, from.terminal, initialized).to_owned();
    if from.failure.is_some() {
        "Failed".clone_into(&mut phase);
    }
    let final_phase = |status: &core::PodStatus| {
        status.phase.clone().filter(|phase| matches!(phase.as_str(), "Succeeded" | "Failed"))
    };
    if let Some(reached) = final_phase(pod.reported()).or_else(|| final_phase(old)) {
        phase = reached;
    }
    let kept = old.phase.as_deref() == Some(phase.as_str());
    let reason = from.failure.map(|failure| failure.reason.clone()).or_else(|| old.reason.clone().filter(|_| kept));
    let message = from.failure.map(|failure| failure.message.clone()).or_else(|| old.message.clone().filter(|_| kept));

    let before = pod.reported().conditions.clone().unwrap_or_default();
    let known = old.conditions.clone().unwrap_or_default();
    let foreign = before.iter().filter(|condition| !conditions::OWNED.contains(&condition.type_.as_str()));
    let owned = known.iter().filter(|condition| conditions::OWNED.contains(&condition.type_.as_str()));
    let merged: Vec<core::PodCondition> = owned.chain(foreign.clone()).cloned().collect();
    let sandboxed =
        from.observed.sandbox().is_some_and(|sandbox| pod.is_host_network() || !sandbox.addresses.is_empty());
    let mut conditions = conditions::conditions(pod, &merged, &all, &phase, sandboxed, from.now);
    if let Some(pending) = from.pending {
        conditions.push(conditions::resizing(
            pod,
            &merged,
            "PodResizePending",
            pending.reason,
            &pending.message,
            from.now,
        ));
    }
    if let Some(error) = from.resize_error {
        conditions.push(conditions::resizing(pod, &merged, "PodResizeInProgress", "Error", error, from.now));
    }
    conditions.extend(foreign.cloned());

    let pod_addresses: &[String] = match pod.is_host_network() && !from.node_addresses.is_empty() {
        true => from.node_addresses,
        false => from.addresses,
    };
    let pod_ips: Vec<_> = pod_addresses.iter().map(|ip| core::PodIP { ip: ip.clone() }).collect();
    let host_ips: Vec<_> = from.node_addresses.iter().map(|ip| core::HostIP { ip: ip.clone() }).collect();
    core::PodStatus {
        observed_generation: pod.generation(),
        phase: Some(phase),
        reason,
        message,
        conditions: Some(conditions),
        host_ip: from.node_addresses.first().cloned(),
        host_ips: (!host_ips.is_empty()).then_some(host_ips),
        pod_ip: pod_addresses.first().cloned(),
        pod_ips: (!pod_ips.is_empty()).then_some(pod_ips),
        start_time: Some(old.start_time.clone().unwrap_or(Time(from.start))),
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| resources::qos(pod).to_string())),
        init_container_statuses: init,
        container_statuses: regular,
        ephemeral_container_statuses: ephemeral,
        ..core::PodStatus::default()
    }
}

/// The status of one container.
fn container(
    from: &Inputs<'_>,
    kind: Kind,
    spec: &core::Container,
    old: Option<&core::ContainerStatus>,
) -> core::ContainerStatus {
    let pod = from.pod;
    let mut runs = from.observed.runs(&spec.name);
    let newest = runs.next();
    let previous = runs.find(|instance| instance.state == State::Exited);
    let mut status = core::ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        volume_mounts: mounts(spec),
        ..Default::default()
    };
    let old_end = old.and_then(|old| {
        let ended = |state: &Option<core::ContainerState>| state.as_ref()?.terminated.clone();
        ended(&old.state).or_else(|| ended(&old.last_state))
    });
    match newest {
        Some(instance) => {
            status.image.clone_from(&instance.image);
            status.image_id.clone_from(&instance.image_ref);
            status.container_id = Some(format!("{}://{}", from.runtime_name, instance.id));
            status.restart_count = i32::try_from(instance.attempt).unwrap_or(i32::MAX);
            status.state = Some(state(from, instance));
            let last = previous.map(|instance| terminated(from, instance));
            // The runtime may have lost the previous run; what was reported of it stands.
            let last = last.or_else(|| old_end.clone().filter(|end| end.container_id != status.container_id));
            status.last_state = last.map(end_state);
            status.resources = resources::reported(spec, instance);
            status.allocated_resources = spec.resources.as_ref().and_then(|resources| resources.requests.clone());
            status.user = instance.user.as_ref().map(|user| core::ContainerUser {
                linux: Some(core::LinuxContainerUser {
                    uid: user.uid,
                    gid: user.gid,
                    supplemental_groups: Some(user.supplemental_groups.clone()),
                }),
            });
        }
        None => without_instance(from, kind, spec, old, old_end, &mut status),
    }

    let starts = restart::should_start(pod, kind, spec, newest) && !from.terminal && from.failure.is_none();
    if starts && let Some(waiting) = from.waiting.get(&spec.name) {
        let ended = status.state.as_ref().and_then(|state| state.terminated.clone());
        if let Some(ended) = ended {
            status.last_state = Some(end_state(ended));
        }
        status.state = Some(waiting_state(&waiting.reason, &waiting.message));
    }
    let running = newest.filter(|_| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let health = running.map(|instance| (from.health)(&instance.id).unwrap_or(Health::NO_PROBES));
    status.started = Some(health.is_some_and(|health| health.started));
    status.ready = match kind {
        // Success is what readiness of an init container means.
        Kind::Init => ended_well(&status),
        Kind::Ephemeral => false,
        _ => health.is_some_and(|health| health.ready && health.started) && !(from.terminal && from.failure.is_some()),
    };
    status
}

/// A container the runtime has nothing of: not yet created, or lost.
fn without_instance(
    from: &Inputs<'_>,
    kind: Kind,
    spec: &core::Container,
    old: Option<&core::ContainerStatus>,
    old_end: Option<core::ContainerStateTerminated>,
    status: &mut core::ContainerStatus,
) {
    let pod = from.pod;
    let has_init = pod.specification().init_containers.as_ref().is_some_and(|init| !init.is_empty());
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    status.state = Some(waiting_state(reason, ""));
    let Some(old) = old else { return };
    status.restart_count = old.restart_count;
    status.last_state.clone_from(&old.last_state);
    let Some(state) = &old.state else { return };
    let past_init =
        pod.specification().containers.iter().any(|container| from.observed.newest(&container.name).is_some());
    if state.terminated.is_some() {
        // The runtime has removed a container whose end is known.
        *status = old.clone();
    } else if kind == Kind::Init && past_init {
        status.state = Some(core::ContainerState {
            terminated: Some(core::ContainerStateTerminated { reason: Some("Completed".into()), ..Default::default() }),
            ..Default::default()
        });
    } else if state.running.is_some() {
        let lost = core::ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..Default::default()
        };
        if from.terminal || restart::policy(pod, spec) == "Never" {
            status.state = Some(end_state(lost));
        } else {
            status.last_state = Some(end_state(old_end.unwrap_or(lost)));
            status.restart_count = old.restart_count + 1;
        }
    }
}

fn ended_well(status: &core::ContainerStatus) -> bool {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code == 0)
}

fn state(from: &Inputs<'_>, instance: &Instance) -> core::ContainerState {
    match instance.state {
        State::Running => core::ContainerState {
            running: Some(core::ContainerStateRunning { started_at: instance.started.map(Time) }),
            ..Default::default()
        },
        State::Exited => end_state(terminated(from, instance)),
        State::Created | State::Unknown => waiting_state("ContainerCreating", ""),
    }
}

fn terminated(from: &Inputs<'_>, instance: &Instance) -> core::ContainerStateTerminated {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    core::ContainerStateTerminated {
        container_id: Some(format!("{}://{}", from.runtime_name, instance.id)),
        exit_code: instance.exit_code,
        reason: some(&instance.reason),
        message: some(&instance.message),
        started_at: instance.started.map(Time),
        finished_at: instance.finished.map(Time),
        signal: None,
    }
}

fn end_state(ended: core::ContainerStateTerminated) -> core::ContainerState {
    core::ContainerState { terminated: Some(ended), ..Default::default() }
}

fn waiting_state(reason: &str, message: &str) -> core::ContainerState {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let waiting = core::ContainerStateWaiting { reason: some(reason), message: some(message) };
    core::ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn mounts(spec: &core::Container) -> Option<Vec<core::VolumeMountStatus>> {
    let mounts = spec.volume_mounts.as_ref()?;
    let statuses = mounts.iter().map(|mount| {
        let read_only = mount.read_only == Some(true);
        let asked = mount.recursive_read_only.as_deref() == Some("Enabled");
        let recursive = if asked { "Enabled" } else { "Disabled" };
        core::VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| recursive.to_owned()),
            volume_status: None,
        }
    });
    Some(statuses.collect())
}

#[cfg(test)]
mod tests;
