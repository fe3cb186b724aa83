//! Objects on their way out: the version and the view that the client asked for.

use api::{status::Status, stored};
use http::Response;
use serde_json::{Value, json};
use store::Entry;

use super::{Written, table};
use crate::{
    body::Body,
    catalog::Served,
    pipeline::{
        accept::{self, Accepted, Format, Offer, View},
        answer::{self, Answer},
        call::Call,
    },
};

/// What an endpoint of this resource can send.
pub(crate) fn offer(served: &Served) -> Offer {
    if served.is_custom() { Offer::CUSTOM } else { Offer::OBJECTS }
}

/// Stored bytes may be sent as they are.
pub(crate) fn verbatim(served: &Served, accepted: Accepted) -> bool {
    accepted.format == Format::Json && accepted.view == View::Full && !accepted.pretty && !served.converts()
}

/// A stored object.
pub(crate) fn entry(call: &Call, served: &Served, entry: &Entry, accepted: Accepted) -> Answer {
    if verbatim(served, accepted) {
        return Ok(spliced(200, &entry.value, entry.mod_revision));
    }
    let object = stored::decode(&entry.value, entry.mod_revision)?;
    self::object(call, served, 200, object, accepted)
}

/// An object that was just written.
pub(crate) fn written(call: &Call, served: &Served, code: u16, written: Written) -> Answer {
    let accepted = call.negotiate(offer(served))?;
    if verbatim(served, accepted)
        && let Some(bytes) = &written.bytes
    {
        return Ok(spliced(code, bytes, written.revision));
    }
    object(call, served, code, written.object, accepted)
}

fn spliced(code: u16, bytes: &[u8], revision: u64) -> Response<Body> {
    let mut out = Vec::with_capacity(bytes.len() + 40);
    stored::splice(bytes, revision, &mut out);
    answer::bytes(code, accept::JSON, out)
}

/// An object in its storage version.
pub(crate) fn object(call: &Call, served: &Served, code: u16, mut object: Value, accepted: Accepted) -> Answer {
    served.from_storage(&mut object)?;
    let shown = match accepted.view {
        View::Full => object,
        View::Metadata(version) => partial(object, version),
        View::Table(version) => {
            let revision = object["metadata"]["resourceVersion"].clone();
            let table = table::Table::new(call, served, version, &call.query)?;
            let rows = vec![table.row(&object)];
            table.document(rows, json!({"resourceVersion": revision}))
        }
    };
    answer::value(code, &shown, accepted)
}

/// The `PartialObjectMetadata` of an object.
pub(crate) fn partial(mut object: Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"].take(),
    })
}

/// A stored object in the requested version.
pub(crate) fn decode(served: &Served, bytes: &[u8], revision: u64) -> Result<Value, Status> {
    let mut object = stored::decode(bytes, revision)?;
    served.from_storage(&mut object)?;
    Ok(object)
}
