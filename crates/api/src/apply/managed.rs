//! `metadata.managedFields`: entries, how they are told apart, read, merged and written.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Request, conflict::Conflict, set::Set};

/// One manager's fields by one operation on one subresource.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub manager: String,
    /// `Apply`; else `Update`.
    pub applied: bool,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339, whole seconds.
    pub time: Option<String>,
    pub set: Set,
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managed {
    pub entries: Vec<Entry>,
}

impl Managed {
    /// Reads `managedFields`. The error says what upstream says of a wrong entry.
    pub fn decode(fields: &Value) -> Result<Managed, String> {
        let mut managed = Managed::default();
        for (index, entry) in fields.as_array().into_iter().flatten().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let applied = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            if text("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
            }
            let set = match entry.get("fieldsV1") {
                None | Some(Value::Null) => Set::default(),
                Some(fields) => {
                    Set::decode(fields).ok_or_else(|| format!("error decoding set of managed fields entry {index}"))?
                }
            };
            let entry = Entry {
                manager: text("manager").into(),
                applied,
                api_version: text("apiVersion").into(),
                subresource: text("subresource").into(),
                time: Some(text("time")).filter(|time| !time.is_empty()).map(str::to_string),
                set,
            };
            match managed.entries.iter_mut().find(|known| known.is_same(&entry)) {
                Some(known) => *known = entry,
                None => managed.entries.push(entry),
            }
        }
        Ok(managed)
    }

    /// Writes `managedFields`, sorted; `None` when there is nothing to write.
    pub fn encode(mut self) -> Option<Value> {
        if self.entries.is_empty() {
            return None;
        }
        fn key(entry: &Entry) -> (bool, &str, &str, &str, &str) {
            let time = entry.time.as_deref().unwrap_or_default();
            (!entry.applied, time, &entry.manager, &entry.api_version, &entry.subresource)
        }
        self.entries.sort_by(|a, b| key(a).cmp(&key(b)));
        Some(Value::Array(self.entries.iter().map(Entry::encode).collect()))
    }

    /// The entry of an update by the request's manager, made when there is none.
    pub(super) fn update_entry(&mut self, request: &Request<'_>) -> &mut Entry {
        self.entry(Entry::new(request, false))
    }

    /// The entry of an apply by the request's manager, made when there is none.
    pub(super) fn apply_entry(&mut self, request: &Request<'_>) -> &mut Entry {
        self.entry(Entry::new(request, true))
    }

    fn entry(&mut self, wanted: Entry) -> &mut Entry {
        let at = self.entries.iter().position(|entry| entry.is_same(&wanted)).unwrap_or_else(|| {
            self.entries.push(wanted);
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }

    /// All entries but the one that the request applies.
    pub(super) fn others(&mut self, request: &Request<'_>) -> impl Iterator<Item = &mut Entry> {
        let own = Entry::new(request, true);
        self.entries.iter_mut().filter(move |entry| !entry.is_same(&own))
    }

    /// What of `changed` others own.
    pub(super) fn conflicts(&self, request: &Request<'_>, changed: &Set) -> Vec<Conflict> {
        let own = Entry::new(request, true);
        let mut out: Vec<Conflict> = self
            .entries
            .iter()
            .filter(|entry| !entry.is_same(&own))
            .map(|entry| Conflict { manager: entry.shown(), set: entry.set.intersect(changed) })
            .filter(|conflict| !conflict.set.is_empty())
            .collect();
        out.sort_by(|a, b| a.manager.cmp(&b.manager));
        out
    }

    /// Merges the oldest update entries of a version until at most `most` are left.
    pub(super) fn cap(&mut self, most: usize) {
        const BUCKET: &str = "ancient-changes";
        let mut updaters: Vec<usize> = (0..self.entries.len()).filter(|at| !self.entries[*at].applied).collect();
        let mut left = updaters.len();
        if left <= most {
            return;
        }
        updaters.sort_by(|a, b| {
            let key = |at: usize| (&self.entries[at].time, &self.entries[at].manager);
            key(*a).cmp(&key(*b))
        });
        let mut first_of: BTreeMap<String, usize> = BTreeMap::new();
        let mut gone = Vec::new();
        for at in updaters {
            if left <= most {
                break;
            }
            let version = self.entries[at].api_version.clone();
            let Some(first) = first_of.get(&version).copied() else {
                first_of.insert(version, at);
                continue;
            };
            if first == at {
                continue;
            }
            let Entry { set, time, .. } = self.entries[at].clone();
            let bucket = &mut self.entries[first];
            bucket.manager = BUCKET.into();
            bucket.subresource = String::new();
            bucket.set.unite(&set);
            bucket.time = time;
            gone.push(at);
            left -= 1;
        }
        let mut at = 0;
        self.entries.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
    }
}

impl Entry {
    fn new(request: &Request<'_>, applied: bool) -> Self {
        let manager = if request.manager.is_empty() { "unknown" } else { request.manager };
        Self {
            manager: manager.into(),
            applied,
            api_version: request.api_version.into(),
            subresource: request.subresource.into(),
            time: None,
            set: Set::default(),
        }
    }

    /// An applier is the same whatever version it applies.
    fn is_same(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.applied == other.applied
            && self.subresource == other.subresource
            && (self.applied || self.api_version == other.api_version)
    }

    /// How conflicts name the manager.
    fn shown(&self) -> String {
        let mut out = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            out += &format!(" with subresource {:?}", self.subresource);
        }
        if !self.applied {
            out += &format!(" using {}", self.api_version);
        }
        out
    }

    fn encode(&self) -> Value {
        let mut members = Map::new();
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                members.insert(name.into(), value.into());
            }
        };
        put("manager", &self.manager);
        put("operation", if self.applied { "Apply" } else { "Update" });
        put("apiVersion", &self.api_version);
        put("time", self.time.as_deref().unwrap_or_default());
        put("fieldsType", "FieldsV1");
        put("subresource", &self.subresource);
        members.insert("fieldsV1".into(), self.set.encode());
        Value::Object(members)
    }
}
