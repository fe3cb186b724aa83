//! The `/etc/hosts` of a pod: its own name, and the aliases that it asks for.

use k8s_openapi::api::core::v1 as core;

use super::PodExt;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HOST_HEADER: &str = "# Kubernetes-managed hosts file (host network).\n";

/// The text of the file. `host` is the node's own, for pods on the host's network.
pub(crate) fn hosts(pod: &core::Pod, addresses: &[String], hostname: &str, domain: Option<&str>, host: &str) -> String {
    let mut text = if pod.is_host_network() {
        let mut text = format!("{HOST_HEADER}{host}");
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    } else {
        let mut text = format!(
            "{HEADER}127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        );
        for address in addresses {
            match domain {
                Some(domain) => text.push_str(&format!("{address}\t{hostname}.{domain}\t{hostname}\n")),
                None => text.push_str(&format!("{address}\t{hostname}\n")),
            }
        }
        text
    };
    let aliases: Vec<&core::HostAlias> = pod.specification().host_aliases.iter().flatten().collect();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// The host name of a pod and, with a subdomain, the domain that makes it a full name.
pub(crate) fn name(pod: &core::Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = pod.specification();
    if let Some(own) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (own.to_owned(), None);
    }
    let chosen = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(pod.name());
    // A host name has at most 63 bytes and must not end in what a label cannot end with.
    let mut end = chosen.len().min(63);
    while !chosen.is_char_boundary(end) {
        end -= 1;
    }
    let hostname = chosen[..end].trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
    let domain = subdomain.map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()));
    (hostname, domain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_name_and_aliases() {
        let pod: core::Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [], "subdomain": "sub", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]},
        }))
        .unwrap();
        let (hostname, domain) = name(&pod, "cluster.local");
        let text = hosts(&pod, &["10.0.0.1".into()], &hostname, domain.as_deref(), "");
        assert!(text.contains("10.0.0.1\tp.sub.n.svc.cluster.local\tp\n"), "{text}");
        assert!(text.ends_with("1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn long_names_are_cut() {
        let mut pod = core::Pod::default();
        pod.metadata.name = Some(format!("{}-tail", "x".repeat(62)));
        assert_eq!(name(&pod, "c").0, "x".repeat(62));
    }
}
