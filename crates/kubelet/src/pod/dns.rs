//! Name resolution of a pod: servers, search list and options for its `/etc/resolv.conf`.

use k8s_openapi::api::core::v1 as core;

use super::PodExt;
use crate::cri::v1::DnsConfig;

/// What the C libraries of container images take at most.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;

/// Resolution for the pod's policy. `host` is the node's own; `servers` and `domain` the cluster's.
pub(crate) fn config(pod: &core::Pod, host: &DnsConfig, servers: &[String], domain: &str) -> DnsConfig {
    let spec = pod.specification();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod.is_host_network(),
        _ => false,
    };
    let mut config = match (policy, cluster && !servers.is_empty()) {
        ("None", _) => DnsConfig::default(),
        (_, true) => {
            let own = [format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.to_owned()];
            DnsConfig {
                servers: servers.to_vec(),
                searches: unique(own.iter().chain(&host.searches)),
                options: vec!["ndots:5".to_owned()],
            }
        }
        (_, false) => host.clone(),
    };
    if let Some(extra) = &spec.dns_config {
        config.servers = unique(config.servers.iter().chain(extra.nameservers.iter().flatten()));
        config.searches = unique(config.searches.iter().chain(extra.searches.iter().flatten()));
        for option in extra.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            config.options.retain(|old| old.split(':').next() != Some(name));
            config.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.join(" ").len() > MAX_SEARCH_BYTES {
        config.searches.pop();
    }
    config
}

/// The entries of a `resolv.conf`.
pub(crate) fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            Some("search") => config.searches = words.filter(|word| word != ".").collect(),
            Some("domain") if config.searches.is_empty() => config.searches.extend(words.next()),
            Some("options") => config.options.extend(words),
            _ => {}
        }
    }
    config
}

fn unique<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut seen = Vec::new();
    for text in all {
        if !seen.contains(text) {
            seen.push(text.clone());
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn policies() {
        let host = parse("# x\nnameserver 9.9.9.9\nsearch lan corp\noptions edns0 ndots:1\n");
        let cases: Vec<(Value, &str)> = vec![
            (json!({}), "10.0.0.10 | n.svc.c svc.c c lan corp | ndots:5"),
            (json!({"hostNetwork": true}), "9.9.9.9 | lan corp | edns0 ndots:1"),
            (
                json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                "10.0.0.10 | n.svc.c svc.c c lan corp | ndots:5",
            ),
            (json!({"dnsPolicy": "Default"}), "9.9.9.9 | lan corp | edns0 ndots:1"),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "a"}]}}),
                "1.1.1.1 | x | a",
            ),
            (
                json!({"dnsConfig": {"searches": ["x", "lan"], "options": [{"name": "ndots", "value": "2"}]}}),
                "10.0.0.10 | n.svc.c svc.c c lan corp x | ndots:2",
            ),
        ];
        for (mut spec, expect) in cases {
            spec["containers"] = json!([]);
            let pod: core::Pod = serde_json::from_value(json!({"metadata": {"namespace": "n"}, "spec": spec})).unwrap();
            let made = config(&pod, &host, &["10.0.0.10".to_owned()], "c");
            let text = [made.servers.join(" "), made.searches.join(" "), made.options.join(" ")].join(" | ");
            assert_eq!(text, expect, "{pod:?}");
        }
    }
}
