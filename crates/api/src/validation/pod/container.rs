//! Rules of containers: regular, init and ephemeral ones.

use std::collections::HashSet;

use serde_json::Value;

use super::{env, probe, resources, security, volume::Volumes};
use crate::validation::{
    field::{Errors, Field},
    names,
};

/// What all containers of a spec are judged against.
struct Around<'a> {
    volumes: &'a Volumes<'a>,
    claims: &'a [&'a str],
    restart_policy: &'a str,
    grace_s: Option<i64>,
    host_users: bool,
}

/// All three lists of a pod's spec.
pub(super) fn all(errors: &mut Errors, spec: &Field<'_>, volumes: &Volumes<'_>, claims: &[&str]) {
    let around = Around {
        volumes,
        claims,
        restart_policy: spec.get("restartPolicy").str(),
        grace_s: spec.get("terminationGracePeriodSeconds").int(),
        host_users: spec.get("hostUsers").value().as_bool().unwrap_or(true),
    };
    let regular = &spec.get("containers");
    if regular.is_empty() {
        errors.push(regular.required(""));
    }
    let mut seen: HashSet<&str> = HashSet::new();
    let mut ports = HashSet::new();
    for container in regular.items() {
        common(errors, &container, &around);
        unique(errors, &mut seen, &container);
        lifecycle_and_probes(errors, &container, &around);
        restart_rules(errors, &container);
    }
    for container in regular.items() {
        host_ports(errors, &mut ports, &container);
    }
    init(errors, spec, &around);
    ephemeral(errors, spec, &around);
}

fn names_in<'a>(spec: &Field<'a>, list: &str) -> HashSet<&'a str> {
    let items = spec.value()[list].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|container| container["name"].as_str()).collect()
}

/// A second container of a name is an error.
fn unique<'a>(errors: &mut Errors, seen: &mut HashSet<&'a str>, container: &Field<'a>) {
    let name = container.value()["name"].as_str().unwrap_or_default();
    if !name.is_empty() && !seen.insert(name) {
        errors.push(container.get("name").duplicate());
    }
}

fn init(errors: &mut Errors, spec: &Field<'_>, around: &Around<'_>) {
    let mut seen = names_in(spec, "containers");
    let list = &spec.get("initContainers");
    for container in list.items() {
        common(errors, &container, around);
        unique(errors, &mut seen, &container);
        restart_rules(errors, &container);
        host_ports(errors, &mut HashSet::new(), &container);
        if container.get("restartPolicy").str() == "Always" {
            lifecycle_and_probes(errors, &container, around);
            continue;
        }
        for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.get(name).exists() {
                errors.push(
                    container.get(name).forbidden("may not be set for init containers without restartPolicy=Always"),
                );
            }
        }
        let policies = &container.get("resizePolicy");
        for policy in policies.items() {
            if policy.get("restartPolicy").str() == "RestartContainer" {
                errors.push(
                    policy
                        .get("restartPolicy")
                        .invalid("must not be set to 'RestartContainer' for non-sidecar initContainers"),
                );
            }
        }
    }
}

/// Members an ephemeral container may have.
const EPHEMERAL: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
];

fn ephemeral(errors: &mut Errors, spec: &Field<'_>, around: &Around<'_>) {
    let list = &spec.get("ephemeralContainers");
    if list.is_empty() {
        return;
    }
    let mut others = names_in(spec, "containers");
    others.extend(names_in(spec, "initContainers"));
    let mut seen = others.clone();
    for container in list.items() {
        common(errors, &container, around);
        image_without_blanks(errors, &container);
        unique(errors, &mut seen, &container);
        let target = container.get("targetContainerName");
        if !target.is_empty() && !others.contains(target.str()) {
            errors.push(target.not_found());
        }
        const WHY: &str = "cannot be set for an Ephemeral Container";
        for (name, value) in container.map().into_iter().flatten() {
            let empty = value.is_null() || name == "resources" && value.as_object().is_some_and(|map| map.is_empty());
            if !EPHEMERAL.contains(&name.as_str()) && !empty {
                errors.push(container.get(name).forbidden(WHY));
            }
        }
        let mounts = &container.get("volumeMounts");
        for mount in mounts.items() {
            for name in ["subPath", "subPathExpr"] {
                if !mount.get(name).is_empty() {
                    errors.push(mount.get(name).forbidden(WHY));
                }
            }
        }
    }
}

