//! Rollouts played against sets that obey at once or not at all.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, from_value, json};

use super::{
    revision,
    rollout::{Op, Plan, plan, size},
};
use crate::{
    kinds::apps::{Deployment, ReplicaSet},
    meta::Meta,
};

fn deployment(replicas: i32, image: &str, strategy: Value) -> Deployment {
    from_value(json!({"metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1},
        "spec": {"replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}}))
    .expect("deployment")
}

/// A world in which writes happen and sets reach their size when told.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: Timestamp,
    made: i64,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self { deployment, sets: Vec::new(), now: "2026-01-01T00:00:00Z".parse().expect("time"), made: 0 }
    }

    fn plan(&self) -> Plan {
        let sets: Vec<_> = self.sets.iter().cloned().map(Arc::new).collect();
        plan(&self.deployment, &sets, |set| set.status.as_ref().is_some_and(|s| s.replicas > 0), self.now)
    }

    fn pass(&mut self) -> usize {
        let ops = self.plan().ops;
        let count = ops.len();
        for op in ops {
            match op {
                Op::Create(mut set) => {
                    self.made += 1;
                    set.metadata.creation_timestamp =
                        Some(crate::meta::time(self.now + crate::meta::seconds(self.made)));
                    set.metadata.uid = Some(format!("s{}", self.made));
                    self.sets.push(*set);
                }
                Op::Update { set, .. } => {
                    let index = self.sets.iter().position(|s| s.name() == set.name()).expect("known set");
                    self.sets[index] = *set;
                }
                Op::Delete(key) => self.sets.retain(|s| s.name() != key.name),
                Op::Status(deployment) => self.deployment = *deployment,
            }
        }
        count
    }

    fn obey(&mut self, available: impl Fn(&ReplicaSet) -> bool) {
        for set in &mut self.sets {
            let (count, fine) = (size(set), available(set));
            let status = set.status.get_or_insert_default();
            status.replicas = count;
            status.ready_replicas = Some(if fine { count } else { 0 });
            status.available_replicas = Some(if fine { count } else { 0 });
            status.observed_generation = set.metadata.generation;
        }
    }

    /// Runs until nothing changes and returns the sizes in order of age.
    fn settle(&mut self, available: impl Fn(&ReplicaSet) -> bool) -> Vec<i32> {
        for _ in 0..100 {
            let writes = self.pass();
            self.obey(&available);
            if writes == 0 && self.pass() == 0 {
                return self.sets.iter().map(size).collect();
            }
        }
        panic!("no rest after 100 passes: {:?}", self.sets.iter().map(size).collect::<Vec<_>>());
    }

    fn change_image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().expect("spec");
        spec.template.spec.as_mut().expect("pod").containers[0].image = Some(image.to_owned());
        self.deployment.metadata.generation = self.deployment.metadata.generation.map(|g| g + 1);
    }

    fn scale(&mut self, to: i32) {
        self.deployment.spec.as_mut().expect("spec").replicas = Some(to);
        self.deployment.metadata.generation = self.deployment.metadata.generation.map(|g| g + 1);
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let status = self.deployment.status.as_ref().expect("status");
        let found = super::status::condition(status, kind).expect("condition");
        (found.status.clone(), found.reason.clone().unwrap_or_default())
    }
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn image(set: &ReplicaSet) -> String {
    let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
    template.and_then(|t| t.spec.as_ref()).and_then(|s| s.containers[0].image.clone()).unwrap_or_default()
}

#[test]
fn rolls_within_its_limits() {
    for (surge, unavailable) in
        [(json!("25%"), json!("25%")), (json!(1), json!(0)), (json!(0), json!(1)), (json!("100%"), json!("100%"))]
    {
        let mut world = World::new(deployment(10, "a", rolling(surge.clone(), unavailable.clone())));
        assert_eq!(world.settle(|_| true), [10]);
        world.change_image("b");
        let most = 10 + crate::meta::scaled(&from_value(surge).expect("surge"), 10, true);
        let least = 10 - crate::meta::scaled(&from_value(unavailable).expect("unavailable"), 10, false);
        for _ in 0..100 {
            if world.pass() == 0 {
                break;
            }
            assert!(world.sets.iter().map(size).sum::<i32>() <= most.max(11));
            let kept: i32 = world.sets.iter().map(|s| size(s).min(super::status::available(s))).sum();
            assert!(kept >= least, "{kept} available, {least} promised");
            world.obey(|_| true);
        }
        assert_eq!(world.settle(|_| true), [0, 10]);
        assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
        assert_eq!(world.deployment.annotation(revision::REVISION), Some("2"));
    }
}

#[test]
fn a_bad_template_stops_the_rollout_and_times_out() {
    let mut world = World::new(deployment(4, "a", rolling(json!(1), json!(1))));
    world.settle(|_| true);
    world.change_image("bad");
    assert_eq!(world.settle(|s| image(s) != "bad"), [3, 2]);
    assert_eq!(world.condition("Available").0, "True");
    let again = world.plan().again.expect("a deadline to look at");
    assert!(again.as_secs() > 590, "{again:?}");
    world.now += crate::meta::seconds(601);
    world.settle(|s| image(s) != "bad");
    assert_eq!(world.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    world.change_image("a");
    assert_eq!(world.settle(|s| image(s) != "bad"), [4, 0]);
    assert_eq!(world.sets[0].annotation(revision::REVISION), Some("3"));
    assert_eq!(world.sets[0].annotation("deployment.kubernetes.io/revision-history"), Some("1"));
}

#[test]
fn recreate_never_mixes() {
    let mut world = World::new(deployment(3, "a", json!({"type": "Recreate"})));
    assert_eq!(world.settle(|_| true), [3]);
    world.change_image("b");
    world.pass();
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [0], "the new set waits for the old Pods");
    assert_eq!(world.settle(|_| true), [0, 3]);
}

#[test]
fn scaling_in_the_middle_keeps_proportions() {
    let mut world = World::new(deployment(10, "a", rolling(json!(3), json!(2))));
    world.settle(|_| true);
    world.change_image("bad");
    assert_eq!(world.settle(|s| image(s) != "bad"), [8, 5]);
    world.scale(15);
    world.pass();
    assert_eq!(world.sets.iter().map(size).collect::<Vec<_>>(), [11, 7]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(deployment(2, "a", json!({})));
    world.settle(|_| true);
    world.deployment.spec.as_mut().expect("spec").paused = Some(true);
    world.change_image("b");
    assert_eq!(world.settle(|_| true), [2]);
    assert_eq!(world.condition("Progressing").1, "DeploymentPaused");
    world.scale(5);
    assert_eq!(world.settle(|_| true), [5]);
    world.deployment.spec.as_mut().expect("spec").paused = None;
    assert_eq!(world.settle(|_| true), [0, 5]);
}

#[test]
fn history_is_limited() {
    let mut world = World::new(deployment(1, "a", json!({})));
    for image in ["a", "b", "c", "d"] {
        world.change_image(image);
        world.settle(|_| true);
    }
    assert_eq!(world.sets.iter().map(image).collect::<Vec<_>>(), ["c", "d"]);
}
