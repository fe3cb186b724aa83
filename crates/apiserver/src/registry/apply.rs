//! Server-side apply: the client says which fields it wants, the server remembers who wanted what.

use api::{kind::Part, status::Status};

use crate::{
    body::Body,
    catalog::Served,
    pipeline::{answer::Answer, call::Call},
};

pub(crate) async fn handle(_: &Call, served: &Served, _: &str, _: Body, _: Part, _dry_run: bool) -> Answer {
    let mut accepted = vec!["application/json-patch+json", "application/merge-patch+json"];
    if !served.is_custom() {
        accepted.push("application/strategic-merge-patch+json");
    }
    Err(Status::unsupported_media_type(&accepted.join(", ")))
}
