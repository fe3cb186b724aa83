//! From objects to elements, from elements to text; and the text against the kernel, with real packets.

use std::{collections::BTreeSet, process::Command, sync::Arc};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde_json::{Value, json};
use testkit::host::Host;

use super::{
    model::{Desired, Place, desired},
    *,
};
use crate::pod::PodNetwork;

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec})).unwrap()
}

fn slice(port: u16, endpoints: Value) -> Arc<EndpointSlice> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "a"}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            "endpoints": endpoints,
        }))
        .unwrap(),
    )
}

fn web(more: Value) -> Value {
    let mut spec = json!({"clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn elements(spec: Value, endpoints: Value) -> Desired {
    let place = Place { node: "here".into(), zone: Some("z".into()) };
    desired(&Key::new("a", "web"), &service(spec), &[slice(8080, endpoints)], &place)
}

fn ready(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true, "serving": true}})
}

#[test]
fn endpoints_are_numbered_and_the_chain_is_by_their_number() {
    let all = elements(web(json!({})), json!([ready("10.42.0.3", "here"), ready("10.42.0.2", "there")]));
    assert_eq!(all.services["10.43.0.9 . tcp . 80"], "ep-2");
    assert_eq!(all.endpoints["10.43.0.9 . tcp . 80 . 0"], "10.42.0.2 . 8080");
    assert_eq!(all.endpoints["10.43.0.9 . tcp . 80 . 1"], "10.42.0.3 . 8080");
}

#[test]
fn without_endpoints_connections_are_refused_and_without_local_ones_dropped() {
    let none = elements(web(json!({})), json!([]));
    assert_eq!(none.refused["10.43.0.9 . tcp . 80"], "refuse");
    let elsewhere = elements(web(json!({"internalTrafficPolicy": "Local"})), json!([ready("10.42.0.2", "there")]));
    assert_eq!(elsewhere.refused["10.43.0.9 . tcp . 80"], "discard");
}

