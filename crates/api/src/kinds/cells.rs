//! Table cells that several kinds share: names, ages, container lists, selectors.

use jiff::Timestamp;
use serde_json::Value;

use super::access::Members;
use crate::validation::field::walk;

/// What a cell says when there is nothing to say.
pub(crate) const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";

/// The object's name.
pub(crate) fn name(object: &Value) -> Value {
    walk(object, "metadata.name").clone()
}

/// How long ago the object was created.
pub(crate) fn age(object: &Value, now: &str) -> Value {
    since(walk(object, "metadata.creationTimestamp"), now).into()
}

/// How long ago a timestamp was, in the short human form; `<unknown>` without one.
pub(crate) fn since(time: &Value, now: &str) -> String {
    match (time.as_str().and_then(|time| time.parse().ok()), now.parse().ok()) {
        (Some(time), Some(now)) => between(time, now),
        _ => UNKNOWN.to_string(),
    }
}

/// The time from `start` to `end` in the short human form.
pub(crate) fn between(start: Timestamp, end: Timestamp) -> String {
    human(end.duration_since(start).as_millis_f64() / 1000.0)
}

/// A duration with two units at most: `90s`, `5m30s`, `3h`, `2d5h`, `400d`, `3y20d`.
pub(crate) fn human(seconds: f64) -> String {
    let seconds = seconds.trunc() as i64;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".to_string(),
        () if seconds < 0 => "0s".to_string(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 24 * 8 => two(days, 'd', hours % 24, 'h'),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => two(years, 'y', days % 365, 'd'),
        () => format!("{years}y"),
    }
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

/// A label selector in its text form, requirements ordered by key; empty when it selects everything or is absent.
pub(crate) fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<(String, String)> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression.text("key");
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match expression.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_string(),
            "DoesNotExist" => format!("!{key}"),
            _ => "<error>".to_string(),
        };
        terms.push((key.to_string(), term));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    let texts: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    texts.join(",")
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
    fn durations_keep_two_units_at_most() {
        let day = 86400.0;
        for (seconds, text) in [
            (-5.0, "<invalid>"),
            (-0.5, "0s"),
            (119.9, "119s"),
            (120.0, "2m"),
            (330.0, "5m30s"),
            (3600.0 * 2.5, "150m"),
            (3600.0 * 7.5, "7h30m"),
            (day * 1.5, "36h"),
            (day * 2.0, "2d"),
            (day * 3.25, "3d6h"),
            (day * 400.0, "400d"),
            (day * 365.0 * 3.0 + day, "3y1d"),
            (day * 365.0 * 9.0, "9y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

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
