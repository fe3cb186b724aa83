//! How a value is taken apart: by its type where there is one, by what it is otherwise.

use serde_json::{Map, Value};

use super::set::Set;
use crate::schema::{Field, List, ListKind, Scalar, Shape, TypeRef};

/// A type at a place: a member may override whether it is one leaf.
#[derive(Clone, Copy)]
pub(super) struct Node<'t> {
    pub(super) of: TypeRef<'t>,
    atomic: Option<bool>,
}

/// What ownership sees in a value.
#[derive(Clone, Copy)]
pub(super) enum View<'t> {
    /// One value, owned as a whole.
    Leaf,
    /// Members are owned one by one.
    Members,
    /// Items are owned one by one.
    Items(&'t List),
}

impl<'t> Node<'t> {
    pub(super) fn root(of: TypeRef<'t>) -> Self {
        Self { of, atomic: None }
    }

    /// `value` decides only where the type does not.
    pub(super) fn view(self, value: &Value) -> View<'t> {
        match self.of.shape() {
            Shape::Scalar(_) | Shape::Any { atomic: true } => View::Leaf,
            Shape::Any { atomic: false } if value.is_object() => View::Members,
            Shape::Any { atomic: false } => View::Leaf,
            Shape::List(list) if list.kind == ListKind::Atomic => View::Leaf,
            Shape::List(list) => View::Items(list),
            Shape::Map(map) if self.atomic.unwrap_or(map.atomic) => View::Leaf,
            Shape::Object(object) if self.atomic.unwrap_or(object.atomic) => View::Leaf,
            Shape::Map(_) | Shape::Object(_) => View::Members,
        }
    }

    pub(super) fn field(self, name: &str) -> Option<&'t Field> {
        self.of.field(name)
    }

    /// The type of a member; what the schema does not know is deduced.
    pub(super) fn member(self, name: &str) -> Node<'t> {
        match self.field(name) {
            Some(field) => Node { of: self.of.at(field.of), atomic: field.atomic },
            None => Node::root(self.of.member(name).unwrap_or_else(|| TypeRef::deduced())),
        }
    }

    pub(super) fn item(self, list: &List) -> Node<'t> {
        Node::root(self.of.at(list.item))
    }

    /// The path element of an item.
    pub(super) fn key(self, list: &List, item: &Value) -> Result<String, String> {
        if list.keys.is_empty() {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
                scalar => Ok(format!("v:{scalar}")),
            };
        }
        let members = match item {
            Value::Object(members) => members,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        if let ([name], false) = (list.keys.as_slice(), members.is_empty())
            && let Some(value) = members.get(name.as_ref())
        {
            return Ok(format!("k:{{{}:{value}}}", Value::String(name.to_string())));
        }
        let of = self.of.at(list.item);
        let mut keys = Map::new();
        for name in &list.keys {
            let default = || of.field(name)?.default.as_deref().cloned().or_else(|| zero_key(of, name));
            if let Some(value) = members.get(name.as_ref()).cloned().or_else(default) {
                keys.insert(name.to_string(), value);
            }
        }
        if keys.is_empty() {
            let names: Vec<&str> = list.keys.iter().map(AsRef::as_ref).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields {names:?} (and doesn't have \
                 default values for any key fields)"
            ));
        }
        Ok(format!("k:{}", Value::Object(keys)))
    }
}

/// A key that a built-in type requires is the zero value when it is left out.
fn zero_key(of: TypeRef<'_>, name: &str) -> Option<Value> {
    let required = of.is_builtin() && of.object()?.required.iter().any(|required| required == name);
    match of.member(name)?.shape() {
        Shape::Scalar(Scalar::String) if required => Some(Value::from("")),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64) if required => Some(Value::from(0)),
        _ => None,
    }
}

/// All fields that a configuration names.
pub(super) fn field_set(root: Node<'_>, config: &Value) -> Set {
    let mut set = Set::default();
    collect(root, config, &mut Vec::new(), &mut set);
    set
}

fn collect(node: Node<'_>, value: &Value, path: &mut Vec<String>, set: &mut Set) {
    match (node.view(value), value) {
        (View::Members, Value::Object(members)) => {
            for (name, value) in members {
                path.push(format!("f:{name}"));
                collect(node.member(name), value, path, set);
                let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if is_empty || node.field(name).is_none() {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (View::Items(list), Value::Array(items)) => {
            let mut seen: Vec<String> = Vec::with_capacity(items.len());
            for item in items {
                let Ok(key) = node.key(list, item) else { continue };
                path.push(key.clone());
                // Of items with the same key only the key is owned.
                if !seen.contains(&key) {
                    collect(node.item(list), item, path, set);
                    seen.push(key);
                }
                set.insert(path);
                path.pop();
            }
        }
        (View::Members | View::Items(_), Value::Null) => {}
        _ => set.insert(path),
    }
}
