//! Two candidates, one lease.

use testkit::api::Api as Scripted;
use tokio::sync::watch;

use super::*;

const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";

/// A candidate that writes its name down while it leads.
fn candidate(api: &Scripted, name: &'static str, leader: &watch::Sender<Option<&'static str>>) -> CancellationToken {
    let cancel = CancellationToken::new();
    let (client, leader) = (crate::in_process(api.clone()), leader.clone());
    let lease = Lease::new("kube-system", "test", name);
    let token = cancel.clone();
    tokio::spawn(async move {
        elect(client, lease, token, |held| {
            let leader = leader.clone();
            async move {
                leader.send_replace(Some(name));
                held.cancelled().await;
            }
        })
        .await;
    });
    cancel
}

async fn until_leads(leader: &watch::Sender<Option<&'static str>>, name: &'static str) {
    let mut leader = leader.subscribe();
    let reached = leader.wait_for(|leader| *leader == Some(name));
    tokio::time::timeout(Duration::from_secs(120), reached).await.expect("in time").expect("the sender lives");
}

fn holder(api: &Scripted) -> String {
    api.all(LEASES)[0]["spec"]["holderIdentity"].as_str().unwrap_or_default().to_string()
}

#[tokio::test(start_paused = true)]
async fn one_leads_until_it_gives_up_and_then_the_other() {
    let (api, leader) = (Scripted::default(), watch::Sender::new(None));
    let first = candidate(&api, "one", &leader);
    until_leads(&leader, "one").await;
    let _second = candidate(&api, "two", &leader);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((*leader.borrow(), holder(&api).as_str()), (Some("one"), "one"), "a lease that is renewed is kept");
    let start = Instant::now();
    first.cancel();
    until_leads(&leader, "two").await;
    assert!(start.elapsed() < Duration::from_secs(5), "a lease that is given up is free at once");
    assert_eq!(api.all(LEASES)[0]["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_renews_is_taken_when_it_is_over() {
    let (api, leader) = (Scripted::default(), watch::Sender::new(None));
    let spec = serde_json::json!({"holderIdentity": "gone", "leaseDurationSeconds": 15, "leaseTransitions": 4});
    api.put(LEASES, serde_json::json!({"metadata": {"name": "test", "namespace": "kube-system"}, "spec": spec}));
    let start = Instant::now();
    let _cancel = candidate(&api, "one", &leader);
    until_leads(&leader, "one").await;
    assert!(start.elapsed() >= Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!((holder(&api).as_str(), &api.all(LEASES)[0]["spec"]["leaseTransitions"]), ("one", &5.into()));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_leading_in_time() {
    let (api, leader) = (Scripted::default(), watch::Sender::new(None));
    let stopped = watch::Sender::new(false);
    let (client, cancel) = (crate::in_process(api.clone()), CancellationToken::new());
    let (led, ended) = (leader.clone(), stopped.clone());
    tokio::spawn(async move {
        elect(client, Lease::new("kube-system", "test", "one"), cancel, |_| {
            let (led, ended) = (led.clone(), ended.clone());
            async move {
                /// Says when the work is dropped.
                struct Ended(watch::Sender<bool>);
                impl Drop for Ended {
                    fn drop(&mut self) {
                        self.0.send_replace(true);
                    }
                }
                let _ended = Ended(ended);
                led.send_replace(Some("one"));
                std::future::pending::<()>().await;
            }
        })
        .await;
    });
    until_leads(&leader, "one").await;
    let start = Instant::now();
    for _ in 0..100 {
        api.fail_next(500);
    }
    stopped.subscribe().wait_for(|stopped| *stopped).await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(13), "before another may take the lease: {:?}", start.elapsed());
}
