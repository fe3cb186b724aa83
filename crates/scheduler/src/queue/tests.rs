use serde_json::json;

use super::*;

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    let pod = json!({"metadata": {"name": name, "namespace": "a", "uid": name}, "spec": {"priority": priority, "containers": []}});
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
}

#[tokio::test(start_paused = true)]
async fn important_pods_first_then_the_oldest() {
    let queue = Queue::default();
    for (name, priority) in [("a", 0), ("b", 5), ("c", 0)] {
        queue.add(pod(name, priority));
    }
    let mut order = Vec::new();
    for _ in 0..3 {
        let pod = queue.next().await;
        queue.placed(&pod);
        order.push(pod.uid.clone());
    }
    assert_eq!(order, ["b", "a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_waits_for_an_event_that_its_plugin_cares_about() {
    let queue = Queue::default();
    queue.add(pod("a", 0));
    let a = queue.next().await;
    queue.refused(a, BTreeSet::from(["NodeName"]));
    queue.happened(Event::PodGone);
    assert_eq!(queue.depths(), [0, 0, 1], "NodeName does not care for pods that go");
    queue.happened(Event::NodeAdded);
    assert_eq!(queue.depths(), [0, 1, 0], "awake, but its back-off is not over");
    let before = Instant::now();
    assert_eq!(queue.next().await.uid, "a");
    assert_eq!(before.elapsed(), BACKOFF_MIN);
}

#[tokio::test(start_paused = true)]
async fn events_during_the_attempt_are_not_lost() {
    let queue = Queue::default();
    queue.add(pod("a", 0));
    let a = queue.next().await;
    queue.happened(Event::NodeAdded);
    queue.refused(a, BTreeSet::from(["NodeName"]));
    assert_eq!(queue.depths(), [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_during_its_attempt_does_not_come_back() {
    let queue = Queue::default();
    queue.add(pod("a", 0));
    let a = queue.next().await;
    queue.remove("a");
    queue.failed(a);
    assert_eq!(queue.depths(), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn backoff_doubles_up_to_its_limit() {
    let queue = Queue::default();
    queue.add(pod("a", 0));
    let mut waits = Vec::new();
    for _ in 0..6 {
        let a = queue.next().await;
        let before = Instant::now();
        queue.failed(a);
        let a = queue.next().await;
        waits.push(before.elapsed().as_secs());
        queue.failed(a);
    }
    assert_eq!(waits, [1, 4, 10, 10, 10, 10]);
}
