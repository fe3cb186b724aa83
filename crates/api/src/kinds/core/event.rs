//! Event: what happened to an object. One storage for two groups.
//!
//! Objects are kept as `v1`. The `events.k8s.io/v1` form has the same content under other names ([`RENAMED`]) and
//! stricter rules.

use serde_json::Value;

use crate::{
    kind::{Context, SharedStorage},
    kinds::{
        access::Members,
        builtin::{Kind, text_at},
        cells::{self, count},
    },
    validation::{
        field::{Errors, Field, walk},
        names,
    },
};

pub(crate) static KIND: Kind = EVENT;

const EVENT: Kind = Kind {
    // Names are judged by the storage path only: old clients use what is no DNS name.
    name: names::path_segment,
    default: |event| {
        event.object("involvedObject");
        event.object("source");
        event.fill("reportingComponent", "");
        event.fill("reportingInstance", "");
    },
    validate: |errors, event, _| validate(errors, event, "reportingComponent"),
    fields: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    field: |event, path| match path {
        "source" => [event["source"].text("component"), event.text("reportingComponent")]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_default()
            .to_string(),
        _ => text_at(event, path),
    },
    row: Some(row),
    create_on_update: true,
    ..Kind::PLAIN
};

/// The same events as `events.k8s.io/v1`.
pub(crate) static EVENTS_KIND: Kind = Kind {
    name: names::subdomain_name,
    default: |_| {},
    validate: |errors, event, _| {
        validate(errors, event, "reportingController");
        validate_strictly(errors, event);
    },
    validate_update: Some(validate_update),
    convert,
    shared_storage: Some(SharedStorage { group: "", version: "v1" }),
    ..EVENT
};

/// Names in `v1` and in `events.k8s.io/v1`.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn convert(event: &mut Value, from: &str, _to: &str) -> Result<(), String> {
    for (core, events) in RENAMED {
        let (from, to) = if from == "v1" { (core, events) } else { (events, core) };
        if let Some(value) = event.drop_member(from) {
            event.set(to, value);
        }
    }
    Ok(())
}

/// Characters that the named texts may have.
const LIMITS: &[(&str, usize)] = &[("reportingInstance", 128), ("action", 128), ("reason", 128), ("message", 1024)];

fn validate(errors: &mut Errors, event: &Field<'_>, controller_name: &'static str) {
    let namespace = event.get("metadata.namespace");
    let about = event.get("involvedObject.namespace");
    let mismatch = "does not match event.namespace";
    if event.get("eventTime").exists() {
        if about.str().is_empty() && !matches!(namespace.str(), "default" | "kube-system") {
            errors.push(about.invalid(mismatch));
        }
        let controller = event.get("reportingComponent").str();
        if controller.is_empty() {
            errors.push(event.get(controller_name).required(""));
        }
        for message in names::qualified_name(controller) {
            errors.push(event.get(controller_name).invalid_value(controller, message));
        }
        for (name, max) in LIMITS {
            let text = event.get(name);
            if text.str().is_empty() && *name != "message" {
                errors.push(text.required(""));
            }
            if text.str().len() > *max {
                errors.push(text.invalid_value("", format!("can have at most {max} characters")));
            }
        }
    } else if about.str().is_empty() {
        if !matches!(namespace.str(), "" | "default") {
            errors.push(about.invalid(mismatch));
        }
    } else if about.str() != namespace.str() {
        errors.push(about.invalid(mismatch));
    }
}

fn validate_strictly(errors: &mut Errors, event: &Field<'_>) {
    series(errors, event);
    if !event.get("eventTime").exists() {
        errors.push(event.get("eventTime").required(""));
    }
    let kind = event.get("type");
    if !matches!(kind.str(), "Normal" | "Warning") {
        errors.push(kind.invalid_value("", format!("has invalid value: {}", kind.str())));
    }
    for name in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let value = event.get(name);
        if !value.is_empty() && value.int() != Some(0) {
            errors.push(value.invalid_value("", "needs to be unset"));
        }
    }
}

fn series(errors: &mut Errors, event: &Field<'_>) {
    let series = event.get("series");
    if !series.exists() {
        return;
    }
    if series.get("count").int().unwrap_or(0) < 2 {
        errors.push(series.get("count").invalid_value("", "should be at least 2"));
    }
    if !series.get("lastObservedTime").exists() {
        errors.push(series.get("lastObservedTime").required(""));
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, _cx: &Context<'_>) {
    validate(errors, new, "reportingController");
    if new.get("series").value() != old.get("series").value() {
        series(errors, new);
    }
    for name in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ] {
        new.get(name).immutable(errors, &old.get(name));
    }
}

fn row(event: &Value, now: &str) -> Vec<Value> {
    let first = match &event["firstTimestamp"] {
        Value::Null => cells::since(&event["eventTime"], now),
        time => cells::since(time, now),
    };
    let series = &event["series"];
    let (last, times) = if series.is_object() {
        (cells::since(&series["lastObservedTime"], now), count(series, "count"))
    } else {
        let last = match &event["lastTimestamp"] {
            Value::Null => first.clone(),
            time => cells::since(time, now),
        };
        (last, count(event, "count").max(1))
    };
    let about = &event["involvedObject"];
    let kind = about.text("kind").to_lowercase();
    let target = match about.text("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let first_of = |a: &str, b: &str| if a.is_empty() { b.to_string() } else { a.to_string() };
    let component = first_of(event["source"].text("component"), event.text("reportingComponent"));
    let source = match first_of(event["source"].text("host"), event.text("reportingInstance")) {
        instance if instance.is_empty() => component,
        instance => format!("{component}, {instance}"),
    };
    vec![
        last.into(),
        event.text("type").into(),
        event.text("reason").into(),
        target.into(),
        walk(about, "fieldPath").as_str().unwrap_or_default().into(),
        source.into(),
        event.text("message").trim().into(),
        first.into(),
        times.into(),
        cells::name(event),
    ]
}
