//! `/openapi/v2` and `/openapi/v3`: the schema documents of what is served.

use api::status::Status;

use crate::pipeline::{answer::Answer, call::Call};

/// Documents that were built once.
#[derive(Default)]
pub(crate) struct Documents {}

pub(crate) async fn handle(_call: &Call, _path: &str) -> Answer {
    Err(Status::no_such_path())
}
