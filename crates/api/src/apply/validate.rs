//! Whether a configuration fits its type, in the words of upstream's typed merge.

use serde_json::Value;

use super::walk::Node;
use crate::schema::{ListKind, Scalar, Shape};

/// All that does not fit, in one text.
pub(super) fn check(root: Node<'_>, config: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    walk(root, config, "", &mut errors);
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => {
            Err(format!("errors:\n{}", many.iter().map(|error| format!("  {error}")).collect::<Vec<_>>().join("\n")))
        }
    }
}

fn walk(node: Node<'_>, value: &Value, path: &str, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let mut fail = |why: String| errors.push(format!("{path}: {why}"));
    match (node.of.shape(), value) {
        (Shape::Any { .. }, _) => {}
        (Shape::Scalar(scalar), value) => {
            if let Some(why) = wrong_scalar(*scalar, value) {
                fail(why);
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            let mut seen = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let shown = if list.kind == ListKind::Atomic {
                    format!("[{index}]")
                } else {
                    match node.key(list, item) {
                        Ok(key) => {
                            let mut set = super::Set::default();
                            set.insert(std::slice::from_ref(&key));
                            let shown = set.paths().concat();
                            if seen.contains(&key) {
                                errors.push(format!("{path}: duplicate entries for key {shown}"));
                            }
                            seen.push(key);
                            shown
                        }
                        Err(why) => {
                            errors.push(format!("{path}: element {index}: {why}"));
                            return;
                        }
                    }
                };
                walk(node.item(list), item, &format!("{path}{shown}"), errors);
            }
        }
        (Shape::List(_), other) => fail(format!("expected list, got {}", go_value(other))),
        (Shape::Map(_) | Shape::Object(_), Value::Object(members)) => {
            for (name, value) in members {
                let path = format!("{path}.{name}");
                if node.of.member(name).is_none() {
                    errors.push(format!("{path}: field not declared in schema"));
                } else {
                    walk(node.member(name), value, &path, errors);
                }
            }
        }
        (Shape::Map(_) | Shape::Object(_), other) => fail(format!("expected map, got {}", go_value(other))),
    }
}

fn wrong_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    let fits = match scalar {
        Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime => value.is_string(),
        Scalar::Boolean => value.is_boolean(),
        Scalar::Int32 | Scalar::Int64 | Scalar::Number => value.is_number(),
        Scalar::IntOrString | Scalar::Quantity => value.is_number() || value.is_string() || value.is_boolean(),
    };
    if fits {
        return None;
    }
    Some(match scalar {
        Scalar::Boolean => format!("expected boolean, got {}", go_value(value)),
        Scalar::IntOrString | Scalar::Quantity => format!("expected any scalar, got {}", go_value(value)),
        Scalar::Int32 | Scalar::Int64 | Scalar::Number => {
            let kind = match value {
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            format!("expected numeric (int or float), got {kind}")
        }
        _ => format!("expected string, got &value.valueUnstructured{{Value:{value}}}"),
    })
}

/// How Go prints the box around a value.
fn go_value(value: &Value) -> String {
    format!("&{{{}}}", crate::patch::go_text(value))
}
