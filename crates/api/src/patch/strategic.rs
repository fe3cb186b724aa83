//! Strategic merge patch: a merge that knows from the schema which lists merge by item, and obeys directives.
//!
//! ```text
//! $patch: replace | delete             in an object: take this one as it is | remove it
//! $deleteFromPrimitiveList/NAME: [..]  removes values from the list NAME
//! $setElementOrder/NAME: [..]          puts the items of the list NAME in this order
//! $retainKeys: [..]                    removes all other members of the object
//! ```

use serde_json::{Map, Value};

use crate::{
    schema::{Strategy, TypeRef},
    status::Status,
};

use super::{go_text, rejected};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_LIST: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Merges `patch` into a copy of `object`.
pub(super) fn apply(object: &Value, patch: &Value, of: TypeRef<'_>) -> Result<Value, Status> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(Status::bad_request("invalid JSON document"));
    };
    merge_object(object.clone(), patch.clone(), Some(of)).map(Value::Object)
}

/// Failures that upstream has no code for.
fn odd(why: String) -> Status {
    Status::failure(500, "", why)
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn expect_list(value: Value) -> Result<Vec<Value>, Status> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(odd(format!("expected a []interface {{}}, but received a {}", go_kind(&other)))),
    }
}

/// How a member merges: its type, its strategy and the key of its items.
struct Rule<'t> {
    of: Option<TypeRef<'t>>,
    strategy: Strategy,
    key: &'t str,
}

fn rule<'t>(of: Option<TypeRef<'t>>, name: &str) -> Rule<'t> {
    let field = of.and_then(|of| of.field(name));
    Rule {
        of: of.and_then(|of| of.member(name)),
        strategy: field.map(|field| field.strategy).unwrap_or_default(),
        key: field.map(|field| field.merge_key.as_ref()).unwrap_or_default(),
    }
}

fn merge_object(mut own: Object, mut patch: Object, of: Option<TypeRef<'_>>) -> Result<Object, Status> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => {
                let text = go_text(&directive);
                patch.insert(PATCH.into(), directive);
                Err(odd(format!("unknown patch type: {text} in map: {}", go_text(&Value::Object(patch)))))
            }
        };
    }
    retain_keys(&mut own, &mut patch)?;
    set_order(&mut own, &mut patch, of)?;
    for (name, value) in patch {
        let (name, delete) = match name.strip_prefix(DELETE_LIST) {
            Some(rest) => (rest.to_string(), true),
            None => (name, false),
        };
        if value.is_null() {
            own.remove(&name);
            continue;
        }
        let rule = rule(of, &name);
        let merged = match (own.remove(&name), value) {
            (Some(Value::Object(own)), Value::Object(patch)) if rule.strategy.replace => {
                let _replaced = own;
                Some(Value::Object(patch))
            }
            (Some(Value::Object(own)), Value::Object(patch)) => Some(Value::Object(merge_object(own, patch, rule.of)?)),
            (Some(Value::Array(own)), Value::Array(patch)) if rule.strategy.merge || delete => {
                Some(Value::Array(merge_list(own, patch, &rule, delete)?))
            }
            (Some(Value::Array(_)), Value::Array(patch)) => Some(Value::Array(patch)),
            (own, _) if delete => own,
            (_, mut value) => {
                discard_nulls(&mut value);
                without_directives(value)
            }
        };
        if let Some(merged) = merged {
            own.insert(name, merged);
        }
    }
    Ok(own)
}

fn retain_keys(own: &mut Object, patch: &mut Object) -> Result<(), Status> {
    let Some(directive) = patch.remove(RETAIN) else { return Ok(()) };
    let wrong = || Status::bad_request("invalid patch format of retainKeys");
    let Value::Array(keys) = directive else { return Err(wrong()) };
    let listed = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    let stray = |(name, value): (&String, &Value)| {
        !value.is_null() && !name.starts_with(DELETE_LIST) && !name.starts_with(ORDER) && !listed(name)
    };
    if patch.iter().any(stray) {
        return Err(wrong());
    }
    own.retain(|name, _| listed(name));
    Ok(())
}

/// Merges and orders the lists that the patch gives an order for, and takes them out of the patch.
fn set_order(own: &mut Object, patch: &mut Object, of: Option<TypeRef<'_>>) -> Result<(), Status> {
    let directives: Vec<String> = patch.keys().filter(|name| name.starts_with(ORDER)).cloned().collect();
    for directive in directives {
        let order = expect_list(patch.remove(&directive).unwrap_or(Value::Null))?;
        let name = &directive[ORDER.len()..];
        let rule = rule(of, name);
        let before = own.remove(name).map(expect_list).transpose()?;
        let changes = patch.remove(name).filter(|value| !value.is_null() || before.is_none());
        let changes = changes.filter(|value| !value.is_null()).map(expect_list).transpose()?;
        check_order(changes.as_deref().unwrap_or_default(), &order, rule.key)?;
        let merged = match (before.clone(), changes) {
            (Some(before), None) => before,
            (None, Some(changes)) => match without_directives(Value::Array(changes)) {
                Some(Value::Array(items)) => items,
                _ => continue,
            },
            (Some(before), Some(changes)) if rule.strategy.merge => merge_list(before, changes, &rule, false)?,
            (Some(_), Some(changes)) => changes,
            (None, None) => continue,
        };
        let sorted = arrange(merged, &order, before.as_deref().unwrap_or_default(), rule.key)?;
        own.insert(name.to_string(), Value::Array(sorted));
    }
    Ok(())
}