#[test]
fn ending_endpoints_serve_only_when_no_other_does() {
    let ending =
        json!({"addresses": ["10.42.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    let both = elements(web(json!({})), json!([ending.clone(), ready("10.42.0.2", "here")]));
    assert_eq!(both.services["10.43.0.9 . tcp . 80"], "ep-1");
    assert_eq!(both.endpoints["10.43.0.9 . tcp . 80 . 0"], "10.42.0.2 . 8080");
    let last = elements(web(json!({})), json!([ending]));
    assert_eq!(last.endpoints["10.43.0.9 . tcp . 80 . 0"], "10.42.0.4 . 8080");
}

#[test]
fn node_ports_masquerade_unless_local() {
    let ports =
        json!({"type": "NodePort", "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]});
    let cluster = elements(web(ports.clone()), json!([ready("10.42.0.2", "there")]));
    assert_eq!(cluster.node_ports["tcp . 30080"], "np-1");
    let mut local = ports;
    local["externalTrafficPolicy"] = "Local".into();
    let local = elements(web(local), json!([ready("10.42.0.2", "there"), ready("10.42.0.3", "here")]));
    assert_eq!(local.node_ports["tcp . 30080"], "npl-1");
    assert_eq!(local.node_endpoints["tcp . 30080 . 0"], "10.42.0.3 . 8080");
}

#[test]
fn differences_touch_only_what_changed() {
    let one = elements(web(json!({})), json!([ready("10.42.0.2", "here")]));
    let two = elements(web(json!({})), json!([ready("10.42.0.2", "here"), ready("10.42.0.3", "there")]));
    assert_eq!(
        difference("t", &one, &two).text(),
        "delete element ip t services { 10.43.0.9 . tcp . 80 }\n\
         add element ip t services { 10.43.0.9 . tcp . 80 : goto ep-2 }\n\
         add element ip t endpoints { 10.43.0.9 . tcp . 80 . 1 : 10.42.0.3 . 8080 }\n"
    );
    assert_eq!(difference("t", &two, &two), Difference::default());
}

#[test]
fn the_kernel_balances_refuses_and_remembers() {
    if !Host::available() {
        return;
    }
    let host = Host::new();
    let itself = std::env::current_exe().unwrap();
    let output = host
        .command(&itself)
        .args(["--exact", "proxy::tests::inside", "--nocapture"])
        .env("NAVARCH_PROXY_TEST", "1")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
}

fn sh(line: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    (
        output.status.success(),
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
    )
}

/// Only does something when the test above runs it inside a host.
#[tokio::test]
async fn inside() {
    if std::env::var_os("NAVARCH_PROXY_TEST").is_none() {
        return;
    }
    let state = std::path::PathBuf::from("/run/addresses");
    let pods = PodNetwork::new(crate::pod::Config {
        prefix: "nv".into(),
        cidr: "10.42.0.0/24".parse().unwrap(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        state_dir: state.clone(),
        mtu: 1500,
    })
    .await
    .unwrap();
    pods.add_route("10.43.0.0/16".parse().unwrap()).await.unwrap();
    for n in 2..4 {
        let (ok, text) =
            sh(&format!("ip netns add p{n} && mkdir -p /run/www{n}/cgi-bin && echo pod{n} > /run/www{n}/name"));
        assert!(ok, "{text}");
        let netns = std::path::PathBuf::from(format!("/run/netns/p{n}"));
        let address = pods.setup(&netns, &format!("sandbox-{n}"), &[]).await.unwrap()[0];
        assert_eq!(address.to_string(), format!("10.42.0.{n}"));
        // Says who asks, too.
        let script = "#!/bin/sh\necho; echo $REMOTE_ADDR";
        let (ok, text) = sh(&format!(
            "printf '%s\n' '{script}' > /run/www{n}/cgi-bin/who && chmod +x /run/www{n}/cgi-bin/who &&
             nsenter --net=/run/netns/p{n} busybox httpd -p 8080 -h /run/www{n}"
        ));
        assert!(ok, "{text}");
    }
    let mut table = Table::new("nv", "10.42.0.0/16".parse().unwrap());
    let both = json!([ready("10.42.0.2", "here"), ready("10.42.0.3", "here")]);
    let ports =
        json!({"type": "NodePort", "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]});
    let first = elements(web(ports.clone()), both.clone());
    // In two transactions: nft reads the maps' types back from the kernel before it adds to them.
    nft::apply(&table.base()).await.unwrap();
    let text = table.chains_for(&first) + &difference(table.name(), &Desired::default(), &first).text();
    nft::apply(&text).await.unwrap();

    let get_path = |path: &str, from: &str, to: &str| {
        sh(&format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | {from} timeout 3 busybox nc {to}")).1
    };
    let get = |from: &str, to: &str| get_path("/name", from, to);
    let pods_seen = |from: &str, to: &str| -> BTreeSet<String> {
        (0..16).map(|_| get(from, to).lines().last().unwrap_or_default().to_string()).collect()
    };
    let all: BTreeSet<String> = ["pod2".to_string(), "pod3".to_string()].into();
    for (from, to) in [
        ("", "10.43.0.9 80"),
        ("nsenter --net=/run/netns/p2", "10.43.0.9 80"),
        ("", "10.91.0.1 30080"),
        ("", "127.0.0.1 30080"),
        ("nsenter --net=/run/netns/p3", "10.42.0.1 30080"),
    ] {
        assert_eq!(pods_seen(from, to), all, "{from} {to}");
    }
    let only = |address: &str| elements(web(json!({})), json!([ready(address, "here")]));
    for (address, asker) in [("10.42.0.3", "10.42.0.2"), ("10.42.0.2", "10.42.0.1")] {
        let one = only(address);
        let change = difference(table.name(), &first, &one).text();
        nft::apply(&(table.chains_for(&one) + &change)).await.unwrap();
        let seen = get_path("/cgi-bin/who", "nsenter --net=/run/netns/p2", "10.43.0.9 80");
        // busybox writes IPv4 addresses as [::ffff:A.B.C.D].
        let last = seen.lines().last().unwrap_or_default().trim_matches(['[', ']']).trim_start_matches("::ffff:");
        assert_eq!(last, asker, "the client's own address, unless it is the endpoint itself: {seen}");
        nft::apply(&(table.chains_for(&first) + &difference(table.name(), &one, &first).text())).await.unwrap();
    }
    let (_, refused) = sh("timeout 3 busybox nc 10.43.0.9 81");
    assert!(refused.contains("refused") || refused.contains("unreachable"), "another port of the Service: {refused:?}");

    let mut sticky = ports;
    sticky["sessionAffinity"] = "ClientIP".into();
    let second = elements(web(sticky), both);
    nft::apply(&(table.chains_for(&second) + &difference(table.name(), &first, &second).text())).await.unwrap();
    assert_eq!(pods_seen("nsenter --net=/run/netns/p2", "10.43.0.9 80").len(), 1, "the same pod every time");

    let third = elements(web(json!({})), json!([]));
    nft::apply(&(table.chains_for(&third) + &difference(table.name(), &second, &third).text())).await.unwrap();
    let (_, refused) = sh("timeout 3 busybox nc 10.43.0.9 80");
    assert!(refused.contains("refused"), "no endpoints: {refused:?}");
    nft::apply(&difference(table.name(), &third, &Desired::default()).text()).await.unwrap();
    remove_all("nv").await.unwrap();
    crate::pod::remove_all("nv", &state).await.unwrap();
    assert_eq!(nft::query(&["list", "tables"]).await.unwrap(), "");
}
