//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

/// Merges objects member by member; `null` removes, everything else replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(own) = target else { return };
    for (name, value) in members {
        if value.is_null() {
            own.remove(name);
        } else {
            merge(own.entry(name.as_str()).or_insert(Value::Null), value);
        }
    }
}
