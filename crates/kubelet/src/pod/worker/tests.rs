use serde_json::{Value, json};

use super::*;
use crate::testing::{FakeRuntime, Node, eventually};

struct Trial {
    node: Node,
    handle: Handle,
    ended: tokio::sync::mpsc::UnboundedReceiver<String>,
}

fn pod(spec: Value) -> Arc<core::Pod> {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "a", "image": "i:1"}]);
    }
    let pod = json!({"metadata": {"uid": "u", "name": "p", "namespace": "n", "resourceVersion": "1"}, "spec": spec});
    Arc::new(serde_json::from_value(pod).unwrap())
}

impl Trial {
    fn start(spec: Value) -> Self {
        Self::with(FakeRuntime::default().with_image("i:1"), spec)
    }

    fn with(runtime: FakeRuntime, spec: Value) -> Self {
        Self::on(Node::new(runtime), spec)
    }

    fn on(node: Node, spec: Value) -> Self {
        let (sender, ended) = tokio::sync::mpsc::unbounded_channel();
        let orders = Orders::new(pod(spec));
        let handle = spawn(node.shared.clone(), orders, sender);
        Self { node, handle, ended }
    }

    fn show(&self) -> String {
        let status = self.node.api.status("p");
        let all = status["containerStatuses"].as_array().cloned().unwrap_or_default();
        let all = all.iter().map(|one| {
            let (state, detail) = one["state"].as_object().and_then(|state| state.iter().next()).unwrap();
            let detail = detail["reason"].as_str().unwrap_or_default();
            format!("{} {} {state} {detail}", one["name"].as_str().unwrap(), one["restartCount"])
        });
        let phase = status["phase"].as_str().unwrap_or("none").to_owned();
        format!("{phase}: {}", all.collect::<Vec<_>>().join(", ").trim_end())
    }

    /// Waits until the API shows this.
    async fn reaches(&self, expect: &str) {
        eventually(
            || (self.show() == expect).then_some(()),
            || format!("{} after {:?}", self.show(), self.node.runtime.calls()),
        )
        .await;
    }

    fn exit(&self, name: &str, code: i32) {
        self.node.runtime.exit(name, code);
        self.handle.wake.notify_one();
    }

    fn delete(&self) {
        self.handle.orders.send_modify(|orders| {
            let mut pod = orders.pod.as_ref().clone();
            pod.metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
            pod.metadata.deletion_grace_period_seconds = Some(1);
            orders.pod = Arc::new(pod);
        });
    }

    async fn gone(&mut self) {
        let ended = tokio::time::timeout(Duration::from_secs(10), self.ended.recv()).await;
        assert_eq!(ended.expect("the worker goes on").as_deref(), Some("u"));
        assert!(self.node.runtime.is_empty());
        assert!(!self.node.shared.config.pod_dir("u").exists());
    }
}

