//! Who owns which field: `metadata.managedFields` of writes that are no server-side applies.

use api::{
    apply::{self, Request},
    kind::Part,
};
use serde_json::Value;

use crate::{catalog::Served, pipeline::call::Call, registry::meta};

/// The creator owns every field of a new object.
pub(crate) fn created(call: &Call, served: &Served, object: &mut Value) {
    track(call, served, object, None, "");
}

/// An update makes its field manager the owner of what changed.
pub(crate) fn updated(call: &Call, served: &Served, object: &mut Value, old: &Value, part: Part) {
    let subresource = match part {
        Part::Main => call.info.subresource.as_str(),
        Part::Status => "status",
        Part::Other(name) => name,
    };
    track(call, served, object, Some(old), subresource);
    settle(object, old);
}

fn track(call: &Call, served: &Served, object: &mut Value, old: Option<&Value>, subresource: &str) {
    let manager = call.field_manager();
    let api_version = served.api_version();
    let request = Request {
        manager: &manager,
        api_version: &api_version,
        subresource,
        now: &call.now,
        force: false,
        reset: apply::reset_fields(subresource, served.subresource("status").is_some()),
    };
    apply::track_update(served.schema(), old, object, &request);
}

/// An object in which nothing but the times of ownership changed keeps the old times: writing it would change nothing.
pub(crate) fn settle(object: &mut Value, old: &Value) {
    let own = &object["metadata"]["managedFields"];
    let before = &old["metadata"]["managedFields"];
    if own == before || before.is_null() || !same_but_times(own, before) {
        return;
    }
    let same = |member: &str| object.get(member) == old.get(member);
    let members = object.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let old_members = old.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    if !members.chain(old_members).filter(|name| *name != "metadata").all(same) {
        return;
    }
    let metadata_same = {
        let (own, before) = (object["metadata"].as_object(), old["metadata"].as_object());
        let names = own.into_iter().chain(before).flatten().map(|(name, _)| name);
        let mut names = names.filter(|name| !matches!(name.as_str(), "managedFields" | "resourceVersion"));
        names.all(|name| object["metadata"].get(name) == old["metadata"].get(name))
    };
    if metadata_same {
        meta::of(object).insert("managedFields".into(), before.clone());
    }
}

fn same_but_times(own: &Value, before: &Value) -> bool {
    let (Some(own), Some(before)) = (own.as_array(), before.as_array()) else { return false };
    let strip = |entry: &Value| {
        let mut entry = entry.clone();
        if let Some(members) = entry.as_object_mut() {
            members.remove("time");
        }
        entry
    };
    own.len() == before.len() && own.iter().zip(before).all(|(own, before)| strip(own) == strip(before))
}
