//! Rules of a pod's spec, for Pods and for templates in workloads.
//!
//! [`spec`] judges what both share, [`template`] a whole template, [`create`] a new Pod. What an update may change is in
//! [`update`]. Paths and words follow upstream's core validation.

mod container;
mod env;
mod probe;
pub mod resources;
mod scheduling;
mod security;
pub mod update;
mod volume;
pub mod warnings;

use serde_json::Value;

use self::volume::Volumes;
pub(crate) use self::{scheduling::node_selector, volume::host_path};
use super::{
    field::{self, Errors, Field},
    metadata, names, net,
};

/// Annotation of pods that mirror a kubelet's static pod.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

/// What the rules of a spec depend on besides the spec.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// A Pod, not a template.
    pub(crate) is_pod: bool,
    /// Name of the Pod; empty for templates.
    pub(crate) pod_name: &'a str,
}

/// A new Pod.
pub fn create(errors: &mut Errors, pod: &Field<'_>) {
    whole(errors, pod);
    let spec = &pod.get("spec");
    if !spec.get("ephemeralContainers").is_empty() {
        errors.push(spec.get("ephemeralContainers").forbidden("cannot be set on create"));
    }
    if !spec.get("nodeName").is_empty() && !spec.get("schedulingGates").is_empty() {
        errors.push(spec.get("nodeName").forbidden("cannot be set until all schedulingGates have been cleared"));
    }
}

