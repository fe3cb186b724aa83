//! The hash that tells one Pod template from another: `pod-template-hash` and the names of revisions.
//!
//! FNV-1a (32 bit) over the template's JSON with sorted keys, plus the collision count, spelled in digits that cannot
//! form words. Absent, null and empty lists and label maps count as equal, so that a template read back from the API
//! hashes as it did when it was written.

use serde::Serialize;
use serde_json::Value;

/// Characters without vowels and without digits that look like vowels.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Spells text in the safe alphabet, one character for each byte.
pub(crate) fn safe(text: &str) -> String {
    text.bytes().map(|b| char::from(SAFE[usize::from(b) % SAFE.len()])).collect()
}

/// The hash of anything serializable, with a count that is raised when two different things collide.
pub(crate) fn of(object: &impl Serialize, collisions: Option<i32>) -> String {
    let mut state = Fnv::new();
    feed(&canonical(object), &mut state);
    if let Some(count) = collisions {
        state.write(&count.to_le_bytes());
    }
    safe(&state.0.to_string())
}

/// JSON without what means nothing: nulls, empty lists, and empty label and annotation maps.
pub(crate) fn canonical(object: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or(Value::Null);
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|key, value| match value {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                Value::Object(inner) => {
                    !(inner.is_empty()
                        && matches!(
                            key.as_str(),
                            "labels" | "annotations" | "resources" | "metadata" | "securityContext"
                        ))
                }
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

struct Fnv(u32);

impl Fnv {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

fn feed(value: &Value, state: &mut Fnv) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            state.write(b"{");
            for key in keys {
                state.write(key.as_bytes());
                state.write(b":");
                feed(&map[key], state);
            }
            state.write(b"}");
        }
        Value::Array(items) => {
            state.write(b"[");
            for item in items {
                feed(item, state);
                state.write(b",");
            }
            state.write(b"]");
        }
        other => state.write(other.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_in_meaning_is_equal_in_hash() {
        let bare = json!({"spec": {"containers": [{"name": "a", "image": "b"}]}});
        let same = [
            json!({"spec": {"containers": [{"image": "b", "name": "a", "args": [], "env": null}]}, "metadata": {}}),
            json!({"metadata": {"labels": {}}, "spec": {"containers": [{"name": "a", "image": "b"}], "volumes": []}}),
        ];
        for other in same {
            assert_eq!(of(&bare, None), of(&other, None), "{other}");
        }
        let volume = |source: Value| json!({"spec": {"volumes": [{"name": "v", "emptyDir": source}]}});
        assert_ne!(of(&volume(json!({})), None), of(&volume(Value::Null), None));
        assert_ne!(of(&bare, None), of(&bare, Some(1)));
        assert_ne!(of(&bare, Some(1)), of(&bare, Some(2)));
    }

    #[test]
    fn never_changes_between_releases() {
        assert_eq!(of(&json!({"spec": {"containers": [{"name": "a", "image": "b"}]}}), None), PINNED);
    }

    const PINNED: &str = "7bc8445fff";
}
