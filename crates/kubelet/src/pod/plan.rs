//! What to do next so that the runtime has what the pod asks for.
//!
//! Pure: a pod, what the runtime has, and what the probes say go in; sandboxes and containers to stop and start come
//! out. Back-off is not decided here: a container listed in `start` may still have to wait.

use k8s_openapi::api::core::v1 as core;
use sha2::{Digest, Sha256};

use super::observed::{Instance, Observed, State};
use super::restart::{self, Verdict};
use super::{Kind, PodExt};

/// What the probes know of one running container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// The startup probe passed, or there is none.
    pub(crate) started: bool,
    pub(crate) ready: bool,
    pub(crate) liveness_failed: bool,
    pub(crate) startup_failed: bool,
}

impl Health {
    pub(crate) const NO_PROBES: Self =
        Self { started: true, ready: true, liveness_failed: false, startup_failed: false };
}

/// A running container that must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Liveness,
    Startup,
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Stop everything, the sandbox too: the pod is done, or its sandbox is lost.
    pub(crate) stop_pod: bool,
    /// Run a new sandbox with this attempt number.
    pub(crate) sandbox: Option<u32>,
    pub(crate) stop: Vec<Stop>,
    /// Names of containers to start, in order.
    pub(crate) start: Vec<String>,
    /// A container's rule asks to remove every container and begin again in the same sandbox.
    pub(crate) reset: bool,
}

/// The hash kept on a container: its name and image, the parts whose change needs a new container.
pub(crate) fn hash(container: &core::Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{}\n{image}", container.name));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn plan(pod: &core::Pod, observed: &Observed, health: &dyn Fn(&str) -> Option<Health>) -> Plan {
    let newest = observed.sandboxes.first();
    let ready = observed.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let usable = newest.filter(|sandbox| {
        let addressed = pod.is_host_network() || !sandbox.addresses.is_empty();
        ready == 1 && sandbox.ready && sandbox.host_network == pod.is_host_network() && addressed
    });
    let Some(sandbox) = usable else {
        return in_new_sandbox(pod, observed, newest.map(|sandbox| sandbox.attempt + 1));
    };

    let mut plan = Plan::default();
    if wants_reset(pod, observed) {
        plan.reset = true;
        return plan;
    }
    let here = |name: &str| observed.newest(name).filter(|instance| instance.sandbox == sandbox.id);
    for (kind, container) in pod.containers() {
        if kind == Kind::Ephemeral && observed.newest(&container.name).is_none() {
            plan.start.push(container.name.clone());
        }
    }
    let initialized = init(pod, observed, &here, health, &mut plan);
    if plan.stop_pod || !initialized {
        return plan;
    }

    let mut keep = 0;
    let mut wanted = 0;
    for (kind, container) in pod.containers() {
        if kind != Kind::Regular {
            continue;
        }
        let instance = observed.newest(&container.name);
        let Some(running) = instance.filter(|instance| instance.state == State::Running) else {
            if restart::should_start(pod, kind, &container, instance) {
                wanted += 1;
                plan.start.push(container.name.clone());
            }
            continue;
        };
        match unhealthy(&container, running, health) {
            None => keep += 1,
            Some((mut message, cause)) => {
                let changed = cause == Cause::Other;
                if changed || restart::policy(pod, &container) != "Never" {
                    message.push_str(", will be restarted");
                    wanted += 1;
                    plan.start.push(container.name.clone());
                }
                plan.stop.push(Stop { id: running.id.clone(), name: container.name.clone(), message, cause });
            }
        }
    }
    if keep == 0 && wanted == 0 {
        // Nothing holds the pod any more; sidecars and debuggers do not.
        return Plan { stop_pod: true, ..Plan::default() };
    }
    plan
}

