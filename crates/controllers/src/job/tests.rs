//! Jobs played from start to end in a world where Pods do as they are told.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, from_value, json};

use super::{
    FINALIZER, indexes,
    plan::{Plan, View, condition},
};
use crate::{
    kinds::{batch::Job, core::Pod},
    meta::{Meta, seconds},
};

struct World {
    job: Job,
    pods: Vec<Pod>,
    now: Timestamp,
    made: u32,
    log: Vec<String>,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut all = json!({"parallelism": 2, "completions": 3, "backoffLimit": 2, "selector": {"matchLabels": {"j": "x"}},
            "template": {"metadata": {"labels": {"j": "x"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
        all.as_object_mut().expect("spec").extend(spec.as_object().cloned().unwrap_or_default());
        all.as_object_mut().expect("spec").retain(|_, v| !v.is_null());
        let job =
            from_value(json!({"metadata": {"name": "j", "namespace": "ns", "uid": "j"}, "spec": all})).expect("job");
        Self { job, pods: Vec::new(), now: "2026-01-01T00:00:00Z".parse().expect("time"), made: 0, log: Vec::new() }
    }

    fn plan(&self) -> Plan {
        let pods: Vec<_> = self.pods.iter().cloned().map(Arc::new).collect();
        View { job: &self.job, pods: &pods, now: self.now, caught_up: true }.plan()
    }

    /// One pass with all its writes. True if there were any.
    fn pass(&mut self) -> bool {
        let plan = self.plan();
        let changed = !plan.create.is_empty()
            || !plan.delete.is_empty()
            || !plan.release.is_empty()
            || self.job.status.as_ref() != Some(&plan.status);
        for mut pod in plan.create {
            self.made += 1;
            pod.metadata.uid = Some(format!("p{}", self.made));
            pod.metadata.name = Some(format!("p{}", self.made));
            pod.metadata.creation_timestamp = Some(crate::meta::time(self.now + seconds(self.made)));
            pod.status = from_value(json!({"phase": "Running"})).expect("status");
            self.pods.push(pod);
        }
        for (pod, _) in &plan.delete {
            self.pods.retain(|p| p.uid() != pod.uid());
        }
        for pod in &plan.release {
            for mine in self.pods.iter_mut().filter(|p| p.uid() == pod.uid()) {
                mine.metadata.finalizers = None;
            }
        }
        self.log.extend(plan.events.into_iter().map(|(_, reason, _)| reason));
        self.job.status = Some(plan.status);
        changed
    }

    /// Runs until nothing changes, ending every running Pod with the code that `exit` gives for (creation, index).
    fn run(&mut self, exit: impl Fn(u32, Option<i32>) -> Option<i32>) {
        for _ in 0..200 {
            let changed = self.pass();
            let mut ended = false;
            for pod in &mut self.pods {
                let number: u32 = pod.name()[1..].parse().expect("number");
                let index = indexes::of(pod, i32::MAX);
                let running = crate::pods::state::phase(pod) == "Running";
                if let Some(code) = exit(number, index).filter(|_| running) {
                    let phase = if code == 0 { "Succeeded" } else { "Failed" };
                    pod.status = from_value(json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "",
                        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": self.now}}}]}))
                    .expect("status");
                    ended = true;
                }
            }
            if !changed && !ended {
                let Some(wait) = self.plan().again else { return };
                self.now += jiff::SignedDuration::try_from(wait).expect("wait");
            }
        }
        panic!("no rest: {:?}", self.job.status);
    }

    fn end(&self) -> String {
        let status = self.job.status.as_ref().expect("status");
        let end = ["Complete", "Failed"].into_iter().find_map(|k| condition(&self.job, k));
        let end = end.map(|c| format!("{} {}", c.type_, c.reason.clone().unwrap_or_default()));
        format!("{} ok={} bad={}", end.unwrap_or_default(), status.succeeded.unwrap_or(0), status.failed.unwrap_or(0))
    }
}

type Exit = fn(u32, Option<i32>) -> Option<i32>;

#[test]
fn ends() {
    let indexed = |extra: Value| {
        let mut spec = json!({"completionMode": "Indexed", "parallelism": 3});
        spec.as_object_mut().expect("spec").extend(extra.as_object().cloned().unwrap_or_default());
        spec
    };
    let fail_job = json!({"podFailurePolicy": {"rules": [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}});
    let cases: [(Value, Exit, &str); 13] = [
        (json!({}), |_, _| Some(0), "Complete CompletionsReached ok=3 bad=0"),
        (json!({"completions": null, "parallelism": 2}), |_, _| Some(0), "Complete CompletionsReached ok=2 bad=0"),
        (json!({"completions": 0}), |_, _| Some(0), "Complete CompletionsReached ok=0 bad=0"),
        (json!({}), |n, _| Some(i32::from(n < 3)), "Complete CompletionsReached ok=3 bad=2"),
        (json!({"parallelism": 1}), |_, _| Some(1), "Failed BackoffLimitExceeded ok=0 bad=3"),
        (json!({"activeDeadlineSeconds": 30}), |_, _| None, "Failed DeadlineExceeded ok=0 bad=2"),
        (fail_job.clone(), |_, _| Some(42), "Failed PodFailurePolicy ok=0 bad=2"),
        (fail_job, |n, _| Some(if n < 5 { 7 } else { 0 }), "Complete CompletionsReached ok=3 bad=0"),
        (indexed(json!({})), |_, _| Some(0), "Complete CompletionsReached ok=3 bad=0"),
        (
            indexed(json!({"backoffLimit": 1000, "backoffLimitPerIndex": 1})),
            |_, i| Some(i32::from(i == Some(1))),
            "Failed FailedIndexes ok=2 bad=2",
        ),
        (
            indexed(json!({"backoffLimit": 1000, "backoffLimitPerIndex": 0, "maxFailedIndexes": 0})),
            |_, i| (i == Some(1)).then_some(1),
            "Failed MaxFailedIndexesExceeded ok=0 bad=3",
        ),
        (
            indexed(json!({"backoffLimit": 1000, "backoffLimitPerIndex": 3})),
            |n, i| Some(i32::from(i == Some(2) && n < 4)),
            "Complete CompletionsReached ok=3 bad=1",
        ),
        (
            indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "0", "succeededCount": 1}]}})),
            |_, i| (i == Some(0)).then_some(0),
            "Complete SuccessPolicy ok=1 bad=0",
        ),
    ];
    for (spec, exit, expected) in cases {
        let mut world = World::new(spec.clone());
        world.run(exit);
        assert_eq!(world.end(), expected, "{spec}");
        assert!(world.pods.iter().all(|p| !p.has_finalizer(FINALIZER)), "{spec}: a finalizer is left");
    }
}