/// The items of a patch must come in the order that the patch itself gives.
fn check_order(changes: &[Value], order: &[Value], key: &str) -> Result<(), Status> {
    if order.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for item in changes.iter().filter(|item| item.get(PATCH).is_none()) {
        if !places.any(|place| same_item(place, item, key)) {
            let (patch, order) = (go_text(&changes.to_vec().into()), go_text(&order.to_vec().into()));
            return Err(odd(format!(
                "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

fn same_item(a: &Value, b: &Value, key: &str) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a.get(key).is_some() && a.get(key) == b.get(key),
        _ => a == b,
    }
}

fn merge_list(own: Vec<Value>, patch: Vec<Value>, rule: &Rule<'_>, delete: bool) -> Result<Vec<Value>, Status> {
    let Some(first) = own.first().or(patch.first()) else { return Ok(own) };
    if first.is_array() {
        return Err(rejected());
    }
    let kind = go_kind(first);
    if own.iter().chain(&patch).any(|item| go_kind(item) != kind) {
        let all: Vec<Value> = own.into_iter().chain(patch).collect();
        return Err(odd(format!("list element types are not identical: {}", go_text(&Value::Array(all)))));
    }
    if !first.is_object() {
        if delete {
            return Ok(own.into_iter().filter(|item| !patch.contains(item)).collect());
        }
        let mut both = own.clone();
        for item in &patch {
            if !both.contains(item) {
                both.push(item.clone());
            }
        }
        return arrange(both, &patch, &own, "");
    }
    merge_items(own, patch, rule)
}

fn merge_items(mut own: Vec<Value>, patch: Vec<Value>, rule: &Rule<'_>) -> Result<Vec<Value>, Status> {
    let key = rule.key;
    if key.is_empty() {
        let name = rule.of.map(|of| of.get().name.to_string()).unwrap_or_default();
        return Err(odd(format!("cannot merge lists without merge key for {name}")));
    }
    let no_key = |item: &Value| odd(format!("map: {} does not contain declared merge key: {key}", go_text(item)));
    let mut changes = Vec::new();
    let mut replace = false;
    for item in patch {
        match item.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None => changes.push(item),
            Some("delete") => {
                let value = item.get(key).ok_or_else(|| no_key(&item))?;
                own.retain(|own| own.get(key) != Some(value));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(odd("merging lists cannot yet be specified in the patch".into())),
            Some(other) => return Err(odd(format!("unknown patch type: {other} in map: {}", go_text(&item)))),
        }
    }
    if replace {
        return Ok(changes);
    }
    let before = own.clone();
    let item_type = rule.of.and_then(TypeRef::item);
    for item in &changes {
        let value = item.get(key).ok_or_else(|| no_key(item))?;
        let Value::Object(patch) = item else { continue };
        match own.iter_mut().find(|own| own.get(key) == Some(value)) {
            Some(Value::Object(place)) => {
                *place = merge_object(std::mem::take(place), patch.clone(), item_type)?;
            }
            _ => {
                // A new item is read as it is but for directives and nulls inside.
                let mut item = item.clone();
                discard_nulls(&mut item);
                own.extend(without_directives(item));
            }
        }
    }
    if let Some(item) = own.iter().find(|item| item.get(key).is_none()) {
        return Err(no_key(item));
    }
    arrange(own, &changes, &before, key)
}

/// Items that the patch names come in its order; the others keep theirs, and stay before what they stood before.
fn arrange(merged: Vec<Value>, order: &[Value], before: &[Value], key: &str) -> Result<Vec<Value>, Status> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same_item(other, item, key));
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    rest.sort_by_key(|item| place(before, item));
    let mut out = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    while let (Some(right), Some(left)) = (named.peek(), rest.peek()) {
        let first = match (place(before, left), place(before, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        out.extend(if first { rest.next() } else { named.next() });
    }
    out.extend(named);
    out.extend(rest);
    Ok(out)
}

/// A value new to the object: nulls in it mean nothing.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// Removes objects that are directives only; `None` when the value itself is one.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(members) if members.contains_key(PATCH) => None,
        Value::Object(members) => Some(Value::Object(
            members
                .into_iter()
                .filter(|(name, _)| !name.starts_with(ORDER) && !name.starts_with(DELETE_LIST) && name != RETAIN)
                .filter_map(|(name, value)| Some((name, without_directives(value)?)))
                .collect(),
        )),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}
