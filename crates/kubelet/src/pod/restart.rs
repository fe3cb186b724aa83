//! Whether a container that ended starts again.
//!
//! The order: the container's own rules on exit codes, the container's own policy, the pod's policy. An init container
//! under the pod policy `Always` is retried until it succeeds and then left alone.

use k8s_openapi::api::core::v1 as core;

use super::observed::{Instance, State};
use super::{Kind, PodExt};

/// What follows the end of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stay,
    Restart,
    /// A rule asks for every container of the pod to start anew.
    RestartAll,
}

/// The verdict on an exit with `code`.
pub(crate) fn after_exit(pod: &core::Pod, kind: Kind, container: &core::Container, code: i32) -> Verdict {
    if kind == Kind::Ephemeral {
        return Verdict::Stay;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(on) = &rule.exit_codes else { continue };
        let listed = on.values.iter().flatten().any(|value| *value == code);
        let matches = match on.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches {
            return if rule.action == "RestartAllContainers" { Verdict::RestartAll } else { Verdict::Restart };
        }
    }
    let restart = match policy(pod, container) {
        "Always" => kind != Kind::Init || code != 0,
        "OnFailure" => code != 0,
        _ => false,
    };
    if restart { Verdict::Restart } else { Verdict::Stay }
}

/// `Always`, `OnFailure` or `Never`: the container's own policy before the pod's.
pub(crate) fn policy<'a>(pod: &'a core::Pod, container: &'a core::Container) -> &'a str {
    let own = container.restart_policy.as_deref();
    own.or(pod.specification().restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether the next sync should start `container`, given its newest instance.
pub(crate) fn should_start(
    pod: &core::Pod,
    kind: Kind,
    container: &core::Container,
    newest: Option<&Instance>,
) -> bool {
    if pod.is_deleting() {
        return false;
    }
    let Some(newest) = newest else { return true };
    match newest.state {
        State::Running => false,
        State::Created | State::Unknown => kind != Kind::Ephemeral,
        State::Exited => after_exit(pod, kind, container, newest.exit_code) != Verdict::Stay,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_before_container_before_pod() {
        let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}},
                           {"action": "RestartAllContainers", "exitCodes": {"operator": "NotIn", "values": [0, 1, 42]}}]);
        let cases = [
            (json!({}), "Always", Kind::Regular, 0, Verdict::Restart),
            (json!({}), "Always", Kind::Init, 0, Verdict::Stay),
            (json!({}), "Always", Kind::Init, 1, Verdict::Restart),
            (json!({}), "OnFailure", Kind::Regular, 0, Verdict::Stay),
            (json!({}), "OnFailure", Kind::Regular, 2, Verdict::Restart),
            (json!({}), "Never", Kind::Regular, 2, Verdict::Stay),
            (json!({}), "Always", Kind::Ephemeral, 2, Verdict::Stay),
            (json!({"restartPolicy": "Always"}), "Never", Kind::Sidecar, 0, Verdict::Restart),
            (json!({"restartPolicy": "Never"}), "Always", Kind::Regular, 1, Verdict::Stay),
            (
                json!({"restartPolicy": "Never", "restartPolicyRules": rules}),
                "Always",
                Kind::Regular,
                42,
                Verdict::Restart,
            ),
            (json!({"restartPolicy": "Never", "restartPolicyRules": rules}), "Always", Kind::Regular, 1, Verdict::Stay),
            (
                json!({"restartPolicy": "Never", "restartPolicyRules": rules}),
                "Never",
                Kind::Regular,
                9,
                Verdict::RestartAll,
            ),
        ];
        for (mut container, pod_policy, kind, code, expect) in cases {
            container["name"] = "c".into();
            let pod: core::Pod =
                serde_json::from_value(json!({"spec": {"restartPolicy": pod_policy, "containers": [container]}}))
                    .unwrap();
            let container = &pod.specification().containers[0];
            assert_eq!(after_exit(&pod, kind, container, code), expect, "{container:?} {pod_policy} {code}");
        }
    }
}
