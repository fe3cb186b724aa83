//! A turn of a pod that should run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use tracing::{debug, info, warn};

use super::pull::Image;
use super::{Next, Stage, Worker, must_stop};
use crate::cri::{self, v1};
use crate::pod::observed::{Instance, State};
use crate::pod::plan::{self, Cause, Plan, Stop};
use crate::pod::status::{Failure, Waiting};
use crate::pod::{Kind, PodExt, dns, hosts, resources, sandbox, start, stop};
use crate::{hooks, refer, volumes};

/// What keeps the whole pod from going on; tried again with growing delay.
enum Trouble {
    Runtime(cri::Error),
    /// Told by an event already.
    Told,
    /// A container or hook failed; the pod's other parts are fine.
    Later(Timestamp),
}

impl From<cri::Error> for Trouble {
    fn from(error: cri::Error) -> Self {
        Self::Runtime(error)
    }
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    [one, other].into_iter().flatten().min()
}

impl Worker {
    pub(super) async fn sync(&mut self, pod: &Arc<core::Pod>) -> Next {
        if let Err(error) = self.observe().await {
            warn!(error = &error as &dyn std::error::Error, "failed to read the pod from the runtime");
            return self.back_off();
        }
        let until = match self.deadline_of(pod) {
            Some(deadline) if deadline <= Timestamp::now() => {
                let message = "Pod was active on the node longer than the specified deadline".to_owned();
                self.shared.recorder.normal(&refer::pod(pod), "DeadlineExceeded", &message);
                self.failure = Some(Failure { reason: "DeadlineExceeded".into(), message });
                self.stage = Stage::Stopping;
                return Next::Again;
            }
            deadline => deadline,
        };
        let address = self.address(pod).to_owned();
        self.probes.follow(pod, &self.observed, Some(&address), &self.tools());
        let plan = self.plan(pod);
        debug!(?plan, "planned");
        if plan.stop_pod && plan.sandbox.is_none() {
            let status = self.publish(pod, false);
            if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
                self.stage = Stage::Stopping;
                return Next::Again;
            }
        }
        if !self.synced_once {
            self.synced_once = true;
            self.publish(pod, false);
        }
        let before = self.observed.instances.len();
        let result = self.carry_out(pod, plan).await;
        if must_stop(&self.orders.borrow()) {
            return Next::Again;
        }
        if let Err(error) = self.observe().await {
            warn!(error = &error as &dyn std::error::Error, "failed to read the pod from the runtime");
            return self.back_off();
        }
        let address = self.address(pod).to_owned();
        self.probes.follow(pod, &self.observed, Some(&address), &self.tools());
        self.publish(pod, false);
        self.collect(pod).await;
        let until = earliest(until, self.volumes.refresh_at());
        match result {
            Ok(later) => {
                self.retry = super::RETRY_MIN;
                // What was started may be what the next one waited for.
                if self.observed.instances.len() > before && !self.plan(pod).start.is_empty() {
                    return Next::Again;
                }
                Next::Wait(earliest(until, later))
            }
            Err(Trouble::Later(later)) => Next::Wait(earliest(until, Some(later))),
            Err(Trouble::Told) => self.back_off(),
            Err(Trouble::Runtime(error)) => {
                warn!(error = &error as &dyn std::error::Error, "failed to sync");
                self.back_off()
            }
        }
    }

    fn plan(&self, pod: &core::Pod) -> Plan {
        plan::plan(pod, &self.observed, &|id| self.probes.health(id))
    }

    /// When the pod's time is up.
    fn deadline_of(&self, pod: &core::Pod) -> Option<Timestamp> {
        let seconds = pod.specification().active_deadline_seconds?;
        self.start.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Carries a plan out; returns when to come back by itself.
    async fn carry_out(&mut self, pod: &Arc<core::Pod>, plan: Plan) -> Result<Option<Timestamp>, Trouble> {
        if plan.reset {
            return self.reset(pod).await.map(|()| Some(Timestamp::now()));
        }
        if plan.stop_pod {
            let address = self.address(pod).to_owned();
            let grace = Duration::from_secs(u64::try_from(pod.grace()).unwrap_or(0));
            if !self.observed.sandboxes.is_empty() && plan.sandbox.is_some() {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.shared.recorder.normal(&refer::pod(pod), "SandboxChanged", message);
            }
            stop::everything(&self.shared, pod, &self.observed, grace, &address).await?;
            for sandbox in &self.observed.sandboxes {
                self.shared.runtime.stop_sandbox(&sandbox.id).await?;
            }
            if plan.sandbox.is_none() {
                return Ok(Some(Timestamp::now()));
            }
            self.observe().await?;
        }
        for stop in &plan.stop {
            self.replace(pod, stop).await?;
        }
        self.prepare(pod).await?;
        if self.resize(pod).await? {
            return Ok(Some(Timestamp::now()));
        }
        if let Some(attempt) = plan.sandbox {
            self.run_sandbox(pod, attempt).await?;
            self.observe().await?;
        } else if !plan.stop.is_empty() {
            self.observe().await?;
        }
        self.start_all(pod, &plan.start).await
    }

    /// Stops a container that its probes or a new definition condemn.
    async fn replace(&mut self, pod: &core::Pod, stop: &Stop) -> Result<(), Trouble> {
        let Some(instance) = self.observed.instances.iter().find(|instance| instance.id == stop.id).cloned() else {
            return Ok(());
        };
        let spec = pod.container(&stop.name);
        let probe = spec.as_ref().and_then(|(_, container)| match stop.cause {
            Cause::Liveness => container.liveness_probe.as_ref(),
            Cause::Startup => container.startup_probe.as_ref(),
            Cause::Other => None,
        });
        let grace = probe.and_then(|probe| probe.termination_grace_period_seconds).unwrap_or(pod.grace());
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let address = self.address(pod).to_owned();
        stop::one(&self.shared, pod, &instance, grace, &address, Some(&stop.message)).await?;
        Ok(())
    }

    /// Directory, cgroup and volumes: what must be there before anything runs.
    async fn prepare(&mut self, pod: &core::Pod) -> Result<(), Trouble> {
        let pod_dir = self.shared.config.pod_dir(&self.uid);
        let about = refer::pod(pod);
        let recorder = &self.shared.recorder;
        if let Err(error) = std::fs::create_dir_all(&pod_dir) {
            recorder.warning(&about, "Failed", format!("error making pod data directories: {error}"));
            return Err(Trouble::Told);
        }
        if let Err(error) = self.shared.cgroups.ensure_pod(pod) {
            recorder.warning(
                &about,
                "FailedCreatePodContainer",
                format!("unable to ensure pod container exists: {}", crate::chain(&error)),
            );
            return Err(Trouble::Told);
        }
        let context = volumes::Context {
            pod,
            node: &self.shared.fields,
            client: &self.shared.client,
            objects: &self.objects,
            tokens: &self.tokens,
            addresses: &self.addresses,
            memory: self.shared.machine.memory,
            now: Timestamp::now(),
        };
        if let Err(error) = self.volumes.set_up(&context, &pod_dir).await {
            let runs = self.observed.running().next().is_some();
            self.shared.recorder.warning(&about, "FailedMount", crate::chain(&error));
            // Containers that run keep what they have until the new content can be read.
            return if runs { Ok(()) } else { Err(Trouble::Told) };
        }
        Ok(())
    }

    fn sandbox_config(&self, pod: &core::Pod, attempt: u32) -> v1::PodSandboxConfig {
        let config = &self.shared.config;
        let host = dns::parse(&std::fs::read_to_string(&config.resolv_conf).unwrap_or_default());
        let servers: Vec<String> = config.cluster_dns.iter().map(ToString::to_string).collect();
        let (hostname, domain) = hosts::name(pod, &config.cluster_domain);
        let full = pod.specification().set_hostname_as_fqdn == Some(true);
        let hostname = match domain.filter(|_| full) {
            Some(domain) => format!("{hostname}.{domain}"),
            None => hostname,
        };
        let log_directory: PathBuf = sandbox::log_directory(&config.log_dir, pod);
        sandbox::config(
            pod,
            sandbox::Surroundings {
                attempt,
                cgroup: &self.shared.cgroups.pod_path(pod),
                log_directory: &log_directory,
                hostname: &hostname,
                dns: dns::config(pod, &host, &servers, &config.cluster_domain),
            },
        )
    }

    async fn run_sandbox(&mut self, pod: &core::Pod, attempt: u32) -> Result<(), Trouble> {
        let config = self.sandbox_config(pod, attempt);
        let failed = |message: String| {
            let message = format!("Failed to create pod sandbox: {message}");
            self.shared.recorder.warning(&refer::pod(pod), "FailedCreatePodSandBox", message);
            Trouble::Told
        };
        if pod.specification().host_users == Some(false) {
            return Err(failed("user namespaces (hostUsers: false) are not available on this node".to_owned()));
        }
        std::fs::create_dir_all(&config.log_directory)
            .map_err(|error| failed(format!("cannot make {}: {error}", config.log_directory)))?;
        // The name of a handler is the class's own: classes are resolved by the runtime's configuration.
        let handler = self.runtime_handler(pod).await.map_err(failed)?;
        let runtime = self.shared.runtime.clone();
        let began = tokio::time::Instant::now();
        let id = runtime.run_sandbox(config, &handler).await.map_err(|error| failed(error.message()))?;
        info!(sandbox = id, took = ?began.elapsed(), "sandbox runs");
        Ok(())
    }

    async fn runtime_handler(&self, pod: &core::Pod) -> Result<String, String> {
        use k8s_openapi::api::node::v1::RuntimeClass;
        let Some(name) = pod.specification().runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(String::new());
        };
        let api: kube::Api<RuntimeClass> = kube::Api::all(self.shared.client.clone());
        match api.get(name).await {
            Ok(class) => Ok(class.handler),
            Err(error) => Err(format!("failed to get RuntimeClass \"{name}\": {error}")),
        }
    }

    /// Starts containers in order, as far as back-off and images let them.
    async fn start_all(&mut self, pod: &Arc<core::Pod>, names: &[String]) -> Result<Option<Timestamp>, Trouble> {
        let mut later = None;
        for name in names {
            let Some((kind, container)) = pod.container(name) else { continue };
            let container = container.into_owned();
            match self.start_one(pod, kind, &container).await {
                Ok(None) => drop(self.waiting.remove(name)),
                Ok(Some(at)) => later = earliest(later, at),
                Err(trouble) => return Err(trouble),
            }
            if must_stop(&self.orders.borrow()) {
                break;
            }
        }
        Ok(later)
    }

    /// Starts one container. `Some(at)`: not now; come back at the time, or when woken.
    async fn start_one(
        &mut self,
        pod: &Arc<core::Pod>,
        kind: Kind,
        container: &core::Container,
    ) -> Result<Option<Option<Timestamp>>, Trouble> {
        let name = &container.name;
        let now = Timestamp::now();
        let key = format!("{name}/{}", plan::hash(container));
        let newest = self.observed.newest(name).cloned();
        if let Some(ended) = newest.as_ref().filter(|instance| instance.state == State::Exited) {
            let since = ended.finished.unwrap_or(now);
            if let Some((left, delay)) = self.restarts.wait(&key, since, now) {
                self.shared.recorder.warning(
                    &refer::container(pod, name),
                    "BackOff",
                    format!("Back-off restarting failed container {name} in pod {}", pod.full_name()),
                );
                let delay = show_delay(delay);
                let message = format!("back-off {delay} restarting failed container={name} pod={}", pod.full_name());
                self.waiting.insert(name.clone(), Waiting { reason: "CrashLoopBackOff".into(), message });
                return Ok(Some(now.checked_add(left).ok()));
            }
        }
        let image = match self.image(pod, container).await {
            Image::Ready(image) => image,
            Image::Pulling => {
                self.waiting.remove(name);
                return Ok(Some(None));
            }
            Image::Waiting(waiting, at) => {
                self.waiting.insert(name.clone(), waiting);
                return Ok(Some(at));
            }
        };
        if let Some(wait) = self.image_volumes(pod, container).await {
            return Ok(Some(wait));
        }
        let Some(sandbox) = self.observed.sandbox().cloned() else { return Ok(Some(Some(now))) };
        let attempt = self.attempt(pod, name, newest.as_ref());
        // A run that was created and never started would keep its name and log.
        if let Some(stale) =
            newest.as_ref().filter(|instance| matches!(instance.state, State::Created | State::Unknown))
        {
            self.shared.runtime.stop_container(&stale.id, Duration::ZERO).await?;
            self.shared.runtime.remove_container(&stale.id).await?;
        }
        if newest.is_some() {
            self.restarts.next(&key, now);
        }
        let place = start::Place {
            shared: &self.shared,
            pod,
            objects: &self.objects,
            volumes: &self.volumes,
            sandbox: &sandbox.id,
            sandbox_config: self.sandbox_config(pod, sandbox.attempt),
            addresses: &self.addresses,
            target: self.target_of(pod, name),
        };
        match start::start(&place, kind, container, &image, attempt).await {
            Ok(id) => {
                let resources = resources::for_container(pod, container, self.shared.machine.memory);
                self.applied.insert(id.clone(), resources);
                self.post_start(pod, container, &id).await
            }
            Err(error) => {
                let message = error.to_string();
                self.shared.recorder.warning(&refer::container(pod, name), "Failed", format!("Error: {message}"));
                self.waiting.insert(name.clone(), Waiting { reason: error.reason().into(), message });
                let delay = self.retry;
                self.retry = (self.retry * 2).min(super::RETRY_MAX);
                Ok(Some(Timestamp::now().checked_add(delay).ok()))
            }
        }
    }

    /// Images that are mounted as volumes are pulled like those of containers.
    async fn image_volumes(&mut self, pod: &core::Pod, container: &core::Container) -> Option<Option<Timestamp>> {
        let used =
            |volume: &&core::Volume| container.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name);
        for volume in pod.specification().volumes.iter().flatten().filter(used) {
            let Some(source) = &volume.image else { continue };
            let reference = source.reference.as_deref().unwrap_or_default();
            let who = format!("volume {}", volume.name);
            match self.image_by_name(pod, &who, reference, source.pull_policy.as_deref()).await {
                Image::Ready(_) => {}
                Image::Pulling => return Some(None),
                Image::Waiting(waiting, at) => {
                    self.waiting.insert(container.name.clone(), waiting);
                    return Some(at);
                }
            }
        }
        None
    }

    /// The number of the next run: one more than what the runtime has or the API was told.
    fn attempt(&self, pod: &core::Pod, name: &str, newest: Option<&Instance>) -> u32 {
        if let Some(instance) = newest {
            return instance.attempt + u32::from(!matches!(instance.state, State::Created | State::Unknown));
        }
        let last = self.publisher.last();
        let status = last.as_ref().unwrap_or_else(|| pod.reported());
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let known = lists.into_iter().flatten().flatten().find(|status| status.name == name);
        let ran = known.filter(|status| status.container_id.is_some());
        ran.map_or(0, |status| u32::try_from(status.restart_count).unwrap_or(0) + 1)
    }

    fn target_of(&self, pod: &core::Pod, name: &str) -> Option<String> {
        let debuggers = pod.specification().ephemeral_containers.iter().flatten();
        let target =
            debuggers.filter(|container| container.name == name).find_map(|c| c.target_container_name.clone())?;
        self.observed.newest(&target).map(|instance| instance.id.clone())
    }

    /// Runs the postStart hook; a container whose hook fails is stopped.
    async fn post_start(
        &mut self,
        pod: &Arc<core::Pod>,
        container: &core::Container,
        id: &str,
    ) -> Result<Option<Option<Timestamp>>, Trouble> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone()) else {
            return Ok(None);
        };
        let address = self.address(pod).to_owned();
        let (shared, mut orders) = (self.shared.clone(), self.orders.clone());
        let result = tokio::select! {
            result = hooks::run(&shared, &hook, container, id, &address) => result,
            _ = orders.wait_for(must_stop) => return Ok(None),
        };
        let Err(text) = result else { return Ok(None) };
        hooks::report(&shared, pod, &container.name, "FailedPostStartHook", &text);
        self.observe().await?;
        if let Some(instance) = self.observed.instances.iter().find(|instance| instance.id == id).cloned() {
            let grace = Duration::from_secs(u64::try_from(pod.grace()).unwrap_or(0));
            stop::one(&shared, pod, &instance, grace, &address, Some("FailedPostStartHook")).await?;
        }
        let waiting = Waiting { reason: "PostStartHookError".into(), message: format!("PostStartHookError: {text}") };
        self.waiting.insert(container.name.clone(), waiting);
        Err(Trouble::Later(Timestamp::now()))
    }

    /// Stops and removes every container, the sandbox stays: the pod begins again from its init containers.
    async fn reset(&mut self, pod: &core::Pod) -> Result<(), Trouble> {
        let address = self.address(pod).to_owned();
        let grace = Duration::from_secs(u64::try_from(pod.grace()).unwrap_or(0));
        info!("a container's rule restarts all containers");
        stop::everything(&self.shared, pod, &self.observed, grace, &address).await?;
        self.observe().await?;
        self.publish(pod, false);
        for instance in &self.observed.instances {
            self.shared.runtime.remove_container(&instance.id).await?;
        }
        Ok(())
    }

    /// Removes runs that nobody asks about any more: all but the newest and the one before it, and old sandboxes.
    async fn collect(&mut self, pod: &core::Pod) {
        let mut removed = Vec::new();
        for (_, container) in pod.containers() {
            let dead = self.observed.runs(&container.name).filter(|instance| instance.state == State::Exited);
            let newest_ran = self.observed.newest(&container.name).is_some_and(|newest| newest.state == State::Exited);
            removed.extend(dead.skip(1 + usize::from(newest_ran)).cloned());
        }
        for instance in removed {
            if let Err(error) = self.shared.runtime.remove_container(&instance.id).await {
                debug!(container = instance.name, %error, "failed to remove a dead container; will try again");
                return;
            }
            crate::logs::remove(&instance.log_path);
            self.observed.instances.retain(|other| other.id != instance.id);
        }
        let old = self.observed.sandboxes.iter().skip(1).filter(|sandbox| !sandbox.ready);
        let empty =
            old.filter(|sandbox| !self.observed.instances.iter().any(|instance| instance.sandbox == sandbox.id));
        for sandbox in empty {
            if let Err(error) = self.shared.runtime.remove_sandbox(&sandbox.id).await {
                debug!(sandbox = sandbox.id, %error, "failed to remove an old sandbox; will try again");
            }
        }
    }
}

/// `10s`, `1m20s`, `5m0s`.
fn show_delay(delay: Duration) -> String {
    let seconds = delay.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
