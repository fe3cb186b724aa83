//! OpenAPI documents of what is served: `kubectl explain`, client-side checks and generated clients read them.
//!
//! Version 3 has a document for each group version, version 2 one for everything. Both are built from the resources
//! ([`paths`]), the schema model ([`definitions`]) and the descriptions that the typed objects carry ([`texts`]); a custom
//! resource brings its own schema. Building takes milliseconds and some megabytes, so that a caller builds on request and
//! keeps at most the compressed bytes: descriptions are not held anywhere in between.

use serde_json::{Map, Value, json};

use crate::kind::{Resource, Version};

mod custom;
mod definitions;
mod gnostic;
mod paths;
mod texts;
mod v2;

#[cfg(test)]
mod tests;

use definitions::Definitions;

/// A resource in one served version, as a document shows it.
#[derive(Clone, Copy)]
pub struct Published<'a> {
    pub resource: &'a Resource,
    pub version: &'a Version,
    /// A custom resource's `openAPIV3Schema`.
    pub schema: Option<&'a Value>,
}

/// Which version of OpenAPI is written: they differ in references and in what a schema can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, definition: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{definition}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{definition}")}),
        }
    }
}

/// The key of a group version's document in the index: `api/v1`, `apis/apps/v1`.
pub fn v3_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The index at `/openapi/v3`. A document's hash makes its address change when the document does.
pub fn v3_index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let entry = |(path, hash): (&str, &str)| {
        let address = format!("/openapi/v3/{path}?hash={hash}");
        (path.to_string(), json!({"serverRelativeURL": address}))
    };
    json!({"paths": documents.into_iter().map(entry).collect::<Map<_, _>>()})
}

/// The version 3 document of a group version.
pub fn v3(group: &str, version: &str, published: &[Published<'_>]) -> Value {
    let mut definitions = Definitions::new(Dialect::V3, Some((group, version)));
    let paths = paths::build(published, &mut definitions);
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {
            "schemas": definitions.finish(),
            "securitySchemes": {"BearerToken": bearer_token()},
        },
    })
}

/// The version 2 document of everything.
pub fn v2(published: &[Published<'_>]) -> Value {
    let mut definitions = Definitions::new(Dialect::V2, None);
    let paths = paths::build(published, &mut definitions);
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": v2::paths(paths),
        "definitions": definitions.finish(),
        "securityDefinitions": {"BearerToken": bearer_token()},
        "security": [{"BearerToken": []}],
    })
}

/// A version 2 document in protobuf, which is how Go clients ask for it.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    gnostic::encode(document)
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "1.36"})
}

fn bearer_token() -> Value {
    json!({"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"})
}
