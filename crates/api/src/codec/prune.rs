//! What a structural schema does to a custom resource: drops unknown members, fills defaults, removes stray nulls.

use serde_json::{Map, Value};

use crate::schema::{Object, Shape, TypeRef};

/// Drops the members that the schema does not know and returns their paths.
pub fn prune(object: &mut Value, of: TypeRef<'_>) -> Vec<String> {
    let mut dropped = Vec::new();
    walk(object, of, "", &mut dropped);
    dropped
}

fn walk(value: &mut Value, of: TypeRef<'_>, path: &str, dropped: &mut Vec<String>) {
    // Built-in parts (metadata) were read along their own types.
    if of.is_builtin() {
        return;
    }
    match (value, of.shape()) {
        (Value::Object(members), Shape::Object(object)) => {
            members.retain(|name, value| match object.field(name) {
                Some(field) => {
                    walk(value, of.at(field.of), &join(path, name), dropped);
                    true
                }
                None if object.preserve => true,
                None => {
                    dropped.push(join(path, name));
                    false
                }
            });
        }
        (Value::Object(members), Shape::Map(map)) => {
            for (name, value) in members {
                walk(value, of.at(map.value), &join(path, name), dropped);
            }
        }
        (Value::Array(items), Shape::List(list)) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, of.at(list.item), &format!("{path}[{index}]"), dropped);
            }
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// Fills the defaults of members that are absent, or null where null is no value. Idempotent.
pub fn default(value: &mut Value, of: TypeRef<'_>) {
    each(value, of, &mut |members, object, of| {
        for field in object.members() {
            let Some(default) = &field.default else { continue };
            let missing = match members.get(field.name.as_ref()) {
                None => true,
                Some(Value::Null) => !of.at(field.of).get().nullable,
                Some(_) => false,
            };
            if missing {
                members.insert(field.name.to_string(), (**default).clone());
            }
        }
    });
}

/// Removes members that are null although null is no value of theirs and no default replaces it.
pub fn drop_nulls(value: &mut Value, of: TypeRef<'_>) {
    each(value, of, &mut |members, object, of| {
        members.retain(|name, value| match object.field(name) {
            Some(field) if value.is_null() => of.at(field.of).get().nullable || field.default.is_some(),
            _ => true,
        });
    });
}

/// Visits every object of a custom type before its members.
fn each<'a>(value: &mut Value, of: TypeRef<'a>, f: &mut impl FnMut(&mut Map<String, Value>, &'a Object, TypeRef<'a>)) {
    if of.is_builtin() {
        return;
    }
    match (value, of.shape()) {
        (Value::Object(members), Shape::Object(object)) => {
            f(members, object, of);
            for (name, value) in members {
                if let Some(field) = object.field(name) {
                    each(value, of.at(field.of), f);
                }
            }
        }
        (Value::Object(members), Shape::Map(map)) => {
            for value in members.values_mut() {
                each(value, of.at(map.value), f);
            }
        }
        (Value::Array(items), Shape::List(list)) => {
            for item in items {
                each(item, of.at(list.item), f);
            }
        }
        _ => {}
    }
}
