//! `get`: one object.

use api::status::Status;

use super::{options, output, read, store_failed, too_large_revision};
use crate::{
    catalog::Served,
    pipeline::{answer::Answer, call::Call},
};

pub(crate) async fn handle(call: &Call, served: &Served, name: &str) -> Answer {
    let accepted = call.negotiate(output::offer(served))?;
    if let Some(revision) = options::revision(call.query.get("resourceVersion"))? {
        let current = call.server.store().revision().await.map_err(store_failed)?;
        if revision > current {
            return Err(too_large_revision(revision, current));
        }
    }
    let entry = read::entry(call, served, &call.info.namespace, name).await?;
    output::entry(call, served, &entry, accepted)
}

/// The object behind a subresource that only shows its parent (`GET .../status`).
pub(crate) async fn parent(call: &Call, served: &Served, name: &str) -> Result<serde_json::Value, Status> {
    read::object(call, served, &call.info.namespace, name).await
}
