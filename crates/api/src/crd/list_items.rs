//! How list items are told apart: duplicates in sets and maps, and which old item a new one was.

use serde_json::Value;

use crate::status::FieldError;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

impl Kind {
    pub(super) fn of(schema: &Value) -> Kind {
        match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Kind::Set,
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
                Kind::Map(keys.filter_map(|key| key.as_str().map(str::to_string)).collect())
            }
            _ => Kind::Atomic,
        }
    }

    fn is_same(&self, a: &Value, b: &Value) -> bool {
        match self {
            Kind::Atomic => false,
            Kind::Set => a == b,
            Kind::Map(keys) => keys.iter().all(|key| a.get(key) == b.get(key)),
        }
    }

    /// The old item of each new one; atomic lists have no history of items.
    pub(super) fn correlate<'v>(&self, items: &[Value], old: Option<&'v Value>) -> Vec<Option<&'v Value>> {
        let old = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| old.iter().find(|old| self.is_same(old, item))).collect()
    }

    pub(super) fn duplicates(&self, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
        for (index, item) in items.iter().enumerate() {
            if !items[..index].iter().any(|other| self.is_same(other, item)) {
                continue;
            }
            let shown = match self {
                Kind::Map(keys) => keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect(),
                _ => item.clone(),
            };
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), shown));
        }
    }
}
