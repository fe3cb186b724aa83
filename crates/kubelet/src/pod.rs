//! A pod on this node: what it should be, what it is, and the steps between.
//!
//! [`worker`] drives one pod from admission to removal. Everything it decides is computed by pure functions over the
//! API's pod and [`observed::Observed`]: [`plan`] says what to start and stop, [`status`] what to report.

pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod conditions;
pub(crate) mod dns;
pub(crate) mod env;
pub(crate) mod fields;
pub(crate) mod hosts;
pub(crate) mod observed;
pub(crate) mod phase;
pub(crate) mod plan;
pub(crate) mod publish;
pub(crate) mod resize;
pub(crate) mod resources;
pub(crate) mod restart;
pub(crate) mod sandbox;
pub(crate) mod security;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod worker;

use std::borrow::Cow;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1 as core;

use crate::labels;

static NO_SPEC: LazyLock<core::PodSpec> = LazyLock::new(core::PodSpec::default);
static NO_STATUS: LazyLock<core::PodStatus> = LazyLock::new(core::PodStatus::default);

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that stays: `restartPolicy: Always`.
    Sidecar,
    Regular,
    /// Added to a running pod; never restarted.
    Ephemeral,
}

/// The parts of a pod that every module needs, without the options the API's type has for absent parts.
pub(crate) trait PodExt {
    fn uid(&self) -> &str;
    fn namespace(&self) -> &str;
    fn name(&self) -> &str;
    fn specification(&self) -> &core::PodSpec;
    fn reported(&self) -> &core::PodStatus;
    fn generation(&self) -> Option<i64>;
    fn annotation(&self, name: &str) -> Option<&str>;
    fn is_deleting(&self) -> bool;
    /// From a manifest on this node, not from the API.
    fn is_static(&self) -> bool;
    /// The API's image of a static pod.
    fn is_mirror(&self) -> bool;
    fn is_terminal(&self) -> bool;
    fn is_host_network(&self) -> bool;
    /// Seconds that a container has between the first signal and the last.
    fn grace(&self) -> i64;
    /// Every container in the order of the spec: init and sidecar, regular, ephemeral.
    fn containers(&self) -> Vec<(Kind, Cow<'_, core::Container>)>;
    fn container(&self, name: &str) -> Option<(Kind, Cow<'_, core::Container>)>;
    /// `name_namespace(uid)`, as messages name a pod.
    fn full_name(&self) -> String;
}

impl PodExt for core::Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn specification(&self) -> &core::PodSpec {
        self.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    fn reported(&self) -> &core::PodStatus {
        self.status.as_ref().unwrap_or(&NO_STATUS)
    }

    fn generation(&self) -> Option<i64> {
        self.metadata.generation.filter(|generation| *generation > 0)
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn is_static(&self) -> bool {
        self.annotation(labels::SOURCE).is_some_and(|source| source != "api") && !self.is_mirror()
    }

    fn is_mirror(&self) -> bool {
        self.annotation(labels::MIRROR).is_some()
    }

    fn is_terminal(&self) -> bool {
        matches!(self.reported().phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    fn is_host_network(&self) -> bool {
        self.specification().host_network == Some(true)
    }

    fn grace(&self) -> i64 {
        let grace = self.metadata.deletion_grace_period_seconds;
        grace.or(self.specification().termination_grace_period_seconds).unwrap_or(30)
    }

    fn containers(&self) -> Vec<(Kind, Cow<'_, core::Container>)> {
        let spec = self.specification();
        let init = spec.init_containers.iter().flatten().map(|container| {
            let kind = if is_sidecar(container) { Kind::Sidecar } else { Kind::Init };
            (kind, Cow::Borrowed(container))
        });
        let regular = spec.containers.iter().map(|container| (Kind::Regular, Cow::Borrowed(container)));
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        let ephemeral = ephemeral.map(|container| (Kind::Ephemeral, Cow::Owned(common(container))));
        init.chain(regular).chain(ephemeral).collect()
    }

    fn container(&self, name: &str) -> Option<(Kind, Cow<'_, core::Container>)> {
        self.containers().into_iter().find(|(_, container)| container.name == name)
    }

    fn full_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }
}

/// An init container that is restarted for as long as the pod lives.
pub(crate) fn is_sidecar(container: &core::Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The part that an ephemeral container has in common with the others.
fn common(from: &core::EphemeralContainer) -> core::Container {
    let from = from.clone();
    core::Container {
        args: from.args,
        command: from.command,
        env: from.env,
        env_from: from.env_from,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        lifecycle: from.lifecycle,
        liveness_probe: from.liveness_probe,
        name: from.name,
        ports: from.ports,
        readiness_probe: from.readiness_probe,
        resize_policy: from.resize_policy,
        resources: from.resources,
        restart_policy: from.restart_policy,
        restart_policy_rules: from.restart_policy_rules,
        security_context: from.security_context,
        startup_probe: from.startup_probe,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        tty: from.tty,
        volume_devices: from.volume_devices,
        volume_mounts: from.volume_mounts,
        working_dir: from.working_dir,
    }
}
