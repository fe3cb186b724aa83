//! HorizontalPodAutoscaler: stored as `v2`, served as `v1` too.

mod convert;
mod validate;

use serde_json::{Value, json};

use crate::{
    kinds::{
        access::Members,
        builtin::{Kind, Shape},
        cells,
    },
    validation::{field::walk, names},
};

pub(crate) static KIND: Kind = Kind {
    shape: Shape::STATUS,
    name: names::subdomain_name,
    default,
    empty_status: || json!({"currentMetrics": null, "desiredReplicas": 0}),
    validate: |errors, scaler, _| validate::create(errors, scaler),
    validate_update: Some(validate::update),
    row: Some(row),
    convert: |scaler, from, to| {
        match (from, to) {
            ("v1", "v2") => convert::to_v2(scaler),
            ("v2", "v1") => convert::to_v1(scaler),
            _ => return Err(format!("cannot convert HorizontalPodAutoscaler from {from} to {to}")),
        }
        Ok(())
    },
    ..Kind::PLAIN
};

/// What is aimed at when no metric is given.
fn default_metrics() -> Value {
    json!([{
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }])
}

fn default(scaler: &mut Value) {
    let spec = scaler.member("spec");
    spec.fill("minReplicas", 1);
    if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
        spec.set("metrics", default_metrics());
    }
    if let Some(behavior) = spec.existing("behavior") {
        let policy = |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
        let up = behavior.member("scaleUp");
        up.fill("stabilizationWindowSeconds", 0);
        up.fill("selectPolicy", "Max");
        up.fill("policies", json!([policy("Pods", 4), policy("Percent", 100)]));
        let down = behavior.member("scaleDown");
        down.fill("selectPolicy", "Max");
        down.fill("policies", json!([policy("Percent", 100)]));
    }
}

fn row(scaler: &Value, now: &str) -> Vec<Value> {
    let spec = &scaler["spec"];
    let target = &spec["scaleTargetRef"];
    vec![
        cells::name(scaler),
        format!("{}/{}", target.text("kind"), target.text("name")).into(),
        targets(scaler).into(),
        spec["minReplicas"].as_i64().map_or("<unset>".into(), |number| number.to_string().into()),
        cells::count(spec, "maxReplicas").into(),
        cells::count(scaler, "status.currentReplicas").into(),
        cells::age(scaler, now),
    ]
}

/// Current and wanted value of the first two metrics.
fn targets(scaler: &Value) -> String {
    const SHOWN: usize = 2;
    let specs = walk(scaler, "spec.metrics").as_array().map(Vec::as_slice).unwrap_or_default();
    let statuses = walk(scaler, "status.currentMetrics");
    let texts: Vec<String> = specs.iter().enumerate().map(|(index, spec)| target(spec, &statuses[index])).collect();
    match texts.len() {
        0 => cells::NONE.into(),
        count if count > SHOWN => format!("{} + {} more...", texts[..SHOWN].join(", "), count - SHOWN),
        _ => texts.join(", "),
    }
}

fn target(spec: &Value, status: &Value) -> String {
    let member = match spec.text("type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let (wanted, now) = (&spec[member]["target"], &status[member]["current"]);
    let text = |value: &Value| value.as_str().map_or("<unknown>".to_string(), str::to_string);
    let percent =
        |value: &Value, absent: &str| value.as_i64().map_or(absent.to_string(), |number| format!("{number}%"));
    let by_average = !wanted["averageValue"].is_null();
    match member {
        "resource" | "containerResource" => {
            let name = spec[member].text("name");
            if by_average {
                format!("{name}: {}/{}", text(&now["averageValue"]), text(&wanted["averageValue"]))
            } else {
                let wanted = percent(&wanted["averageUtilization"], "<auto>");
                format!("{name}: {}/{wanted}", percent(&now["averageUtilization"], "<unknown>"))
            }
        }
        "pods" => format!("{}/{}", text(&now["averageValue"]), text(&wanted["averageValue"])),
        _ if by_average => format!("{}/{} (avg)", text(&now["averageValue"]), text(&wanted["averageValue"])),
        _ => format!("{}/{}", text(&now["value"]), text(&wanted["value"])),
    }
}
