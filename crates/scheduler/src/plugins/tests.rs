//! Plugins through whole decisions: nodes and pods in YAML-like JSON, the chosen node or the refusal out.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    cluster::{NodeInfo, PodInfo},
    cycle::{Decision, decide},
    explain,
};

fn node(name: &str, labels: Value, spec: Value) -> NodeInfo {
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"}},
    });
    NodeInfo::new(Arc::new(serde_json::from_value(node).unwrap()))
}

fn pod(name: &str, labels: Value, spec: Value) -> Arc<PodInfo> {
    let mut spec = spec;
    spec.as_object_mut().unwrap().entry("containers").or_insert_with(|| json!([]));
    let pod = json!({"metadata": {"name": name, "namespace": "a", "uid": name, "labels": labels}, "spec": spec});
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
}

fn cpu(amount: &str) -> Value {
    json!([{"name": "c", "resources": {"requests": {"cpu": amount}}}])
}

fn outcome(pod: &PodInfo, nodes: Vec<NodeInfo>) -> String {
    let nodes: Vec<_> = nodes.into_iter().map(Arc::new).collect();
    match decide(pod, &nodes, None, 0) {
        Decision::Node { name, .. } => name,
        Decision::Nowhere(refusals) => explain::with_preemption(&refusals),
    }
}

#[test]
fn a_full_node_says_what_is_missing() {
    let mut full = node("n", json!({}), json!({}));
    full.add(pod("x", json!({}), json!({"containers": cpu("1500m")})));
    assert_eq!(
        outcome(&pod("p", json!({}), json!({"containers": cpu("1")})), vec![full]),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
}

#[test]
fn reasons_are_counted_and_sorted() {
    let nodes = vec![
        node("a", json!({}), json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]})),
        node("b", json!({}), json!({"unschedulable": true})),
        node("c", json!({}), json!({})),
    ];
    assert_eq!(
        outcome(&pod("p", json!({}), json!({"nodeSelector": {"disk": "ssd"}})), nodes),
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated \
         taint(s) {k: v}, 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 3 Preemption is not \
         helpful for scheduling."
    );
}

#[test]
fn the_emptier_node_wins() {
    let mut busy = node("busy", json!({}), json!({}));
    busy.add(pod("x", json!({}), json!({"containers": cpu("1")})));
    let free = node("free", json!({}), json!({}));
    assert_eq!(outcome(&pod("p", json!({}), json!({"containers": cpu("100m")})), vec![busy, free]), "free");
}

#[test]
fn tolerations_and_selectors_open_nodes() {
    let taint = json!({"taints": [{"key": "k", "effect": "NoExecute"}]});
    let wanted = json!({"tolerations": [{"key": "k", "operator": "Exists"}], "nodeSelector": {"disk": "ssd"}});
    let nodes = vec![node("a", json!({}), json!({})), node("b", json!({"disk": "ssd"}), taint)];
    assert_eq!(outcome(&pod("p", json!({}), wanted), nodes), "b");
}

#[test]
fn host_ports_collide_by_address_protocol_and_port() {
    let port = |ip: &str, port: u16| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": port, "hostIP": ip}]}]});
    let cases = [
        ("", 80, "", 80, false),
        ("10.0.0.1", 80, "10.0.0.2", 80, true),
        ("0.0.0.0", 80, "10.0.0.2", 80, false),
        ("", 80, "", 81, true),
    ];
    for (taken_ip, taken, ip, wanted, fits) in cases {
        let mut one = node("n", json!({}), json!({}));
        one.add(pod("x", json!({}), port(taken_ip, taken)));
        assert_eq!(
            outcome(&pod("p", json!({}), port(ip, wanted)), vec![one]) == "n",
            fits,
            "{taken_ip}:{taken} {ip}:{wanted}"
        );
    }
}

#[test]
fn anti_affinity_holds_both_ways() {
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "host"}]}}});
    let nodes = |placed: Arc<PodInfo>| {
        let mut a = node("a", json!({"host": "a"}), json!({}));
        a.add(placed);
        vec![a, node("b", json!({"host": "b"}), json!({}))]
    };
    let web = json!({"app": "web"});
    let plain = pod("x", web.clone(), json!({}));
    assert_eq!(outcome(&pod("p", json!({}), apart.clone()), nodes(plain)), "b");
    let keeper = pod("x", json!({}), apart);
    assert_eq!(outcome(&pod("p", web, json!({})), nodes(keeper)), "b");
}

#[test]
fn the_first_of_a_group_may_start_it_and_others_follow() {
    let together = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "host"}]}}});
    let web = json!({"app": "web"});
    let first = pod("p", web.clone(), together.clone());
    let nodes = vec![node("a", json!({"host": "a"}), json!({})), node("b", json!({}), json!({}))];
    assert_eq!(outcome(&first, nodes.clone()), "a", "a node without the topology label never fits");
    assert!(outcome(&pod("q", json!({}), together), nodes).contains("didn't match pod affinity rules"));
}

#[test]
fn spread_keeps_domains_even() {
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let web = json!({"app": "web"});
    let mut a = node("a", json!({"zone": "1"}), json!({}));
    a.add(pod("x", web.clone(), json!({})));
    let nodes = vec![a, node("b", json!({"zone": "2"}), json!({}))];
    assert_eq!(outcome(&pod("p", web, spread), nodes), "b");
}

#[test]
fn preemption_takes_the_least_important_that_suffice() {
    let mut full = node("n", json!({}), json!({}));
    for (name, priority, amount) in [("low", 1, "1"), ("mid", 5, "500m"), ("high", 100, "500m")] {
        full.add(pod(name, json!({}), json!({"priority": priority, "containers": cpu(amount)})));
    }
    let incoming = pod("p", json!({}), json!({"priority": 50, "containers": cpu("1")}));
    let nodes = vec![Arc::new(full)];
    let Decision::Nowhere(refusals) = decide(&incoming, &nodes, None, 0) else { panic!("the node is full") };
    let plan = crate::preemption::plan(&incoming, &nodes, &refusals, None).unwrap();
    assert_eq!(plan.victims.iter().map(|victim| victim.uid.as_str()).collect::<Vec<_>>(), ["low"]);
}
