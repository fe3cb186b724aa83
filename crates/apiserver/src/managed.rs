//! Who owns which field: `metadata.managedFields` of writes that are no server-side applies.

use api::kind::Part;
use serde_json::Value;

use crate::{catalog::Served, pipeline::call::Call};

/// The creator owns every field of a new object.
pub(crate) fn created(_call: &Call, _served: &Served, _object: &mut Value) {}

/// An update makes its field manager the owner of what changed.
pub(crate) fn updated(_call: &Call, _served: &Served, _object: &mut Value, _old: &Value, _part: Part) {}

/// After an apply, which wrote the ownership itself.
pub(crate) fn settle(_object: &mut Value, _old: &Value) {}
