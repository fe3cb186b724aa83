//! The two placement rules that controllers need besides the scheduler: node affinity and taints.

use crate::{
    kinds::core::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration},
    meta::{Labels, Meta},
};

/// Whether the Pod's `nodeSelector` and required node affinity admit the node.
pub(crate) fn admits(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.labels();
    if !spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

/// A term without requirements matches no node.
pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = Labels::from([("metadata.name".to_owned(), node.name().to_owned())]);
    expressions.iter().all(|r| requirement_matches(r, node.labels()))
        && fields.iter().all(|r| requirement_matches(r, &name))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|v| values.contains(v));
    let number = |text: &String| text.parse::<i64>().ok();
    let compared = |wanted: fn(&i64, &i64) -> bool| match (value.and_then(number), values.first().and_then(number)) {
        (Some(have), Some(limit)) => wanted(&have, &limit),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(i64::gt),
        "Lt" => compared(i64::lt),
        _ => false,
    }
}

/// Whether one toleration covers the taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let number = |t: &Option<String>| t.as_ref().and_then(|t| t.parse::<i64>().ok());
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        "Gt" => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(have, limit)| have > limit),
        "Lt" => number(&taint.value).zip(number(&toleration.value)).is_some_and(|(have, limit)| have < limit),
        _ => false,
    }
}

/// The first of the taints that `relevant` selects and nothing tolerates.
pub(crate) fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    relevant: impl Fn(&Taint) -> bool,
) -> Option<&'a Taint> {
    taints.iter().find(|taint| relevant(taint) && !tolerations.iter().any(|t| tolerates(t, taint)))
}

pub(crate) fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn affinity() {
        let node: Node =
            from_value(json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cpus": "8"}}})).expect("node");
        let term = |requirement: serde_json::Value| {
            json!({"affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [requirement]}}}})
        };
        let label = |key: &str, operator: &str, values: &[&str]| {
            term(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        let cases = [
            (json!({}), true),
            (json!({"nodeSelector": {"zone": "a"}}), true),
            (json!({"nodeSelector": {"zone": "b"}}), false),
            (term(json!({})), false),
            (label("zone", "In", &["a", "b"]), true),
            (label("zone", "NotIn", &["a"]), false),
            (label("cpus", "Gt", &["7"]), true),
            (label("cpus", "Lt", &["8"]), false),
            (label("cpus", "Lt", &["x"]), false),
            (label("none", "DoesNotExist", &[]), true),
            (term(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})), true),
            (term(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]})), false),
        ];
        for (extra, expected) in cases {
            let mut value = extra.clone();
            value["containers"] = json!([]);
            let spec: PodSpec = from_value(value).expect("spec");
            assert_eq!(admits(&spec, &node), expected, "{extra}");
        }
    }

    #[test]
    fn toleration() {
        let taint: Taint = from_value(json!({"key": "k", "value": "v", "effect": "NoExecute"})).expect("taint");
        let cases = [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k", "value": "v", "effect": "NoSchedule"}), false),
            (json!({"value": "v"}), false),
        ];
        for (toleration, expected) in cases {
            let parsed: Toleration = from_value(toleration.clone()).expect("toleration");
            assert_eq!(tolerates(&parsed, &taint), expected, "{toleration}");
        }
    }
}
