//! Probes: is a container started, alive, ready.
//!
//! One task per probe of a running container. Tasks report only changes, which wake the pod's worker; the worker asks
//! for the sum with [`Probes::health`]. A probe's result lasts as long as its container.

pub(crate) mod action;
mod grpc;
mod http;
mod task;

use std::collections::HashMap;
use std::sync::Arc;

use client::Recorder;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::cri::Runtime;
use crate::metrics::Metrics;
use crate::pod::observed::{Observed, State};
use crate::pod::plan::Health;
use crate::pod::{Kind, PodExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Startup,
    Liveness,
    Readiness,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    fn of(self, container: &core::Container) -> Option<&core::Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What the probes of one running container found last; `None`: no result yet.
#[derive(Debug, Default)]
struct Findings {
    has: [bool; 3],
    results: [Option<bool>; 3],
}

impl Findings {
    fn health(&self) -> Health {
        let [startup, liveness, readiness] = self.results;
        let started = !self.has[Role::Startup as usize] || startup == Some(true);
        Health {
            started,
            ready: started && (!self.has[Role::Readiness as usize] || readiness == Some(true)),
            liveness_failed: liveness == Some(false),
            startup_failed: startup == Some(false),
        }
    }
}

struct Watched {
    cancel: CancellationToken,
    /// Turns true when the startup probe passes: the other two wait for it.
    started: watch::Sender<bool>,
}

/// The probes of one pod.
pub(crate) struct Probes {
    findings: Arc<Mutex<HashMap<String, Findings>>>,
    watched: HashMap<String, Watched>,
    wake: Arc<Notify>,
}

/// What probe tasks use.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) runtime: Runtime,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Arc<Metrics>,
}

impl Probes {
    pub(crate) fn new(wake: Arc<Notify>) -> Self {
        Self { findings: Arc::default(), watched: HashMap::new(), wake }
    }

    /// Starts probes of containers that run now and stops those of containers that do not.
    ///
    /// `address`: where HTTP, TCP and gRPC probes without a host of their own go.
    pub(crate) fn follow(&mut self, pod: &Arc<core::Pod>, observed: &Observed, address: Option<&str>, tools: &Tools) {
        self.watched.retain(|id, watched| {
            let runs = observed.running().any(|instance| instance.id == *id);
            if !runs {
                watched.cancel.cancel();
                self.findings.lock().remove(id);
            }
            runs
        });
        for (kind, container) in pod.containers() {
            let Some(instance) = observed.newest(&container.name) else { continue };
            let probed = matches!(kind, Kind::Regular | Kind::Sidecar) && instance.state == State::Running;
            if !probed || self.watched.contains_key(&instance.id) {
                continue;
            }
            let roles = [Role::Startup, Role::Liveness, Role::Readiness];
            let has = roles.map(|role| role.of(&container).is_some());
            self.findings.lock().insert(instance.id.clone(), Findings { has, results: [None; 3] });
            let (started, _) = watch::channel(!has[Role::Startup as usize]);
            let cancel = CancellationToken::new();
            for role in roles.into_iter().filter(|role| has[*role as usize]) {
                let Some(probe) = role.of(&container) else { continue };
                let task = task::Task {
                    role,
                    probe: probe.clone(),
                    pod: pod.clone(),
                    container: container.clone().into_owned(),
                    id: instance.id.clone(),
                    since: instance.started.unwrap_or_else(Timestamp::now),
                    address: address.unwrap_or_default().to_owned(),
                    started: started.subscribe(),
                    tools: tools.clone(),
                };
                let (findings, wake, id, started) =
                    (self.findings.clone(), self.wake.clone(), instance.id.clone(), started.clone());
                let report = move |good: bool| {
                    if let Some(entry) = findings.lock().get_mut(&id) {
                        entry.results[role as usize] = Some(good);
                    }
                    if role == Role::Startup && good {
                        started.send_replace(true);
                    }
                    wake.notify_one();
                };
                let cancel = cancel.clone();
                tokio::spawn(async move { cancel.run_until_cancelled(task.run(report)).await });
            }
            self.watched.insert(instance.id.clone(), Watched { cancel, started });
        }
    }

    /// What the probes know of a container by id; `None` for one that is not probed.
    pub(crate) fn health(&self, id: &str) -> Option<Health> {
        self.findings.lock().get(id).map(Findings::health)
    }

    /// Stops every probe and forgets what it found.
    pub(crate) fn stop(&mut self) {
        for (_, watched) in self.watched.drain() {
            watched.cancel.cancel();
            drop(watched.started);
        }
        self.findings.lock().clear();
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop();
    }
}