/// The plan when no sandbox can be used: `next` is the attempt after the last one, if there was any.
fn in_new_sandbox(pod: &core::Pod, observed: &Observed, next: Option<u32>) -> Plan {
    let mut plan = Plan { stop_pod: next.is_some(), ..Plan::default() };
    let ever_ran = !observed.instances.is_empty();
    let never = pod.specification().restart_policy.as_deref() == Some("Never");
    let regular = pod.containers().into_iter().filter(|(kind, _)| *kind == Kind::Regular);
    let mut start = Vec::new();
    let mut created = false;
    for (kind, container) in regular {
        let newest = observed.newest(&container.name);
        created |= newest.is_some();
        let done = newest.is_some_and(|instance| {
            instance.state == State::Exited
                && restart::after_exit(pod, kind, &container, instance.exit_code) == Verdict::Stay
        });
        if !done {
            start.push(container.name.clone());
        }
    }
    if (never && next.is_some() && ever_ran) || (start.is_empty() && created) {
        plan.stop_pod = true;
        return plan;
    }
    plan.sandbox = Some(next.unwrap_or(0));
    let first_init = pod.specification().init_containers.iter().flatten().next();
    plan.start = first_init.map_or(start, |container| vec![container.name.clone()]);
    plan
}

/// Plans the init containers; true once regular containers may run.
fn init<'a>(
    pod: &core::Pod,
    observed: &'a Observed,
    here: &dyn Fn(&str) -> Option<&'a Instance>,
    health: &dyn Fn(&str) -> Option<Health>,
    plan: &mut Plan,
) -> bool {
    let all = pod.containers();
    // Finished init containers may have been collected: a regular one proves that they succeeded.
    let past = all.iter().any(|(kind, container)| *kind == Kind::Regular && here(&container.name).is_some());
    let inits: Vec<_> = all.iter().filter(|(kind, _)| matches!(kind, Kind::Init | Kind::Sidecar)).collect();
    let mut complete = true;
    for (index, (kind, container)) in inits.iter().enumerate() {
        let later = past || inits[index + 1..].iter().any(|(_, later)| here(&later.name).is_some());
        let instance = here(&container.name);
        match (*kind, instance.map(|instance| instance.state)) {
            (Kind::Init, _) if later && instance.is_none_or(|instance| instance.state == State::Exited) => {}
            (Kind::Init, Some(State::Exited)) => {
                let code = instance.map_or(0, |instance| instance.exit_code);
                if code == 0 {
                    continue;
                }
                if restart::after_exit(pod, *kind, container, code) == Verdict::Stay {
                    plan.stop_pod = true;
                    return false;
                }
                plan.start.push(container.name.clone());
                complete = false;
            }
            (_, Some(State::Running)) => {
                let Some(running) = instance else { continue };
                let started = *kind == Kind::Sidecar && health(&running.id).is_none_or(|health| health.started);
                if let Some((message, cause)) = unhealthy(container, running, health).filter(|_| *kind == Kind::Sidecar)
                {
                    let message = format!("Init {}, will be restarted", lower_first(&message));
                    plan.stop.push(Stop { id: running.id.clone(), name: container.name.clone(), message, cause });
                    plan.start.push(container.name.clone());
                }
                complete = started || later;
            }
            (_, None | Some(State::Created | State::Unknown | State::Exited)) => {
                if restart::should_start(pod, *kind, container, instance) || observed.newest(&container.name).is_none()
                {
                    plan.start.push(container.name.clone());
                }
                complete = later;
            }
        }
        if !complete {
            return false;
        }
    }
    complete
}

/// Why a running container must be replaced.
fn unhealthy(
    container: &core::Container,
    running: &Instance,
    health: &dyn Fn(&str) -> Option<Health>,
) -> Option<(String, Cause)> {
    let name = &container.name;
    if !running.hash.is_empty() && running.hash != hash(container) {
        return Some((format!("Container {name} definition changed"), Cause::Other));
    }
    let health = health(&running.id)?;
    if health.liveness_failed {
        return Some((format!("Container {name} failed liveness probe"), Cause::Liveness));
    }
    health.startup_failed.then(|| (format!("Container {name} failed startup probe"), Cause::Startup))
}

fn wants_reset(pod: &core::Pod, observed: &Observed) -> bool {
    pod.containers().iter().any(|(kind, container)| {
        observed.newest(&container.name).is_some_and(|instance| {
            instance.state == State::Exited
                && restart::after_exit(pod, *kind, container, instance.exit_code) == Verdict::RestartAll
        })
    })
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
pub(crate) mod tests;
