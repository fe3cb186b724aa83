//! Events as they arrive at a scripted API.

use serde_json::Value;
use testkit::api::Api as Scripted;

use super::*;

const EVENTS: &str = "/api/v1/events";

fn about(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: Some("a".into()),
        name: Some(name.into()),
        uid: Some(format!("uid-{name}")),
        ..ObjectReference::default()
    }
}

fn recorder() -> (Scripted, Recorder) {
    let api = Scripted::default();
    let recorder = Recorder::new(crate::in_process(api.clone()), "kubelet", "node-1");
    (api, recorder)
}

fn counts(api: &Scripted) -> Vec<(String, i64)> {
    let shown = |event: &Value| (event["message"].as_str().unwrap().to_string(), event["count"].as_i64().unwrap());
    let mut all: Vec<_> = api.all(EVENTS).iter().map(shown).collect();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn a_repeated_event_is_counted() {
    let (api, recorder) = recorder();
    for _ in 0..3 {
        recorder.warning(&about("p"), "BackOff", "restarting");
    }
    recorder.normal(&about("p"), "Started", "started");
    api.until(|api| counts(api) == [("restarting".to_string(), 3), ("started".to_string(), 1)]).await;
    let event = &api.all(EVENTS)[0];
    let (name, digits) = event["metadata"]["name"].as_str().unwrap().rsplit_once('.').unwrap();
    assert_eq!((name, digits.len()), ("p", 16));
    assert_eq!(event["involvedObject"]["uid"], "uid-p");
    assert_eq!(event["source"], serde_json::json!({"component": "kubelet", "host": "node-1"}));
    assert_eq!(event["reportingComponent"], "kubelet");
}

#[tokio::test(start_paused = true)]
async fn many_similar_events_become_one() {
    let (api, recorder) = recorder();
    for n in 0..20 {
        recorder.warning(&about("p"), "Failed", format!("attempt {n:02}"));
    }
    api.until(|api| counts(api).iter().map(|(_, count)| count).sum::<i64>() == 20).await;
    let all = counts(&api);
    assert_eq!(all[0], ("(combined from similar events): attempt 19".into(), 11));
    assert_eq!(all.len(), 1 + 9);
}

#[tokio::test(start_paused = true)]
async fn a_flood_becomes_a_trickle_and_leaves_others_alone() {
    let (api, recorder) = recorder();
    for _ in 0..40 {
        recorder.normal(&about("p"), "Noise", "again");
    }
    recorder.normal(&about("q"), "Noise", "once");
    api.until(|api| counts(api) == [("again".to_string(), 25), ("once".to_string(), 1)]).await;
    tokio::time::sleep(SPAM_REFILL).await;
    for _ in 0..3 {
        recorder.normal(&about("p"), "Noise", "again");
    }
    recorder.normal(&about("q"), "Noise", "once");
    api.until(|api| counts(api) == [("again".to_string(), 26), ("once".to_string(), 2)]).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_expired_is_written_anew() {
    let (api, recorder) = recorder();
    recorder.normal(&about("p"), "Pulled", "pulled");
    api.until(|api| counts(api).len() == 1).await;
    let name = api.all(EVENTS)[0]["metadata"]["name"].as_str().unwrap().to_string();
    api.delete(EVENTS, "a", &name);
    recorder.normal(&about("p"), "Pulled", "pulled");
    api.until(|api| counts(api) == [("pulled".to_string(), 1)]).await;
    assert_ne!(api.all(EVENTS)[0]["metadata"]["name"], name.as_str());
}
