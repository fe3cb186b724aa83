//! `patch`: JSON patch, merge patch, strategic merge patch and server-side apply.

use api::{kind::Part, status::Status};
use serde_json::Value;

use super::{
    input, options, output,
    update::{self, Changed, Ownership, Update},
};
use crate::{
    body::Body,
    catalog::Served,
    pipeline::{answer::Answer, call::Call},
};

const KINDS: &str = "application/json-patch+json, application/merge-patch+json, \
                     application/strategic-merge-patch+json, application/apply-patch+yaml";

/// A parsed patch.
pub(crate) enum Patch {
    Merge(Value),
}

impl Patch {
    pub(crate) fn parse(call: &Call, bytes: &[u8]) -> Result<Self, Status> {
        let fail = |error: &dyn std::fmt::Display| Status::bad_request(format!("error decoding patch: {error}"));
        match input::media_type(call) {
            "application/merge-patch+json" => {
                serde_json::from_slice(bytes).map(Self::Merge).map_err(|error| fail(&error))
            }
            _ => Err(Status::unsupported_media_type(KINDS)),
        }
    }

    /// The patched object; `definition` tells a strategic merge patch how lists merge.
    pub(crate) fn apply_to(&self, object: &Value, _definition: &str) -> Result<Value, Status> {
        match self {
            Self::Merge(patch) => {
                let mut object = object.clone();
                merge(&mut object, patch);
                Ok(object)
            }
        }
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(members) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (name, value) in members {
        if value.is_null() {
            if let Some(own) = target.as_object_mut() {
                own.remove(name);
            }
        } else {
            merge(&mut target[name], value);
        }
    }
}

pub(crate) async fn handle(call: &Call, served: &Served, name: &str, body: Body, part: Part) -> Answer {
    call.negotiate(output::offer(served))?;
    let dry_run = options::dry_run(&call.query, "PatchOptions")?;
    let bytes = input::read(call, body).await?;
    let patch = Patch::parse(call, &bytes)?;
    let definition = served.version().definition.clone();
    let update = Update { call, served, namespace: &call.info.namespace, name, part, dry_run, create: false };
    let mut change = |current: Option<&Value>| {
        let current = current.ok_or_else(|| Status::not_found(served.about(name)))?;
        let object = patch.apply_to(current, &definition)?;
        Ok(Changed { object, ownership: Ownership::Track })
    };
    let (written, created) = update::run(&update, &mut change).await?;
    output::written(call, served, if created { 201 } else { 200 }, written)
}
