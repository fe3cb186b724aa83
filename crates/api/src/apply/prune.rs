//! Removes from a merged object what a manager applied before, does not apply now, and nobody else owns.

use serde_json::Value;

use super::{
    managed::Managed,
    set::Set,
    walk::{self, Node, View},
};

/// `last` is the manager's set of its previous apply; `managed` holds the new one already.
pub(super) fn prune(root: Node<'_>, merged: Value, managed: &Managed, last: &Set) -> Value {
    let last = named(root, last);
    let without_last = remove(root, &merged, &last);
    let mut owned = Set::default();
    for entry in &managed.entries {
        owned.unite(&entry.set);
    }
    // Without the last set, but with everything that somebody owns.
    let mut gone = named(root, &walk::field_set(root, &merged));
    gone.subtract(&named(root, &walk::field_set(root, &without_last)));
    gone.subtract(&named(root, &owned));
    let kept = remove(root, &merged, &gone);
    // And with what nobody ever owned.
    let mut gone = named(root, &walk::field_set(root, &merged));
    gone.subtract(&named(root, &walk::field_set(root, &kept)));
    remove(root, &merged, &gone.intersect(&last))
}

/// A copy of the set in which known members with something below are members themselves.
fn named(node: Node<'_>, set: &Set) -> Set {
    let parts =
        set.map_members(&mut |element| element.strip_prefix("f:").is_some_and(|name| node.field(name).is_some()));
    Set::from_parts(parts.into_iter().map(|(element, member, below)| {
        let below = match element.strip_prefix("f:") {
            Some(name) => named(node.member(name), below),
            None => match node.of.item() {
                Some(item) => named(Node::root(item), below),
                None => below.clone(),
            },
        };
        (element, member, below)
    }))
}

/// A copy of the value without the paths of the set; objects and lists that become empty stay.
fn remove(node: Node<'_>, value: &Value, set: &Set) -> Value {
    match (node.view(value), value) {
        (View::Members, Value::Object(members)) => Value::Object(
            members
                .iter()
                .filter_map(|(name, value)| {
                    let element = format!("f:{name}");
                    if set.has(&element) {
                        return None;
                    }
                    let kept = match set.below(&element) {
                        Some(below) => remove(node.member(name), value, below),
                        None => value.clone(),
                    };
                    Some((name.clone(), kept))
                })
                .collect(),
        ),
        (View::Items(list), Value::Array(items)) => Value::Array(
            items
                .iter()
                .filter_map(|item| {
                    let Ok(element) = node.key(list, item) else { return Some(item.clone()) };
                    if set.has(&element) {
                        return None;
                    }
                    Some(match set.below(&element) {
                        Some(below) => remove(node.item(list), item, below),
                        None => item.clone(),
                    })
                })
                .collect(),
        ),
        _ => value.clone(),
    }
}
