//! The stored form of an object: JSON that can be sent without being parsed.
//!
//! ```text
//! {"metadata":{ "creationTimestamp":...,"name":"web",... },"apiVersion":"v1","kind":"Pod","spec":{...}}
//! ^^^^^^^^^^^^^ HEAD, thirteen bytes; a reader puts "resourceVersion":"N", right behind it
//! ```
//!
//! Invariant: stored bytes begin with [`HEAD`], hold at least one metadata member and never a `resourceVersion`,
//! because the revision is known only once the write has happened.

use serde_json::Value;

use crate::status::Status;

/// The first bytes of every stored object.
pub const HEAD: &[u8] = br#"{"metadata":{"#;

/// Encodes an object for the store, leaving `metadata.resourceVersion` out.
pub fn encode(object: &Value) -> Result<Vec<u8>, Status> {
    let fail = |why: &str| Status::internal(format!("cannot encode object for storage: {why}"));
    let members = object.as_object().ok_or_else(|| fail("not a JSON object"))?;
    let metadata = members.get("metadata").and_then(Value::as_object).ok_or_else(|| fail("no metadata"))?;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(HEAD);
    let mut first = true;
    for (name, value) in metadata.iter().filter(|(name, _)| *name != "resourceVersion") {
        member(&mut out, &mut first, name, value);
    }
    if first {
        return Err(fail("empty metadata"));
    }
    out.push(b'}');
    first = false;
    for (name, value) in members.iter().filter(|(name, _)| *name != "metadata") {
        member(&mut out, &mut first, name, value);
    }
    out.push(b'}');
    Ok(out)
}

fn member(out: &mut Vec<u8>, first: &mut bool, name: &str, value: &Value) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
    // Writing JSON into memory cannot fail: keys are strings and a Vec takes every byte.
    serde_json::to_writer(&mut *out, name).expect("write to memory");
    out.push(b':');
    serde_json::to_writer(&mut *out, value).expect("write to memory");
}

/// Decodes stored bytes and sets `metadata.resourceVersion` to `revision`.
pub fn decode(bytes: &[u8], revision: u64) -> Result<Value, Status> {
    let mut object: Value = serde_json::from_slice(bytes)
        .map_err(|error| Status::internal(format!("stored object is not JSON: {error}")))?;
    object["metadata"]["resourceVersion"] = Value::String(revision.to_string());
    Ok(object)
}

/// Writes the readable form: stored bytes with the revision spliced in.
pub fn splice(bytes: &[u8], revision: u64, out: &mut Vec<u8>) {
    debug_assert!(bytes.starts_with(HEAD));
    out.extend_from_slice(HEAD);
    out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\",").as_bytes());
    out.extend_from_slice(&bytes[HEAD.len()..]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spliced_bytes_parse_to_the_object_with_its_revision() {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "3"}});
        let stored = encode(&object).unwrap();
        let mut sent = Vec::new();
        splice(&stored, 7, &mut sent);
        assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap(), decode(&stored, 7).unwrap());
        assert_eq!(decode(&stored, 7).unwrap()["metadata"]["resourceVersion"], "7");
    }
}
