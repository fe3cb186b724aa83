//! `/`: every path that answers.

use serde_json::json;

use crate::{
    catalog::api_version,
    discovery,
    pipeline::{answer::Answer, call::Call},
};

/// Paths beside those of the API groups.
const OTHERS: [&str; 8] =
    ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"];

pub(crate) fn index(call: &Call) -> Answer {
    let mut paths: Vec<String> =
        vec!["/.well-known/openid-configuration".into(), "/api".into(), "/api/v1".into(), "/apis".into()];
    for group in call.catalog.groups().iter().filter(|group| !group.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|version| format!("/apis/{}", api_version(&group.name, version))));
    }
    paths.extend(OTHERS.iter().map(|path| path.to_string()));
    paths.sort();
    discovery::json_document(call, &json!({"paths": paths}))
}
