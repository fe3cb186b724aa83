//! Merges a configuration into an object along the type: what the configuration says wins, order included.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::walk::{Node, View};
use crate::schema::List;

/// The merged object; the error names the item that cannot be told apart.
pub(super) fn merge(root: Node<'_>, live: &Value, config: &Value) -> Result<Value, String> {
    both(root, Some(live), Some(config))
}

fn both(node: Node<'_>, live: Option<&Value>, config: Option<&Value>) -> Result<Value, String> {
    let Some(shown) = config.or(live) else { return Ok(Value::Null) };
    match node.view(shown) {
        View::Leaf => Ok(shown.clone()),
        View::Members => {
            let (own, theirs) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
            if own.is_none_or(Map::is_empty) && theirs.is_none_or(Map::is_empty) {
                return Ok(shown.clone());
            }
            let mut out = own.cloned().unwrap_or_default();
            for (name, value) in theirs.into_iter().flatten() {
                let merged = both(node.member(name), own.and_then(|own| own.get(name)), Some(value))?;
                out.insert(name.clone(), merged);
            }
            Ok(Value::Object(out))
        }
        View::Items(list) => {
            let (own, theirs) = (live.and_then(Value::as_array), config.and_then(Value::as_array));
            match (own, theirs) {
                (Some(own), Some(theirs)) if !own.is_empty() || !theirs.is_empty() => {
                    items(node, list, own, theirs).map(Value::Array)
                }
                (Some(own), None) => Ok(Value::Array(own.clone())),
                _ => Ok(shown.clone()),
            }
        }
    }
}

/// Items that both have come in the configuration's order; live ones that it does not name keep their neighbours.
fn items(node: Node<'_>, list: &List, live: &[Value], config: &[Value]) -> Result<Vec<Value>, String> {
    let keys = |items: &[Value]| -> Result<Vec<String>, String> {
        items
            .iter()
            .enumerate()
            .map(|(index, item)| node.key(list, item).map_err(|why| format!("element {index}: {why}")))
            .collect()
    };
    let (left, right) = (keys(live)?, keys(config)?);
    let mut in_live: HashMap<&str, Option<&Value>> = HashMap::new();
    for (key, item) in left.iter().zip(live) {
        // Duplicates cannot be merged into: the configuration's item replaces them.
        in_live.entry(key).and_modify(|known| *known = None).or_insert(Some(item));
    }
    let in_config: HashMap<&str, &Value> = right.iter().map(String::as_str).zip(config).collect();
    let mut shared = right.iter().map(String::as_str).filter(|key| in_live.contains_key(key));
    let mut next_shared = shared.next();
    let mut merged: HashSet<&str> = HashSet::new();
    let merge_item =
        |key: &str| both(node.item(list), in_live.get(key).copied().flatten(), in_config.get(key).copied());
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            let key = left[l].as_str();
            if key == right[r] {
                merged.insert(key);
                out.push(merge_item(key)?);
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if in_config.contains_key(key) && next_shared.is_some_and(|next| next != key) {
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            let key = left[l].as_str();
            if !in_config.contains_key(key) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            if merged.contains(key) {
                l += 1;
            }
        }
        if r < right.len() {
            let key = right[r].as_str();
            merged.insert(key);
            out.push(merge_item(key)?);
            r += 1;
            if next_shared == Some(key) {
                next_shared = shared.next();
            }
        }
    }
    Ok(out)
}