#[tokio::test]
async fn runs_and_goes() {
    let mut trial = Trial::start(json!({}));
    trial.reaches("Running: a 0 running").await;
    let status = trial.node.api.status("p");
    assert_eq!((&status["podIP"], &status["hostIP"]), (&json!("10.0.0.7"), &json!("192.0.2.1")));
    assert_eq!(trial.node.runtime.calls(), ["run", "create a", "start a"]);
    trial.delete();
    trial.gone().await;
    assert_eq!(trial.node.api.deleted(), ["p"]);
    assert_eq!(trial.node.api.status("p")["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
}

#[tokio::test]
async fn restarts_with_back_off() {
    let trial = Trial::start(json!({}));
    trial.reaches("Running: a 0 running").await;
    trial.exit("a", 1);
    trial.reaches("Running: a 1 running").await;
    trial.exit("a", 1);
    trial.reaches("Running: a 1 waiting CrashLoopBackOff").await;
    let status = &trial.node.api.status("p")["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(status["state"]["waiting"]["message"], "back-off 10s restarting failed container=a pod=p_n(u)");
    let events = || trial.node.api.events();
    eventually(|| events().iter().any(|one| one.starts_with("BackOff")).then_some(()), || format!("{:?}", events()))
        .await;
}

#[tokio::test]
async fn one_that_is_done_keeps_its_logs_until_it_is_deleted() {
    let mut trial = Trial::start(json!({"restartPolicy": "Never"}));
    trial.reaches("Running: a 0 running").await;
    trial.exit("a", 0);
    trial.reaches("Succeeded: a 0 terminated Completed").await;
    assert!(!trial.node.runtime.is_empty());
    trial.delete();
    trial.gone().await;
}

#[tokio::test]
async fn init_containers_come_first() {
    let init = json!([{"name": "i", "image": "i:1"}, {"name": "s", "image": "i:1", "restartPolicy": "Always"}]);
    let mut trial = Trial::start(json!({"initContainers": init}));
    trial.reaches("Pending: a 0 waiting PodInitializing").await;
    eventually(
        || trial.node.runtime.calls().contains(&"start i".to_owned()).then_some(()),
        || format!("{:?}", trial.node.runtime.calls()),
    )
    .await;
    trial.exit("i", 0);
    trial.reaches("Running: a 0 running").await;
    trial.delete();
    trial.gone().await;
    let order: Vec<String> = trial.node.runtime.calls();
    let expect = ["run", "create i", "start i", "create s", "start s", "create a", "start a", "stop a", "stop s"];
    assert_eq!(order, expect);
}

#[tokio::test]
async fn a_lost_sandbox_is_replaced() {
    let trial = Trial::start(json!({}));
    trial.reaches("Running: a 0 running").await;
    trial.node.runtime.lose_sandboxes();
    trial.handle.wake.notify_one();
    trial.reaches("Running: a 1 running").await;
    assert_eq!(trial.node.runtime.calls().iter().filter(|call| *call == "run").count(), 2);
}

#[tokio::test]
async fn what_runs_is_adopted() {
    let first = Trial::start(json!({}));
    first.reaches("Running: a 0 running").await;
    let before = first.node.runtime.calls();
    // The worker of a kubelet that ends is dropped without a word.
    let Trial { node, handle, .. } = first;
    drop(handle);
    let second = Trial::on(node, json!({}));
    eventually(
        || second.handle.status.borrow().clone().filter(|status| status.phase.as_deref() == Some("Running")),
        || second.show(),
    )
    .await;
    assert_eq!(second.node.runtime.calls(), before);
}

#[tokio::test]
async fn images_are_pulled_beside() {
    let runtime = FakeRuntime::default();
    runtime.fail("PullImage", "no such image");
    let trial = Trial::with(runtime.clone(), json!({"containers": [{"name": "a", "image": "i"}]}));
    trial.reaches("Pending: a 0 waiting ErrImagePull").await;
    trial.handle.wake.notify_one();
    trial.reaches("Pending: a 0 waiting ImagePullBackOff").await;

    let good = FakeRuntime::default();
    let trial = Trial::with(good.clone(), json!({"containers": [{"name": "a", "image": "i"}]}));
    trial.reaches("Running: a 0 running").await;
    assert_eq!(good.calls(), ["run", "pull i:latest", "create a", "start a"]);
}

#[tokio::test]
async fn never_pulled_and_ill_named() {
    let containers =
        json!([{"name": "a", "image": "none:1", "imagePullPolicy": "Never"}, {"name": "b", "image": "Bad"}]);
    let trial = Trial::start(json!({"containers": containers}));
    trial.reaches("Pending: a 0 waiting ErrImageNeverPull, b 0 waiting InvalidImageName").await;
    trial.node.runtime.add_image("none:1");
    trial.handle.wake.notify_one();
    trial.reaches("Pending: a 0 running , b 0 waiting InvalidImageName").await;
}

#[tokio::test]
async fn a_missing_reference_is_told() {
    let env = json!([{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]);
    let trial = Trial::start(json!({"containers": [{"name": "a", "image": "i:1", "env": env}]}));
    trial.reaches("Pending: a 0 waiting CreateContainerConfigError").await;
    let message = trial.node.api.status("p")["containerStatuses"][0]["state"]["waiting"]["message"].clone();
    assert_eq!(message, "configmap \"none\" not found");
}

#[tokio::test]
async fn a_runtime_that_fails_is_tried_again() {
    let runtime = FakeRuntime::default().with_image("i:1");
    runtime.fail("StartContainer", "exec: not found");
    let trial = Trial::with(runtime.clone(), json!({}));
    trial.reaches("Pending: a 0 waiting RunContainerError").await;
    runtime.mend("StartContainer");
    trial.reaches("Running: a 0 running").await;
}

#[tokio::test]
async fn time_runs_out() {
    let trial = Trial::start(json!({"activeDeadlineSeconds": 1}));
    trial.reaches("Running: a 0 running").await;
    trial.reaches("Failed: a 0 terminated Error").await;
    assert_eq!(trial.node.api.status("p")["reason"], "DeadlineExceeded");
}

#[tokio::test]
async fn the_rejected_fail_without_a_start() {
    let node = Node::new(FakeRuntime::default());
    let failure = Failure { reason: "OutOfcpu".into(), message: "no room".into() };
    let (sender, _ended) = tokio::sync::mpsc::unbounded_channel();
    let orders = Orders { failure: Some(failure), ..Orders::new(pod(json!({}))) };
    let _handle = spawn(node.shared.clone(), orders, sender);
    let status = || node.api.status("p");
    eventually(|| (status()["phase"] == "Failed").then_some(()), || status().to_string()).await;
    assert_eq!((&status()["reason"], &status()["message"]), (&json!("OutOfcpu"), &json!("no room")));
    assert!(node.runtime.calls().is_empty());
}