/// A Pod's annotations and spec, whatever the write.
pub(crate) fn whole(errors: &mut Errors, pod: &Field<'_>) {
    let scope = Scope { is_pod: true, pod_name: pod.get("metadata.name").str() };
    let spec_field = &pod.get("spec");
    annotations(errors, &pod.get("metadata.annotations"), spec_field);
    spec(errors, spec_field, scope);
    if spec_field.get("serviceAccountName").is_empty() {
        let volumes = &spec_field.get("volumes");
        for volume in volumes.items() {
            let sources = &volume.get("projected.sources");
            for source in sources.items() {
                let token = source.get("serviceAccountToken");
                if token.exists() {
                    errors.push(token.forbidden("must not be specified when serviceAccountName is not set"));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        let containers = &spec_field.get(list);
        for container in containers.items() {
            container::image_without_blanks(errors, &container);
        }
    }
}

/// A pod template: metadata and spec.
pub fn template(errors: &mut Errors, template: &Field<'_>) {
    // Upstream leaves `metadata` out of these paths.
    let own = |name: &str| format!("{}.{name}", template.path());
    let (label_path, annotation_path) = (own("labels"), own("annotations"));
    let at = |name: &str, path| Field::at(field::walk(template.value(), name), path);
    let note = at("metadata.annotations", &annotation_path);
    metadata::labels(errors, &at("metadata.labels", &label_path));
    metadata::annotations(errors, &note);
    let spec_field = &template.get("spec");
    annotations(errors, &note, spec_field);
    spec(errors, spec_field, Scope { is_pod: false, pod_name: "" });
    if !spec_field.get("ephemeralContainers").is_empty() {
        errors
            .push(spec_field.get("ephemeralContainers").forbidden("ephemeral containers not allowed in pod template"));
    }
}

/// Annotations with a meaning for pods.
fn annotations(errors: &mut Errors, annotations: &Field<'_>, spec: &Field<'_>) {
    let mirror = annotations.key(MIRROR);
    if mirror.exists() && spec.get("nodeName").is_empty() {
        errors.push(mirror.invalid("must set spec.nodeName if mirror pod annotation is set"));
    }
    let cost = annotations.key("controller.kubernetes.io/pod-deletion-cost");
    if cost.exists() && (cost.str().parse::<i32>().is_err() || cost.str().starts_with('+')) {
        errors.push(cost.invalid("must be a 32bit integer"));
    }
}

/// Everything in a pod's spec.
pub(crate) fn spec(errors: &mut Errors, spec: &Field<'_>, scope: Scope<'_>) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.exists() {
        errors.push(grace.required(""));
    }
    let volumes = Volumes::read(errors, &spec.get("volumes"), scope.pod_name);
    let claims = scheduling::claims(errors, &spec.get("resourceClaims"));
    container::all(errors, spec, &volumes, &claims);
    resources::of_pod(errors, spec);
    host_ports(errors, spec, scope);
    spec.get("restartPolicy").required_one_of(errors, &["Always", "OnFailure", "Never"]);
    spec.get("dnsPolicy").required_one_of(errors, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    metadata::labels(errors, &spec.get("nodeSelector"));
    security::of_pod(errors, spec);
    scheduling::affinity(errors, &spec.get("affinity"));
    dns(errors, spec);
    let gates = &spec.get("readinessGates");
    for gate in gates.items() {
        let kind = gate.get("conditionType");
        kind.judge(errors, names::qualified_name(kind.str()));
    }
    scheduling::gates(errors, &spec.get("schedulingGates"));
    scheduling::spread(errors, &spec.get("topologySpreadConstraints"));
    scheduling::tolerations(errors, &spec.get("tolerations"));
    named(errors, spec);
    let deadline = spec.get("activeDeadlineSeconds");
    if let Some(seconds) = deadline.int() {
        deadline.judge(errors, names::in_range(seconds, 1, i64::from(i32::MAX)));
    }
    let aliases = &spec.get("hostAliases");
    for alias in aliases.items() {
        net::address(errors, &alias.get("ip"));
        let hosts = &alias.get("hostnames");
        for host in hosts.items() {
            host.judge(errors, names::dns_subdomain(host.str()));
        }
    }
    let preemption = spec.get("preemptionPolicy");
    if preemption.exists() {
        preemption.required_one_of(errors, &["Never", "PreemptLowerPriority"]);
    }
    resources::overhead(errors, &spec.get("overhead"), &format!("{}.overhead.limits", spec.path()));
    let (system, name) = (spec.get("os"), spec.get("os.name"));
    if system.exists() && name.is_empty() {
        errors.push(name.required(""));
    } else if system.exists() && !matches!(name.str(), "linux" | "windows") {
        errors.push(crate::status::FieldError::not_supported(system.path(), name.str(), &["linux", "windows"]));
    }
}

/// On the host's network a port of the pod is one of the host.
fn host_ports(errors: &mut Errors, spec: &Field<'_>, scope: Scope<'_>) {
    if !spec.get("hostNetwork").is_true() {
        return;
    }
    let containers = &spec.get("containers");
    for container in containers.items() {
        let ports = &container.get("ports");
        for port in ports.items() {
            let host = port.get("hostPort");
            let number = host.int().unwrap_or(0);
            if (scope.is_pod || number != 0) && number != port.get("containerPort").int().unwrap_or(0) {
                errors.push(host.invalid_value(number, "must match `containerPort` when `hostNetwork` is true"));
            }
        }
    }
}

/// Members that are names of something.
fn named(errors: &mut Errors, spec: &Field<'_>) {
    const NAMES: &[(&str, names::Rule)] = &[
        ("serviceAccountName", names::dns_subdomain),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
    ];
    for (name, judge) in NAMES {
        let field = spec.get(name);
        if !field.str().is_empty() {
            field.judge(errors, judge(field.str()));
        }
    }
    let host = spec.get("hostnameOverride");
    if host.exists() {
        if spec.get("setHostnameAsFQDN").is_true() {
            errors.push(host.forbidden("may not be specified when setHostnameAsFQDN is true"));
        }
        if spec.get("hostNetwork").is_true() {
            errors.push(host.forbidden("may not be specified when hostNetwork is true"));
        }
        if host.str().len() > 64 {
            errors.push(host.too_long(64));
        }
        host.judge(errors, names::dns_subdomain(host.str()));
    }
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;

fn dns(errors: &mut Errors, spec: &Field<'_>) {
    let config = &spec.get("dnsConfig");
    let servers = &config.get("nameservers");
    if spec.get("dnsPolicy").str() == "None" {
        if !config.exists() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            errors.push(servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None"));
            return;
        }
    }
    if servers.list().len() > NAMESERVERS_MAX {
        errors.push(servers.invalid(format!("must not have more than {NAMESERVERS_MAX} nameservers")));
    }
    for server in servers.items() {
        net::address(errors, &server);
    }
    let searches = &config.get("searches");
    if searches.list().len() > SEARCHES_MAX {
        errors.push(searches.invalid(format!("must not have more than {SEARCHES_MAX} search paths")));
    }
    let characters: usize = searches.list().iter().filter_map(Value::as_str).map(|text| text.len() + 1).sum();
    if characters > SEARCH_CHARS_MAX + 1 {
        errors.push(searches.invalid(format!(
            "must not have more than {SEARCH_CHARS_MAX} characters (including spaces) in the search list"
        )));
    }
    for search in searches.items() {
        if search.str() != "." {
            let domain = search.str().strip_suffix('.').unwrap_or(search.str());
            search.judge(errors, names::dns_subdomain_with_underscore(domain));
        }
    }
    let options = &config.get("options");
    for option in options.items() {
        if option.get("name").is_empty() {
            errors.push(option.required("must not be empty"));
        }
    }
}

#[cfg(test)]
mod tests;
