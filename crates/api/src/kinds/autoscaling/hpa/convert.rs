//! Between `autoscaling/v2` and `v1`.
//!
//! `v1` knows one target, the CPU's utilization. Everything else of a `v2` object travels in annotations, so that a
//! reader of `v1` that writes back what it read loses nothing.

use serde_json::{Map, Value, json};

use crate::kinds::access::Members;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu(metric: &Value) -> bool {
    metric.text("type") == "Resource" && metric["resource"].text("name") == "cpu"
}

pub(super) fn to_v1(scaler: &mut Value) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    let spec = scaler.member("spec");
    let metrics = list(spec.drop_member("metrics"));
    let utilization = |metric: &Value| metric["resource"]["target"]["averageUtilization"].clone();
    let (cpu, others): (Vec<Value>, Vec<Value>) =
        metrics.into_iter().partition(|metric| is_cpu(metric) && !utilization(metric).is_null());
    if let Some(first) = cpu.first() {
        spec.set("targetCPUUtilizationPercentage", utilization(first));
    }
    if !others.is_empty() {
        notes.push((METRICS, others.into_iter().map(|metric| flatten(metric, "target")).collect()));
    }
    if let Some(behavior) = spec.drop_member("behavior").filter(Value::is_object) {
        notes.push((BEHAVIOR, recase(behavior, char::to_ascii_uppercase)));
    }
    if let Some(status) = scaler.existing("status") {
        let current = list(status.drop_member("currentMetrics"));
        for metric in current.iter().filter(|metric| is_cpu(metric)) {
            let number = metric["resource"]["current"]["averageUtilization"].clone();
            if !number.is_null() {
                status.set("currentCPUUtilizationPercentage", number);
            }
        }
        if !current.is_empty() {
            notes.push((CURRENT_METRICS, current.into_iter().map(|metric| flatten(metric, "current")).collect()));
        }
        if let Some(conditions) = status.drop_member("conditions").filter(|list| !list.is_null() && *list != json!([]))
        {
            notes.push((CONDITIONS, conditions));
        }
        status.fill("currentReplicas", 0);
        status.fill("desiredReplicas", 0);
    }
    for (name, value) in notes {
        scaler.member("metadata").member("annotations").set(name, value.to_string());
    }
}

pub(super) fn to_v2(scaler: &mut Value) {
    let mut taken = |name: &str| -> Option<Value> {
        let note = scaler.member("metadata").get_mut("annotations")?.drop_member(name)?;
        serde_json::from_str(note.as_str()?).ok()
    };
    let (metrics, current, conditions, behavior) =
        (taken(METRICS), taken(CURRENT_METRICS), taken(CONDITIONS), taken(BEHAVIOR));
    let spec = scaler.member("spec");
    let mut all: Vec<Value> = list(metrics).into_iter().map(|metric| unfold(metric, "target")).collect();
    if let Some(percent) = spec.drop_member("targetCPUUtilizationPercentage").filter(|value| !value.is_null()) {
        all.push(json!({
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}},
        }));
    }
    spec.set("metrics", if all.is_empty() { super::default_metrics() } else { all.into() });
    if let Some(behavior) = behavior {
        spec.set("behavior", recase(behavior, char::to_ascii_lowercase));
    }
    if let Some(status) = scaler.existing("status") {
        let percent = status.drop_member("currentCPUUtilizationPercentage").filter(|value| !value.is_null());
        if let Some(current) = current {
            status.set(
                "currentMetrics",
                list(Some(current)).into_iter().map(|m| unfold(m, "current")).collect::<Value>(),
            );
        } else if let Some(percent) = percent {
            status.set(
                "currentMetrics",
                json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}]),
            );
        }
        if let Some(conditions) = conditions {
            status.set("conditions", conditions);
        }
    }
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// The member that holds a metric's source.
fn source_name(metric: &Value) -> &'static str {
    match metric.text("type") {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        _ => "resource",
    }
}

