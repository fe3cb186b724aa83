//! The phase of a pod, from its containers' statuses.

use k8s_openapi::api::core::v1 as core;

use super::restart::{self, Verdict};
use super::{Kind, PodExt};

/// `Pending`, `Running`, `Succeeded` or `Failed`.
///
/// `terminal`: nothing of the pod will be restarted, whatever its policy. `initialized`: regular containers have run.
pub(crate) fn phase(
    pod: &core::Pod,
    statuses: &[core::ContainerStatus],
    terminal: bool,
    initialized: bool,
) -> &'static str {
    let mut count = Count::default();
    for (kind, container) in pod.containers() {
        let status = statuses.iter().find(|status| status.name == container.name);
        match kind {
            Kind::Init => count.init(pod, &container, status),
            Kind::Sidecar => count.sidecar(status),
            Kind::Regular => count.regular(pod, &container, status),
            Kind::Ephemeral => {}
        }
    }
    if count.failed_init {
        return "Failed";
    }
    if count.pending_init || (count.pending_sidecar && !initialized) || count.waiting > 0 {
        return "Pending";
    }
    if count.unknown > 0 {
        return "Pending";
    }
    if count.running > 0 {
        return "Running";
    }
    if count.stopped == 0 {
        return "Pending";
    }
    let restarts = count.restartable > 0 && (!terminal || pod.is_static());
    match () {
        () if restarts => "Running",
        () if count.stopped == count.succeeded => "Succeeded",
        () => "Failed",
    }
}

#[derive(Default)]
struct Count {
    failed_init: bool,
    pending_init: bool,
    pending_sidecar: bool,
    unknown: u32,
    running: u32,
    waiting: u32,
    stopped: u32,
    restartable: u32,
    succeeded: u32,
}

impl Count {
    fn init(&mut self, pod: &core::Pod, container: &core::Container, status: Option<&core::ContainerStatus>) {
        match status.and_then(ended) {
            Some((code, _)) if code == 0 => {}
            Some((code, _)) => {
                self.failed_init |= restart::after_exit(pod, Kind::Init, container, code) == Verdict::Stay;
            }
            None => self.pending_init = true,
        }
    }

    fn sidecar(&mut self, status: Option<&core::ContainerStatus>) {
        let Some(status) = status else {
            self.unknown += 1;
            return;
        };
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            self.pending_sidecar |= status.started != Some(true);
            self.running += 1;
        } else if ended(status).is_none() {
            self.pending_sidecar = true;
            self.waiting += 1;
        }
    }

    fn regular(&mut self, pod: &core::Pod, container: &core::Container, status: Option<&core::ContainerStatus>) {
        let Some(status) = status else {
            self.unknown += 1;
            return;
        };
        if status.state.as_ref().is_some_and(|state| state.running.is_some()) {
            self.running += 1;
            return;
        }
        let Some((code, now)) = ended(status) else {
            self.waiting += 1;
            return;
        };
        self.stopped += 1;
        self.succeeded += u32::from(now && code == 0);
        let stays = restart::after_exit(pod, Kind::Regular, container, code) == Verdict::Stay;
        self.restartable += u32::from(!stays);
    }
}

/// Exit code of a container that ended and does not run now; true when the end is its current state.
fn ended(status: &core::ContainerStatus) -> Option<(i32, bool)> {
    let state = status.state.as_ref()?;
    if let Some(terminated) = &state.terminated {
        return Some((terminated.exit_code, true));
    }
    state.waiting.as_ref()?;
    let last = status.last_state.as_ref()?.terminated.as_ref()?;
    Some((last.exit_code, false))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn phases() {
        let run = || json!({"state": {"running": {}}});
        let exit = |code: i32| json!({"state": {"terminated": {"exitCode": code}}});
        let wait = || json!({"state": {"waiting": {}}});
        let back_off = |code: i32| json!({"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": code}}});
        let cases: Vec<(&str, Option<Value>, Vec<Value>, bool, &str)> = vec![
            ("Always", None, vec![run(), run()], false, "Running"),
            ("Always", None, vec![run(), wait()], false, "Pending"),
            ("Always", None, vec![run()], false, "Pending"),
            ("Always", None, vec![exit(0), exit(0)], false, "Running"),
            ("Always", None, vec![exit(0), exit(0)], true, "Succeeded"),
            ("Always", None, vec![exit(0), exit(137)], true, "Failed"),
            ("Always", None, vec![run(), back_off(1)], false, "Running"),
            ("Always", None, vec![back_off(1), back_off(1)], false, "Running"),
            ("OnFailure", None, vec![exit(0), exit(0)], false, "Succeeded"),
            ("OnFailure", None, vec![exit(0), exit(1)], false, "Running"),
            ("Never", None, vec![exit(0), exit(0)], false, "Succeeded"),
            ("Never", None, vec![exit(0), exit(1)], false, "Failed"),
            ("Never", None, vec![run(), exit(1)], false, "Running"),
            ("Always", Some(run()), vec![wait(), wait()], false, "Pending"),
            ("Always", Some(exit(0)), vec![run(), run()], false, "Running"),
            ("Always", Some(exit(1)), vec![wait(), wait()], false, "Pending"),
            ("Never", Some(exit(1)), vec![wait(), wait()], false, "Failed"),
        ];
        for (policy, init, containers, terminal, expect) in cases {
            let mut spec = json!({"restartPolicy": policy, "containers": [{"name": "c0"}, {"name": "c1"}]});
            let mut statuses = Vec::new();
            if let Some(mut init) = init.clone() {
                spec["initContainers"] = json!([{"name": "i"}]);
                init["name"] = "i".into();
                statuses.push(init);
            }
            for (index, container) in containers.iter().enumerate() {
                let mut container = container.clone();
                container["name"] = format!("c{index}").into();
                statuses.push(container);
            }
            let pod: core::Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let statuses: Vec<core::ContainerStatus> = statuses.into_iter().map(parse).collect();
            assert_eq!(phase(&pod, &statuses, terminal, false), expect, "{policy} {init:?} {containers:?}");
        }
    }

    fn parse(mut value: Value) -> core::ContainerStatus {
        for (name, default) in
            [("image", json!("")), ("imageID", json!("")), ("ready", json!(false)), ("restartCount", json!(0))]
        {
            value[name] = default;
        }
        serde_json::from_value(value).unwrap()
    }
}
