//! Informers against a scripted API: what handlers are told, whatever the API does.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use testkit::api::Api as Scripted;
use tokio::sync::mpsc;

use super::*;

const MAPS: &str = "/api/v1/configmaps";

fn map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "a", "managedFields": [{"manager": "m"}]}, "data": {"v": value}})
}

struct Setup {
    api: Scripted,
    informers: Informers,
    informer: Informer<ConfigMap>,
    told: mpsc::UnboundedReceiver<String>,
}

fn value(object: &ConfigMap) -> String {
    object.data.as_ref().and_then(|data| data.get("v")).cloned().unwrap_or_default()
}

/// Lines such as `+x=1` (appeared), `x=1>2` (changed), `-x=2` (went).
fn line(change: &Change<ConfigMap>) -> String {
    let name = change.key().name;
    match (&change.old, &change.new) {
        (None, Some(new)) => format!("+{name}={}", value(new)),
        (Some(old), Some(new)) => format!("{name}={}>{}", value(old), value(new)),
        (Some(old), None) => format!("-{name}={}", value(old)),
        (None, None) => "nothing".into(),
    }
}

fn follow_with_lines(informer: &Informer<ConfigMap>) -> mpsc::UnboundedReceiver<String> {
    let (sender, told) = mpsc::unbounded_channel();
    informer.on_change(move |change| {
        let _ = sender.send(line(change)); // the test may be over
    });
    told
}

async fn setup(api: Scripted) -> Setup {
    let informers = Informers::new(crate::in_process(api.clone()), CancellationToken::new());
    let informer = informers.of();
    let told = follow_with_lines(&informer);
    Setup { api, informers, informer, told }
}

async fn expect(told: &mut mpsc::UnboundedReceiver<String>, lines: &[&str]) {
    for line in lines {
        let next = tokio::time::timeout(Duration::from_secs(60), told.recv()).await;
        assert_eq!(next.ok().flatten().as_deref(), Some(*line));
    }
}

/// Until the API has this many watches open since its start.
async fn watching(api: &Scripted, count: usize) {
    api.until(|api| api.requests().iter().filter(|request| request.contains("watch=true")).count() >= count).await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_in_order_and_kept() {
    let api = Scripted::default();
    api.put(MAPS, map("x", "1"));
    let mut setup = setup(api).await;
    setup.informer.synced().await;
    expect(&mut setup.told, &["+x=1"]).await;
    setup.api.put(MAPS, map("x", "2"));
    setup.api.put(MAPS, map("y", "1"));
    setup.api.delete(MAPS, "a", "x");
    expect(&mut setup.told, &["x=1>2", "+y=1", "-x=2"]).await;
    let kept = setup.informer.get(&Key::new("a", "y")).unwrap();
    assert!(kept.metadata.managed_fields.is_none());
    assert_eq!((setup.informer.len(), setup.informer.list_in("a").len(), setup.informer.list_in("b").len()), (1, 1, 0));
    let mut late = follow_with_lines(&setup.informers.of());
    expect(&mut late, &["+y=1"]).await;
    setup.api.put(MAPS, map("y", "2"));
    expect(&mut late, &["y=1>2"]).await;
    assert_eq!(
        setup.api.requests().iter().filter(|request| request.contains("watch=true")).count(),
        1,
        "one is shared"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_goes_on_where_it_was() {
    let mut setup = setup(Scripted::default()).await;
    watching(&setup.api, 1).await;
    setup.api.put(MAPS, map("x", "1"));
    expect(&mut setup.told, &["+x=1"]).await;
    setup.api.cut();
    setup.api.put(MAPS, map("x", "2"));
    setup.api.delete(MAPS, "a", "x");
    expect(&mut setup.told, &["x=1>2", "-x=2"]).await;
    let lists = setup.api.requests().iter().filter(|request| !request.contains("watch=true")).count();
    assert_eq!(lists, 1, "{:?}", setup.api.requests());
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_made_up_for_after_an_expired_watch() {
    let api = Scripted::default();
    for name in ["goes", "stays", "changes", "anew"] {
        api.put(MAPS, map(name, "1"));
    }
    let mut setup = setup(api).await;
    expect(&mut setup.told, &["+anew=1", "+changes=1", "+goes=1", "+stays=1"]).await;
    watching(&setup.api, 1).await;
    // Nothing of this is seen: the watch is cut, and then its past is gone.
    setup.api.cut();
    tokio::task::yield_now().await;
    setup.api.fail_next(503);
    setup.api.delete(MAPS, "a", "goes");
    setup.api.put(MAPS, map("changes", "2"));
    let mut anew = map("anew", "2");
    anew["metadata"]["uid"] = "another".into();
    setup.api.put(MAPS, anew);
    setup.api.compact();
    setup.api.put(MAPS, map("later", "1"));
    expect(&mut setup.told, &["-anew=1", "+anew=2", "changes=1>2", "+later=1", "-goes=1"]).await;
    setup.api.put(MAPS, map("stays", "2"));
    expect(&mut setup.told, &["stays=1>2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_api_is_asked_again_and_lists_are_paged() {
    let api = Scripted::default();
    for n in 0..1001 {
        api.put(MAPS, map(&format!("m{n:04}"), "1"));
    }
    api.fail_next(500);
    api.fail_next(429);
    let mut setup = setup(api).await;
    setup.informer.synced().await;
    assert_eq!(setup.informer.len(), 1001);
    watching(&setup.api, 1).await;
    assert_eq!(setup.api.requests().len(), 2 + 3 + 1, "{:?}", setup.api.requests());
    expect(&mut setup.told, &["+m0000=1"]).await;
}

#[tokio::test(start_paused = true)]
async fn indexes_follow_changes() {
    let api = Scripted::default();
    api.put(MAPS, map("x", "red"));
    api.put(MAPS, map("y", "red"));
    let mut setup = setup(api).await;
    setup.informer.synced().await;
    setup.informer.add_index("value", |object| vec![value(object)]);
    let names = |color: &str| -> Vec<String> {
        setup.informer.by_index("value", color).iter().filter_map(|object| object.metadata.name.clone()).collect()
    };
    assert_eq!(names("red"), ["x", "y"]);
    setup.api.put(MAPS, map("x", "blue"));
    setup.api.delete(MAPS, "a", "y");
    expect(&mut setup.told, &["+x=red", "+y=red", "x=red>blue", "-y=red"]).await;
    assert_eq!((names("red"), names("blue")), (vec![], vec!["x".to_string()]));
    assert!(setup.informer.by_index("nope", "x").is_empty());
}