/// `v2` values and their `v1` names, by source. `{}` stands for `target` or `current`.
fn value_names(source: &str, part: &str) -> Vec<(&'static str, String)> {
    let name = |text: &str| {
        let name = format!("{part}{text}");
        if part.is_empty() { text.to_string() } else { name }
    };
    match source {
        "object" => vec![("value", name("Value")), ("averageValue", "averageValue".into())],
        "external" => vec![("value", name("Value")), ("averageValue", name("AverageValue"))],
        "pods" => vec![("averageValue", name("AverageValue"))],
        _ => vec![("averageUtilization", name("AverageUtilization")), ("averageValue", name("AverageValue"))],
    }
}

/// One metric from `v2` to `v1`: values move out of `target` (or `current`) into members of their own.
fn flatten(mut metric: Value, part: &str) -> Value {
    let source = source_name(&metric);
    let values_of = source;
    let body = metric.member(source);
    let values = body.drop_member(part).unwrap_or_default();
    if let Some(identity) = body.drop_member("metric") {
        body.set("metricName", identity.text("name"));
        if !identity["selector"].is_null() {
            body.set(if source == "external" { "metricSelector" } else { "selector" }, identity["selector"].clone());
        }
    }
    if let Some(object) = body.drop_member("describedObject") {
        body.set("target", object);
    }
    for (v2, v1) in value_names(values_of, part) {
        match values.get(v2) {
            Some(value) if !value.is_null() => body.set(&v1, value.clone()),
            _ if source == "object" && v2 == "value" => body.set(&v1, "0"),
            _ => {}
        }
    }
    metric
}

/// One metric from `v1` to `v2`.
fn unfold(mut metric: Value, part: &str) -> Value {
    let source = source_name(&metric);
    let body = metric.member(source);
    if source == "object"
        && let Some(object) = body.drop_member("target")
    {
        body.set("describedObject", object);
    }
    let mut values = Map::new();
    for (v2, v1) in value_names(source, part) {
        if let Some(value) = body.drop_member(&v1).filter(|value| !value.is_null()) {
            values.insert(v2.into(), value);
        }
    }
    if source == "object" && values.contains_key("averageValue") && values.get("value") == Some(&json!("0")) {
        values.remove("value");
    }
    if part == "target" {
        let kind = match (values.contains_key("averageUtilization"), values.contains_key("value")) {
            (true, _) => "Utilization",
            (false, true) => "Value",
            (false, false) => "AverageValue",
        };
        values.insert("type".into(), kind.into());
    }
    body.set(part, values);
    if let Some(name) = body.drop_member("metricName") {
        let mut identity = json!({"name": name});
        let selector = body.drop_member("metricSelector").or_else(|| body.drop_member("selector"));
        if let Some(selector) = selector {
            identity.set("selector", selector);
        }
        body.set("metric", identity);
    }
    metric
}

/// Changes the case of every member's first letter.
fn recase(value: Value, case: fn(&char) -> char) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let mut letters = name.chars();
                let first = letters.next().map(|letter| case(&letter));
                (first.into_iter().chain(letters).collect::<String>(), recase(value, case))
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(|item| recase(item, case)).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_through_v1_loses_nothing() {
        let v2 = json!({
            "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {
                        "metric": {"name": "qps", "selector": {"matchLabels": {"a": "b"}}},
                        "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {
                        "describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "hits"},
                        "target": {"type": "Value", "value": "2k"}}},
                    {"type": "Resource", "resource": {
                        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleDown": {"selectPolicy": "Min", "policies": [{"type": "Pods", "value": 1}]}},
            },
        });
        let mut object = v2.clone();
        to_v1(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 50);
        assert!(object["metadata"]["annotations"][BEHAVIOR].as_str().unwrap().contains("\"SelectPolicy\":\"Min\""));
        to_v2(&mut object);
        object["metadata"].drop_member("annotations");
        assert_eq!(object, v2);
    }
}
