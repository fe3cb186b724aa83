//! What changed between two values of a type, as sets of paths.

use serde_json::{Map, Value};

use super::{
    set::Set,
    walk::{Node, View},
};
use crate::schema::{Field, List, Shape};

/// Paths that differ.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: Set,
    /// Added or modified.
    pub(super) changed: Set,
}

impl Comparison {
    pub(super) fn is_same(&self) -> bool {
        self.removed.is_empty() && self.changed.is_empty()
    }

    /// Forgets everything at and below dotted paths.
    pub(super) fn without(mut self, paths: &[&str]) -> Self {
        for path in paths {
            self.removed.subtract_below(path);
            self.changed.subtract_below(path);
        }
        self
    }
}

/// Compares two objects.
pub(super) fn compare(root: Node<'_>, old: &Value, new: &Value) -> Comparison {
    let mut walker = Walker { out: Comparison::default(), path: Vec::new() };
    walker.both(root, Some(old), Some(new));
    walker.out
}

enum Step<'v> {
    Member(&'v str),
    Item(String),
}

struct Walker<'v> {
    out: Comparison,
    path: Vec<Step<'v>>,
}

impl<'v> Walker<'v> {
    fn path(&self) -> Vec<String> {
        let element = |step: &Step<'_>| match step {
            Step::Member(name) => format!("f:{name}"),
            Step::Item(key) => key.clone(),
        };
        self.path.iter().map(element).collect()
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (_, Some(_)) => {
                let path = self.path();
                self.out.changed.insert(&path);
            }
            (_, None) => {
                let path = self.path();
                self.out.removed.insert(&path);
            }
        }
    }

    fn both(&mut self, node: Node<'_>, old: Option<&'v Value>, new: Option<&'v Value>) {
        let Some(shown) = new.or(old) else { return };
        let view = node.view(shown);
        let (is_empty, is_members) = match view {
            View::Leaf => {
                // A deduced object that became a scalar loses its members, too.
                if let (Some(Value::Object(members)), View::Members) =
                    (old, old.map_or(View::Leaf, |old| node.view(old)))
                {
                    self.members(node, Some(members), None, true);
                }
                return self.leaf(old, new);
            }
            View::Members => {
                let is_empty = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(Map::is_empty);
                (is_empty(old) && is_empty(new), true)
            }
            View::Items(_) => {
                let is_empty = |value: Option<&Value>| value.and_then(Value::as_array).is_none_or(Vec::is_empty);
                (is_empty(old) && is_empty(new), false)
            }
        };
        if is_empty {
            return self.leaf(old, new);
        }
        if is_members {
            self.members(node, old.and_then(Value::as_object), new.and_then(Value::as_object), old.is_some());
        } else if let View::Items(list) = view {
            self.items(node, list, items_of(old), items_of(new));
        }
        if old.is_none() || new.is_none() {
            self.leaf(old, new);
        }
    }

    /// `was_there`: the old value existed, if only as null.
    fn members(
        &mut self,
        node: Node<'_>,
        old: Option<&'v Map<String, Value>>,
        new: Option<&'v Map<String, Value>>,
        was_there: bool,
    ) {
        let at_metadata = matches!(self.path.as_slice(), [Step::Member("metadata")]);
        for (name, value) in new.into_iter().flatten() {
            // The server's own bookkeeping is owned by nobody.
            if at_metadata && matches!(name.as_str(), "managedFields" | "resourceVersion") {
                continue;
            }
            let mut before = old.and_then(|old| old.get(name));
            if before.is_none() && was_there && node.field(name).is_some_and(|field| is_always_there(node, field)) {
                before = Some(&Value::Null);
            }
            self.path.push(Step::Member(name));
            self.both(node.member(name), before, Some(value));
            self.path.pop();
        }
        for (name, value) in old.into_iter().flatten() {
            if new.is_some_and(|new| new.contains_key(name))
                || at_metadata && matches!(name.as_str(), "managedFields" | "resourceVersion")
            {
                continue;
            }
            self.path.push(Step::Member(name));
            self.both(node.member(name), Some(value), None);
            self.path.pop();
        }
    }

    fn items(&mut self, node: Node<'_>, list: &List, old: &'v [Value], new: &'v [Value]) {
        let keyed = |items: &'v [Value]| -> Vec<(String, Vec<&'v Value>)> {
            let mut out: Vec<(String, Vec<&'v Value>)> = Vec::with_capacity(items.len());
            for item in items {
                let Ok(key) = node.key(list, item) else { continue };
                match out.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, all)) => all.push(item),
                    None => out.push((key, vec![item])),
                }
            }
            out
        };
        let (old, mut new) = (keyed(old), keyed(new));
        for (key, before) in old {
            let at = new.iter().position(|(other, _)| *other == key);
            let after = at.map(|at| new.swap_remove(at).1).unwrap_or_default();
            self.item(node.item(list), key, &before, &after);
        }
        for (key, after) in new {
            self.item(node.item(list), key, &[], &after);
        }
    }

    /// Items with the same key on one side are judged together.
    fn item(&mut self, node: Node<'_>, key: String, old: &[&'v Value], new: &[&'v Value]) {
        self.path.push(Step::Item(key));
        match (old, new) {
            ([] | [_], [] | [_]) => self.both(node, old.first().copied(), new.first().copied()),
            _ if old == new => {}
            (_, []) => {
                let path = self.path();
                self.out.removed.insert(&path);
            }
            ([_, _, ..], [one]) => {
                self.both(node, None, Some(one));
                let path = self.path();
                self.out.removed.insert(&path);
            }
            (before, _) => {
                if let [one] = before {
                    self.both(node, Some(one), None);
                }
                let path = self.path();
                self.out.changed.insert(&path);
            }
        }
        self.path.pop();
    }
}

fn items_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Structs that Go embeds by value are there in every object, so that nobody owns their existence.
fn is_always_there(node: Node<'_>, field: &Field) -> bool {
    if !node.of.is_builtin() {
        return false;
    }
    let required = || node.of.object().is_some_and(|object| object.required.contains(&field.name));
    match node.of.at(field.of).shape() {
        Shape::Object(_) => {
            matches!(
                field.name.as_ref(),
                "metadata"
                    | "spec"
                    | "status"
                    | "template"
                    | "strategy"
                    | "updateStrategy"
                    | "resources"
                    | "loadBalancer"
                    | "state"
                    | "lastState"
                    | "nodeInfo"
                    | "daemonEndpoints"
                    | "kubeletEndpoint"
                    | "source"
            ) || required()
        }
        Shape::List(_) | Shape::Map(_) => required(),
        _ => false,
    }
}
