use serde_json::{Value, json};

use super::*;
use crate::pod::observed::Sandbox;
use crate::pod::plan::tests::instance;

struct Case {
    pod: Value,
    /// As [`instance`] reads them, oldest first.
    runs: Vec<&'static str>,
    old: Value,
    waiting: Vec<(&'static str, &'static str)>,
    terminal: bool,
    failure: bool,
}

impl Case {
    fn new(policy: &str, runs: &[&'static str]) -> Self {
        Self {
            pod: json!({"metadata": {"uid": "u", "name": "p", "namespace": "n", "generation": 2},
                        "spec": {"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]}}),
            runs: runs.to_vec(),
            old: json!({}),
            waiting: Vec::new(),
            terminal: false,
            failure: false,
        }
    }

    fn status(&self) -> core::PodStatus {
        let pod: core::Pod = serde_json::from_value(self.pod.clone()).unwrap();
        let old: core::PodStatus = serde_json::from_value(self.old.clone()).unwrap();
        let mut instances: Vec<Instance> =
            self.runs.iter().enumerate().map(|(index, text)| instance(index, text)).collect();
        instances.reverse();
        let sandbox = Sandbox {
            id: "s".into(),
            attempt: 0,
            ready: true,
            created: 1,
            addresses: vec!["10.0.0.1".into()],
            host_network: false,
        };
        let waiting = self
            .waiting
            .iter()
            .map(|(name, reason)| ((*name).to_owned(), Waiting { reason: (*reason).to_owned(), message: "m".into() }));
        let failure = Failure { reason: "Evicted".into(), message: "low".into() };
        status(&Inputs {
            pod: &pod,
            observed: &Observed { sandboxes: vec![sandbox], instances },
            old: &old,
            waiting: &waiting.collect(),
            health: &|_| None,
            failure: self.failure.then_some(&failure),
            pending: None,
            resize_error: None,
            terminal: self.terminal,
            node_addresses: &["192.0.2.1".to_owned()],
            runtime_name: "fake",
            addresses: &["10.0.0.1".to_owned()],
            start: Timestamp::from_second(5).unwrap(),
            now: Timestamp::from_second(9).unwrap(),
        })
    }

    /// `phase: name restarts state(reason or code) last(code) ready`.
    fn show(&self) -> String {
        let status = self.status();
        let lists = [&status.init_container_statuses, &status.container_statuses];
        let all = lists.into_iter().flatten().flatten().map(|one| {
            let state = one.state.clone().unwrap_or_default();
            let shown = match (state.running, state.terminated, state.waiting) {
                (Some(_), _, _) => "running".to_owned(),
                (_, Some(ended), _) => format!("exit({})", ended.exit_code),
                (_, _, Some(waiting)) => format!("wait({})", waiting.reason.unwrap_or_default()),
                _ => "none".to_owned(),
            };
            let last = one.last_state.clone().and_then(|state| state.terminated);
            let last = last.map_or(String::new(), |ended| format!(" last({})", ended.exit_code));
            let ready = if one.ready { " ready" } else { "" };
            format!("{} {} {shown}{last}{ready}", one.name, one.restart_count)
        });
        format!("{}: {}", status.phase.unwrap_or_default(), all.collect::<Vec<_>>().join(", "))
    }
}

#[test]
fn containers_and_phase() {
    let base = Case::new;
    let back_off = || vec![("a", "CrashLoopBackOff")];
    let init = |policy: &str, runs: &[&'static str]| {
        let mut case = base(policy, runs);
        case.pod["spec"]["initContainers"] = json!([{"name": "i"}]);
        case
    };
    let was_running = json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true,
        "restartCount": 1, "containerID": "fake://gone", "state": {"running": {}}}]});
    let cases = [
        (base("Always", &[]), "Pending: a 0 wait(ContainerCreating)"),
        (base("Always", &["a running"]), "Running: a 0 running ready"),
        (base("Always", &["a created"]), "Pending: a 0 wait(ContainerCreating)"),
        (base("Always", &["a exited=3"]), "Running: a 0 exit(3)"),
        (
            Case { waiting: back_off(), ..base("Always", &["a exited=3"]) },
            "Running: a 0 wait(CrashLoopBackOff) last(3)",
        ),
        (base("Always", &["a exited=3", "a running"]), "Running: a 1 running last(3) ready"),
        (base("Never", &["a exited"]), "Succeeded: a 0 exit(0)"),
        (base("Never", &["a exited=1"]), "Failed: a 0 exit(1)"),
        (Case { waiting: back_off(), ..base("Never", &["a exited=1"]) }, "Failed: a 0 exit(1)"),
        (Case { terminal: true, ..base("Always", &["a exited=137"]) }, "Failed: a 0 exit(137)"),
        (Case { failure: true, ..base("Always", &["a running"]) }, "Failed: a 0 running ready"),
        (init("Always", &[]), "Pending: i 0 wait(PodInitializing), a 0 wait(PodInitializing)"),
        (init("Always", &["i running"]), "Pending: i 0 running, a 0 wait(PodInitializing)"),
        (init("Always", &["i exited", "a running"]), "Running: i 0 exit(0) ready, a 1 running ready"),
        (Case { old: was_running.clone(), ..base("Always", &[]) }, "Running: a 2 wait(ContainerCreating) last(137)"),
        (Case { old: was_running, ..base("Never", &[]) }, "Failed: a 1 exit(137)"),
    ];
    for (case, expect) in cases {
        assert_eq!(case.show(), expect, "{} {:?}", case.pod["spec"], case.runs);
    }
}

#[test]
fn the_rest_of_a_status() {
    let status = Case::new("Always", &["a running"]).status();
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.start_time.unwrap().0.as_second(), 5);
    let one = &status.container_statuses.unwrap()[0];
    assert_eq!(one.container_id.as_deref(), Some("fake://a-0"));
    let names: Vec<String> =
        status.conditions.unwrap().into_iter().map(|c| format!("{}={}", c.type_, c.status)).collect();
    assert_eq!(
        names,
        [
            "PodReadyToStartContainers=True",
            "Initialized=True",
            "Ready=True",
            "ContainersReady=True",
            "PodScheduled=True"
        ]
    );
}

#[test]
fn a_final_phase_stays() {
    let mut case = Case::new("Always", &["a running"]);
    case.old = json!({"phase": "Failed", "reason": "Evicted", "message": "low"});
    let status = case.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    case.old = json!({"phase": "Pending", "reason": "Before"});
    assert_eq!(case.status().reason, None);
}

#[test]
fn conditions_of_others_are_kept() {
    let mut case = Case::new("Always", &["a running"]);
    case.pod["status"] = json!({"conditions": [{"type": "x/mine", "status": "False"}]});
    let conditions = case.status().conditions.unwrap();
    assert!(conditions.iter().any(|condition| condition.type_ == "x/mine" && condition.status == "False"));
}