/// What every container obeys.
fn common(errors: &mut Errors, container: &Field<'_>, around: &Around<'_>) {
    let name = container.get("name");
    match name.str() {
        "" => errors.push(name.required("")),
        text => name.judge(errors, names::dns_label(text)),
    }
    if container.get("image").is_empty() {
        errors.push(container.get("image").required(""));
    }
    container.get("terminationMessagePolicy").required_one_of(errors, &["File", "FallbackToLogsOnError"]);
    ports(errors, &container.get("ports"));
    env::variables(errors, &container.get("env"));
    env::sources(errors, &container.get("envFrom"));
    around.volumes.mounts(errors, container);
    around.volumes.devices(errors, container);
    container.get("imagePullPolicy").required_one_of(errors, &["Always", "IfNotPresent", "Never"]);
    resources::of_container(errors, &container.get("resources"), around.claims);
    resize_policies(errors, &container.get("resizePolicy"), around.restart_policy);
    security::of_container(errors, &container.get("securityContext"), around.host_users);
}

/// No blanks before or behind a Pod's image (templates have always been let through).
pub(super) fn image_without_blanks(errors: &mut Errors, container: &Field<'_>) {
    let image = container.get("image");
    if image.str().trim() != image.str() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
}

fn ports(errors: &mut Errors, ports: &Field<'_>) {
    let mut seen = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.str().is_empty() {
            let messages = names::port_name(name.str());
            let fine = messages.is_empty();
            name.judge(errors, messages);
            if fine && !seen.insert(&port.value()["name"]) {
                errors.push(name.duplicate());
            }
        }
        let number = port.get("containerPort");
        match number.int().unwrap_or(0) {
            0 => errors.push(number.required("")),
            port => number.judge(errors, names::port_number(port)),
        }
        let host = port.get("hostPort");
        if let Some(number) = host.int().filter(|number| *number != 0) {
            host.judge(errors, names::port_number(number));
        }
        port.get("protocol").required_one_of(errors, &["SCTP", "TCP", "UDP"]);
    }
}

/// Two containers cannot have the same port of the host.
fn host_ports(errors: &mut Errors, taken: &mut HashSet<String>, container: &Field<'_>) {
    let ports = &container.get("ports");
    for port in ports.items() {
        let host = port.get("hostPort");
        let number = host.int().unwrap_or(0);
        if number == 0 {
            continue;
        }
        let key = format!("{}/{}/{number}", port.get("protocol").str(), port.get("hostIP").str());
        if !taken.insert(key.clone()) {
            errors.push(crate::status::FieldError::duplicate(host.path(), key));
        }
    }
}

fn lifecycle_and_probes(errors: &mut Errors, container: &Field<'_>, around: &Around<'_>) {
    let lifecycle = &container.get("lifecycle");
    for name in ["postStart", "preStop"] {
        let handler = lifecycle.get(name);
        if handler.exists() {
            probe::handler(errors, &handler, around.grace_s);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.get(name);
        if probe.exists() {
            probe::probe(errors, &probe, name == "readinessProbe", around.grace_s);
        }
    }
}

const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// A container's own restart policy and its rules by exit code.
fn restart_rules(errors: &mut Errors, container: &Field<'_>) {
    let (policy, rules) = (container.get("restartPolicy"), &container.get("restartPolicyRules"));
    if policy.exists() {
        policy.one_of(errors, &["Always", "Never", "OnFailure"]);
    } else if !rules.is_empty() {
        errors.push(policy.required("must specify restartPolicy when restart rules are used"));
    }
    if rules.list().len() > RESTART_RULES_MAX {
        errors.push(rules.too_many(rules.list().len(), RESTART_RULES_MAX));
    }
    for rule in rules.items() {
        rule.get("action").one_of(errors, &["Restart", "RestartAllContainers"]);
        let codes = &rule.get("exitCodes");
        if !codes.exists() {
            errors.push(codes.required("must be specified"));
            continue;
        }
        codes.get("operator").one_of(errors, &["In", "NotIn"]);
        let values = codes.get("values");
        if values.list().len() > EXIT_CODES_MAX {
            errors.push(values.too_many(values.list().len(), EXIT_CODES_MAX));
        }
    }
}

fn resize_policies(errors: &mut Errors, policies: &Field<'_>, restart_policy: &str) {
    for (index, policy) in policies.items().enumerate() {
        // Errors stand at the list, not at the item.
        let at = |error: crate::status::FieldError| crate::status::FieldError { field: policies.path(), ..error };
        let (resource, restart) = (policy.get("resourceName"), policy.get("restartPolicy"));
        let same = |other: &Value| other["resourceName"] == policy.value()["resourceName"];
        if policies.list()[..index].iter().any(same) {
            errors.push(crate::status::FieldError::duplicate(policy.path(), resource.str()));
        }
        for (field, known) in [(resource, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            match field.str() {
                "" => errors.push(at(field.required(""))),
                text if known.contains(&text) => {}
                _ => errors.push(at(field.not_supported(&known))),
            }
        }
        if restart_policy == "Never" && restart.str() != "NotRequired" {
            errors.push(at(restart.invalid("must be 'NotRequired' when pod `restartPolicy` is 'Never'")));
        }
    }
}
