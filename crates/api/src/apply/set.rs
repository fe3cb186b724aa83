//! Sets of field paths, in the form that `FieldsV1` has.
//!
//! ```text
//! f:NAME          a member            .NAME
//! k:{"name":"a"}  an item by its keys  [name="a"]
//! v:"a"           an item that is its own key  [="a"]
//! i:0             an item by its place  [0]
//! .               the path itself is in the set, not only what is below
//! ```
//!
//! Path elements are kept as these texts, so that reading and writing copy nothing but strings.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value};

/// A set of paths: a tree by path elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    nodes: BTreeMap<Box<str>, Branch>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Branch {
    /// The path up to here is in the set.
    member: bool,
    below: Set,
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Reads `FieldsV1`. `None` when it is no such object.
    pub fn decode(fields: &Value) -> Option<Set> {
        Self::decode_into(fields.as_object()?)
    }

    fn decode_into(members: &Map<String, Value>) -> Option<Set> {
        let mut set = Set::default();
        for (element, below) in members.iter().filter(|(element, _)| *element != ".") {
            if !matches!(element.as_bytes(), [b'f' | b'k' | b'v' | b'i', b':', ..]) {
                // A newer server may know more kinds of elements.
                continue;
            }
            let below = below.as_object()?;
            // An element without anything below is in the set itself.
            let member = below.is_empty() || below.contains_key(".");
            let below = Self::decode_into(below)?;
            set.nodes.insert(element.as_str().into(), Branch { member, below });
        }
        Some(set)
    }

    /// Writes `FieldsV1`.
    pub fn encode(&self) -> Value {
        Value::Object(
            self.nodes
                .iter()
                .map(|(element, branch)| {
                    let mut below = branch.below.encode();
                    if let (true, false, Value::Object(members)) = (branch.member, branch.below.is_empty(), &mut below)
                    {
                        members.insert(".".into(), Value::Object(Map::new()));
                    }
                    (element.to_string(), below)
                })
                .collect(),
        )
    }

    /// Adds a path; the empty path is in no set.
    pub(super) fn insert<S: AsRef<str>>(&mut self, path: &[S]) {
        let Some((first, rest)) = path.split_first() else { return };
        let first = first.as_ref();
        let branch = match self.nodes.get_mut(first) {
            Some(_) => self.nodes.get_mut(first),
            None => Some(self.nodes.entry(first.into()).or_default()),
        };
        let Some(branch) = branch else { return };
        if rest.is_empty() {
            branch.member = true;
        } else {
            branch.below.insert(rest);
        }
    }

    /// Adds `a.b.c`, all members.
    pub(super) fn insert_dotted(&mut self, path: &str) {
        self.insert(&path.split('.').map(|name| format!("f:{name}")).collect::<Vec<_>>());
    }

    /// The path of one element is in the set.
    pub(super) fn has(&self, element: &str) -> bool {
        self.nodes.get(element).is_some_and(|branch| branch.member)
    }

    /// The paths below an element; `None` when there are none.
    pub(super) fn below(&self, element: &str) -> Option<&Set> {
        self.nodes.get(element).map(|branch| &branch.below).filter(|below| !below.is_empty())
    }

    /// Adds the paths of another set.
    pub fn unite(&mut self, other: &Set) {
        for (element, theirs) in &other.nodes {
            match self.nodes.get_mut(element) {
                Some(own) => {
                    own.member |= theirs.member;
                    own.below.unite(&theirs.below);
                }
                None => {
                    self.nodes.insert(element.clone(), theirs.clone());
                }
            }
        }
    }

    /// Removes the paths of another set; what is below one of them stays.
    pub fn subtract(&mut self, other: &Set) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain(|element, own| {
            if let Some(theirs) = other.nodes.get(element) {
                own.member &= !theirs.member;
                own.below.subtract(&theirs.below);
            }
            own.member || !own.below.is_empty()
        });
    }

    /// The paths that both sets have.
    pub fn intersect(&self, other: &Set) -> Set {
        let mut out = Set::default();
        for (element, own) in &self.nodes {
            let Some(theirs) = other.nodes.get(element) else { continue };
            let branch = Branch { member: own.member && theirs.member, below: own.below.intersect(&theirs.below) };
            if branch.member || !branch.below.is_empty() {
                out.nodes.insert(element.clone(), branch);
            }
        }
        out
    }

    /// Removes `a.b.c` and everything below.
    pub(super) fn subtract_below(&mut self, path: &str) {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let element = format!("f:{first}");
        if rest.is_empty() {
            self.nodes.remove(element.as_str());
            return;
        }
        if let Some(branch) = self.nodes.get_mut(element.as_str()) {
            branch.below.subtract_below(rest);
            if !branch.member && branch.below.is_empty() {
                self.nodes.remove(element.as_str());
            }
        }
    }

    /// The paths as people read them: those of one level first, then what is below.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        let shown = |element: &str| format!("{prefix}{}", readable(element));
        out.extend(self.nodes.iter().filter(|(_, branch)| branch.member).map(|(element, _)| shown(element)));
        for (element, branch) in &self.nodes {
            if !branch.below.is_empty() {
                branch.below.collect(&shown(element), out);
            }
        }
    }

    /// Adds, for each path below a member that `is_named` knows, that member itself.
    pub(super) fn map_members(&self, is_member: &mut dyn FnMut(&str) -> bool) -> Vec<(Box<str>, bool, &Set)> {
        self.nodes
            .iter()
            .map(|(element, branch)| {
                let member = branch.member || (!branch.below.is_empty() && is_member(element));
                (element.clone(), member, &branch.below)
            })
            .collect()
    }

    pub(super) fn from_parts(parts: impl IntoIterator<Item = (Box<str>, bool, Set)>) -> Set {
        Set { nodes: parts.into_iter().map(|(element, member, below)| (element, Branch { member, below })).collect() }
    }
}

fn readable(element: &str) -> String {
    let (kind, rest) = element.split_once(':').unwrap_or((element, ""));
    match kind {
        "f" => format!(".{rest}"),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let mut out = String::from("[");
            for (index, (name, value)) in keys.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                // Writing to a String cannot fail.
                let _ = write!(out, "{comma}{name}={value}");
            }
            out + "]"
        }
        "v" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}
