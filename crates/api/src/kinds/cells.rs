//! Table cells that several kinds share: names, ages, container lists, selectors.

use serde_json::Value;

use super::access::Members;
use crate::{selector::LabelSelector, time, validation::field::walk};

/// What a cell says when there is nothing to say.
pub(crate) const NONE: &str = "<none>";

/// The object's name.
pub(crate) fn name(object: &Value) -> Value {
    walk(object, "metadata.name").clone()
}

/// How long ago the object was created.
pub(crate) fn age(object: &Value, now: &str) -> Value {
    since(walk(object, "metadata.creationTimestamp"), now).into()
}

/// How long ago a timestamp was, in the short human form; `<unknown>` without one.
pub(crate) fn since(text: &Value, now: &str) -> String {
    time::age(text.as_str().unwrap_or_default(), now)
}

/// The text, or `<none>`.
pub(crate) fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// The integer at a path; zero when absent.
pub(crate) fn count(object: &Value, path: &str) -> i64 {
    walk(object, path).as_i64().unwrap_or(0)
}

/// The text, or `<unset>` when absent.
pub(crate) fn or_unset(value: &Value) -> Value {
    value.as_str().unwrap_or("<unset>").into()
}

/// A boolean that is false when absent.
pub(crate) fn flag(object: &Value, path: &str) -> Value {
    walk(object, path).as_bool().unwrap_or(false).into()
}

/// A quantity as it is stored; `0` when absent.
pub(crate) fn quantity(value: &Value) -> Value {
    value.as_str().unwrap_or("0").into()
}

/// Access modes of a volume in their short form, without repetition.
pub(crate) fn access_modes(modes: &Value) -> Value {
    const SHORT: &[(&str, &str)] =
        &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let modes = modes.as_array().map(Vec::as_slice).unwrap_or_default();
    let texts: Vec<&str> =
        SHORT.iter().filter(|(mode, _)| modes.iter().any(|have| have == mode)).map(|(_, short)| *short).collect();
    texts.join(",").into()
}

/// The first `shown` texts, and how many more there are; `<none>` for none.
pub(crate) fn first_of(texts: &[String], shown: usize) -> String {
    if texts.is_empty() {
        return NONE.to_string();
    }
    let head = texts[..texts.len().min(shown)].join(",");
    match texts.len().saturating_sub(shown) {
        0 => head,
        more => format!("{head} + {more} more..."),
    }
}

/// Names and images of a pod spec's containers, each joined with commas.
pub(crate) fn containers(pod_spec: &Value) -> [Value; 2] {
    let join = |member: &str| {
        let texts: Vec<&str> =
            pod_spec["containers"].as_array().into_iter().flatten().map(|container| container.text(member)).collect();
        Value::from(texts.join(","))
    };
    [join("name"), join("image")]
}

/// A label map as `a=b,c=d`; `<none>` when empty.
pub(crate) fn labels(map: &Value) -> Value {
    let pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(","))
}

/// A label selector in its text form; empty when it selects everything or is absent.
pub(crate) fn selector_text(selector: &Value) -> String {
    if selector.is_null() {
        return String::new();
    }
    LabelSelector::from_object(selector).map_or("<error>".into(), |selector| selector.to_string())
}

/// A label selector as a cell; `<none>` when it has no requirement.
pub(crate) fn selector(selector: &Value) -> Value {
    or_none(&selector_text(selector))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_are_ordered_by_key() {
        let value = json!({
            "matchLabels": {"z": "1", "b": "2"},
            "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["y", "x"]}],
        });
        assert_eq!(selector_text(&value), "b=2,c notin (x,y),z=1");
        assert_eq!(selector(&json!({})), "<none>");
    }
}
