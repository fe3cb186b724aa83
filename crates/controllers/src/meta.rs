//! What holds for objects of every kind: owners, labels, finalizers, conditions, time.

use std::{collections::BTreeMap, time::Duration};

use client::{Key, Object};
use jiff::{SignedDuration, Timestamp};
use kube::Resource;

use crate::kinds::{IntOrString, LabelSelector, ObjectMeta, OwnerReference, Time};

pub(crate) type Labels = BTreeMap<String, String>;

/// Short reads of metadata fields that every stored object has.
pub(crate) trait Meta {
    fn meta_ref(&self) -> &ObjectMeta;

    fn name(&self) -> &str {
        self.meta_ref().name.as_deref().unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        self.meta_ref().namespace.as_deref().unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.meta_ref().uid.as_deref().unwrap_or_default()
    }
    fn is_deleting(&self) -> bool {
        self.meta_ref().deletion_timestamp.is_some()
    }
    fn label(&self, name: &str) -> Option<&str> {
        self.meta_ref().labels.as_ref()?.get(name).map(String::as_str)
    }
    fn annotation(&self, name: &str) -> Option<&str> {
        self.meta_ref().annotations.as_ref()?.get(name).map(String::as_str)
    }
    fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.meta_ref().labels.as_ref().unwrap_or(&NONE)
    }
    fn annotations(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.meta_ref().annotations.as_ref().unwrap_or(&NONE)
    }
    fn has_finalizer(&self, name: &str) -> bool {
        self.meta_ref().finalizers.iter().flatten().any(|f| f == name)
    }
    fn generation(&self) -> i64 {
        self.meta_ref().generation.unwrap_or_default()
    }
    fn created(&self) -> Timestamp {
        self.meta_ref().creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
    }
    /// The owner that manages this object.
    fn controller(&self) -> Option<&OwnerReference> {
        self.meta_ref().owner_references.iter().flatten().find(|r| r.controller == Some(true))
    }
    fn controller_uid(&self) -> Option<&str> {
        self.controller().map(|r| r.uid.as_str())
    }
    fn key(&self) -> Key {
        Key::new(self.namespace(), self.name())
    }
}

impl<K: Resource> Meta for K {
    fn meta_ref(&self) -> &ObjectMeta {
        Resource::meta(self)
    }
}

/// The reference that makes `owner` the managing controller.
pub(crate) fn controller_reference<K: Object>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The key of the managing owner if it is of kind `K`.
pub(crate) fn owner_key<K: Object>(object: &impl Meta) -> Option<Key> {
    let owner = object.controller()?;
    let (group, _) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    (owner.kind == K::kind(&()) && group == K::group(&())).then(|| Key::new(object.namespace(), &owner.name))
}

/// Index of objects by the uid of their managing owner; those without are under [`orphans_of`] their namespace.
pub(crate) const BY_CONTROLLER: &str = "controller";

pub(crate) fn by_controller<K: Object>(object: &K) -> Vec<String> {
    match object.controller_uid() {
        Some(uid) => vec![uid.to_owned()],
        None => vec![orphans_of(object.namespace())],
    }
}

pub(crate) fn orphans_of(namespace: &str) -> String {
    format!("orphan/{namespace}")
}

/// Whether labels satisfy the selector. An empty selector matches everything, an invalid operator nothing.
pub(crate) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let exact = selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    exact
        && selector.match_expressions.iter().flatten().all(|e| {
            let value = labels.get(&e.key);
            let listed = || value.is_some_and(|v| e.values.iter().flatten().any(|w| w == v));
            match e.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// A selector that names nothing.
pub(crate) fn is_empty_selector(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none()
}

/// A `maxSurge`-like value scaled to `total`; percentages round as told. Malformed text counts as zero.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()).unwrap_or(0);
            let product = percent * i64::from(total);
            let result = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(result).unwrap_or(i32::MAX)
        }
    }
}

/// A copy of the object without the finalizer.
pub(crate) fn without_finalizer<K: Object>(object: &K, finalizer: &str) -> K {
    let mut next = object.clone();
    if let Some(finalizers) = &mut next.meta_mut().finalizers {
        finalizers.retain(|f| f != finalizer);
    }
    next
}

/// API time has whole seconds.
pub(crate) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

pub(crate) fn seconds(count: impl Into<i64>) -> SignedDuration {
    SignedDuration::from_secs(count.into())
}

/// How long from `now` until `at`; `None` once it is reached.
pub(crate) fn until(at: Timestamp, now: Timestamp) -> Option<Duration> {
    let left = at.duration_since(now);
    (left > SignedDuration::ZERO).then(|| left.unsigned_abs())
}

/// The sooner of two delays.
pub(crate) fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn selectors() {
        let cases = [
            (json!({}), json!({"a": "b"}), true),
            (json!({"matchLabels": {"a": "b"}}), json!({"a": "b", "c": "d"}), true),
            (json!({"matchLabels": {"a": "b"}}), json!({"a": "x"}), false),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "b"]}]}),
                json!({"a": "b"}),
                true,
            ),
            (json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}), json!({}), true),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}),
                json!({"a": "b"}),
                false,
            ),
            (json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]}), json!({}), false),
            (json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}), json!({}), true),
            (json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}), json!({"a": "b"}), false),
        ];
        for (selector, labels, expected) in cases {
            let parsed: LabelSelector = from_value(selector.clone()).expect("selector");
            let labels: Labels = from_value(labels).expect("labels");
            assert_eq!(selects(&parsed, &labels), expected, "{selector} on {labels:?}");
        }
    }

    #[test]
    fn percentages() {
        let cases =
            [("25%", 10, true, 3), ("25%", 10, false, 2), ("0%", 5, true, 0), ("100%", 7, false, 7), ("x", 7, true, 0)];
        for (text, total, up, expected) in cases {
            assert_eq!(scaled(&IntOrString::String(text.into()), total, up), expected, "{text} of {total}");
        }
        assert_eq!(scaled(&IntOrString::Int(4), 1, true), 4);
    }
}