#[test]
fn suspends_and_resumes() {
    let mut world = World::new(json!({}));
    world.run(|_, _| None);
    assert_eq!(world.pods.len(), 2);
    world.job.spec.as_mut().expect("spec").suspend = Some(true);
    world.run(|_, _| None);
    assert!(world.pods.is_empty());
    assert_eq!(world.job.status.as_ref().expect("status").start_time, None);
    world.job.spec.as_mut().expect("spec").suspend = Some(false);
    world.run(|_, _| Some(0));
    assert_eq!(world.end(), "Complete CompletionsReached ok=3 bad=0");
    assert_eq!(world.log, ["Suspended", "Resumed", "Completed"]);
}

#[test]
fn waits_longer_after_each_failure() {
    let mut world = World::new(json!({"parallelism": 1, "backoffLimit": 6}));
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.run_until_wait();
        let wait = world.plan().again.expect("a wait");
        waits.push(wait.as_secs());
        world.now += jiff::SignedDuration::try_from(wait).expect("duration");
    }
    assert_eq!(waits, [10, 20, 40, 80]);
}

impl World {
    /// Fails each Pod at once until the next has to wait.
    fn run_until_wait(&mut self) {
        for _ in 0..20 {
            self.pass();
            for pod in &mut self.pods {
                if crate::pods::state::phase(pod) == "Running" {
                    pod.status = from_value(json!({"phase": "Failed", "containerStatuses": [{"name": "c", "image": "",
                        "imageID": "", "ready": false, "restartCount": 0,
                        "state": {"terminated": {"exitCode": 1, "finishedAt": self.now}}}]}))
                    .expect("status");
                }
            }
            if self.plan().again.is_some() {
                return;
            }
        }
    }
}

#[test]
fn indexed_pods_know_their_index() {
    let mut world = World::new(json!({"completionMode": "Indexed", "parallelism": 3}));
    world.pass();
    let names: Vec<_> =
        world.pods.iter().map(|p| p.spec.as_ref().and_then(|s| s.hostname.clone()).unwrap_or_default()).collect();
    assert_eq!(names, ["j-0", "j-1", "j-2"]);
    let variables = world.pods[0].spec.as_ref().and_then(|s| s.containers[0].env.clone()).expect("variables");
    assert_eq!(variables[0].name, "JOB_COMPLETION_INDEX");
}
