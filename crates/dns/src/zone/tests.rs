//! Questions and answers, as a table over a cluster that a scripted API holds.

use client::Informers;
use serde_json::{Value, json};
use testkit::api::Api;
use tokio_util::sync::CancellationToken;

use super::*;

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

fn service(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec})
}

fn slice(service: &str, suffix: &str, kind: &str, endpoints: Value) -> Value {
    json!({
        "metadata": {"name": format!("{service}-{suffix}"), "namespace": "a", "labels": {"kubernetes.io/service-name": service}},
        "addressType": kind, "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

async fn zone() -> (Api, Zone) {
    let api = Api::default();
    api.put("/api/v1/namespaces", json!({"metadata": {"name": "a"}}));
    let ports =
        json!([{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    api.put(SERVICES, service("web", json!({"clusterIPs": ["10.43.0.9", "fd00::9"], "ports": ports})));
    api.put(SERVICES, service("db", json!({"clusterIP": "None", "clusterIPs": ["None"]})));
    api.put(SERVICES, service("none", json!({"clusterIP": "None", "clusterIPs": ["None"]})));
    api.put(SERVICES, service("far", json!({"type": "ExternalName", "externalName": "example.org"})));
    let endpoints = json!([
        {"addresses": ["10.42.0.3"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.42.0.4"], "conditions": {"ready": true}},
        {"addresses": ["10.42.0.5"], "hostname": "db-2", "conditions": {"ready": false}},
    ]);
    api.put(SLICES, slice("db", "4", "IPv4", endpoints));
    let six = json!([{"addresses": ["fd00::3"], "hostname": "db-0", "conditions": {}}]);
    api.put(SLICES, slice("db", "6", "IPv6", six));
    api.put(SLICES, slice("web", "4", "IPv4", json!([{"addresses": ["10.42.0.8"], "conditions": {"ready": true}}])));
    let informers = Informers::new(client::in_process(api.clone()), CancellationToken::new());
    let zone = Zone::new("cluster.local", vec!["10.43.0.10".parse().unwrap()], Cluster::new(&informers)).unwrap();
    zone.cluster().synced().await;
    (api, zone)
}

/// An answer as lines, in an order of their own.
fn shown(answer: Answer) -> String {
    let lines = |records: Vec<Record>| {
        let mut lines: Vec<String> =
            records.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect();
        lines.sort();
        lines.join(", ")
    };
    match answer {
        Answer::Records { answers, additionals } if additionals.is_empty() => lines(answers),
        Answer::Records { answers, additionals } => format!("{} + {}", lines(answers), lines(additionals)),
        Answer::Alias { answers, target } => format!("{} -> {target}", lines(answers)),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn names_have_the_records_of_the_specification() {
    let (_api, zone) = zone().await;
    let cases = [
        ("cluster.local", "SOA", "SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"),
        ("cluster.local", "NS", "NS ns.dns.cluster.local. + A 10.43.0.10"),
        ("cluster.local", "A", "NoData"),
        ("ns.dns.cluster.local", "A", "A 10.43.0.10"),
        ("dns-version.cluster.local", "TXT", "TXT 1.1.0"),
        ("dns-version.cluster.local", "A", "NoData"),
        // Services with addresses.
        ("web.a.svc.cluster.local", "A", "A 10.43.0.9"),
        ("WEB.a.SVC.Cluster.Local", "A", "A 10.43.0.9"),
        ("web.a.svc.cluster.local", "AAAA", "AAAA fd00::9"),
        ("web.a.svc.cluster.local", "MX", "NoData"),
        (
            "_http._tcp.web.a.svc.cluster.local",
            "SRV",
            "SRV 0 100 80 web.a.svc.cluster.local. + A 10.43.0.9, AAAA fd00::9",
        ),
        ("_http._tcp.web.a.svc.cluster.local", "A", "NoData"),
        ("_http._udp.web.a.svc.cluster.local", "SRV", "NoSuchName"),
        ("_nope._tcp.web.a.svc.cluster.local", "SRV", "NoSuchName"),
        ("_tcp.web.a.svc.cluster.local", "SRV", "NoData"),
        ("_sctp.web.a.svc.cluster.local", "SRV", "NoSuchName"),
        (
            "web.a.svc.cluster.local",
            "SRV",
            "SRV 0 50 53 web.a.svc.cluster.local., SRV 0 50 80 web.a.svc.cluster.local. + A 10.43.0.9, AAAA fd00::9",
        ),
        ("10-42-0-8.web.a.svc.cluster.local", "A", "A 10.42.0.8"),
        // Headless Services: ready endpoints only.
        ("db.a.svc.cluster.local", "A", "A 10.42.0.3, A 10.42.0.4"),
        ("db.a.svc.cluster.local", "AAAA", "AAAA fd00::3"),
        ("db-0.db.a.svc.cluster.local", "A", "A 10.42.0.3"),
        ("db-0.db.a.svc.cluster.local", "AAAA", "AAAA fd00::3"),
        ("10-42-0-4.db.a.svc.cluster.local", "A", "A 10.42.0.4"),
        ("10-42-0-4.db.a.svc.cluster.local", "AAAA", "NoData"),
        ("db-2.db.a.svc.cluster.local", "A", "NoSuchName"),
        (
            "_http._tcp.db.a.svc.cluster.local",
            "SRV",
            "SRV 0 50 8080 10-42-0-4.db.a.svc.cluster.local., SRV 0 50 8080 db-0.db.a.svc.cluster.local. \
             + A 10.42.0.3, A 10.42.0.4, AAAA fd00::3",
        ),
        ("none.a.svc.cluster.local", "A", "NoSuchName"),
        ("far.a.svc.cluster.local", "A", "CNAME example.org. -> example.org."),
        ("x.far.a.svc.cluster.local", "A", "NoSuchName"),
        // Pods.
        ("10-42-0-77.a.pod.cluster.local", "A", "A 10.42.0.77"),
        ("10-42-0-77.a.pod.cluster.local", "AAAA", "NoData"),
        ("fd00--77.a.pod.cluster.local", "AAAA", "AAAA fd00::77"),
        ("10-42-0.a.pod.cluster.local", "A", "NoSuchName"),
        ("10-42-0-77.b.pod.cluster.local", "A", "NoSuchName"),
        // Names that others end in, and those that are not there.
        ("svc.cluster.local", "A", "NoData"),
        ("a.svc.cluster.local", "A", "NoData"),
        ("b.svc.cluster.local", "A", "NoSuchName"),
        ("nope.a.svc.cluster.local", "A", "NoSuchName"),
        ("nope.cluster.local", "A", "NoSuchName"),
        ("x.y.z.web.a.svc.cluster.local", "A", "NoSuchName"),
        // Addresses.
        ("9.0.43.10.in-addr.arpa", "PTR", "PTR web.a.svc.cluster.local."),
        ("3.0.42.10.in-addr.arpa", "PTR", "PTR db-0.db.a.svc.cluster.local."),
        ("4.0.42.10.in-addr.arpa", "PTR", "PTR 10-42-0-4.db.a.svc.cluster.local."),
        ("9.0.43.10.in-addr.arpa", "A", "NoData"),
        ("8.0.42.10.in-addr.arpa", "PTR", "Elsewhere"),
        ("43.10.in-addr.arpa", "PTR", "Elsewhere"),
        ("example.org", "A", "Elsewhere"),
        ("notcluster.local", "A", "Elsewhere"),
    ];
    for (name, kind, expected) in cases {
        let question = Name::from_ascii(format!("{name}.")).unwrap();
        assert_eq!(shown(zone.answer(&question, kind.parse().unwrap())), expected, "{name} {kind}");
    }
}

#[tokio::test]
async fn headless_answers_begin_with_any_of_the_endpoints() {
    let (_api, zone) = zone().await;
    let name = Name::from_ascii("db.a.svc.cluster.local.").unwrap();
    let firsts: BTreeSet<String> = (0..64)
        .filter_map(|_| match zone.answer(&name, RecordType::A) {
            Answer::Records { answers, .. } => Some(answers.first()?.data.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(firsts.len(), 2, "{firsts:?}");
}
