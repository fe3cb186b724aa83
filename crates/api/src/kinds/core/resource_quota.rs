//! ResourceQuota: what a namespace may ask for in all.

use serde_json::Value;

use crate::{
    kinds::{
        builtin::{Kind, Shape},
        cells,
    },
    validation::field::walk,
};

pub(crate) static KIND: Kind = Kind { shape: Shape::STATUS, row: Some(row), ..Kind::PLAIN };

fn row(quota: &Value, now: &str) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = walk(quota, "status.used");
    for (resource, hard) in walk(quota, "status.hard").as_object().into_iter().flatten() {
        let used = used.get(resource).and_then(Value::as_str).unwrap_or("0");
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0"));
        if resource.starts_with("limits.") { limits.push(text) } else { requests.push(text) }
    }
    vec![cells::name(quota), requests.join(", ").into(), limits.join(", ").into(), cells::age(quota, now)]
}
