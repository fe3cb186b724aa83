//! `/openapi/v2` and `/openapi/v3`: the schema documents of what is served.
//!
//! Documents are built when they are asked for, off the request threads. A client remembers a document by its hash, so
//! that this is rare; the hash is made of what the document is about and not of the document, which would have to be
//! built to tell.

use std::sync::Arc;

use api::{
    openapi::{self, Published},
    status::Status,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::version::GIT_VERSION;
use crate::{
    body::{self, Body},
    catalog::{Catalog, Served},
    gzip,
    pipeline::{
        accept,
        answer::{self, Answer},
        call::Call,
    },
};

const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers below `/openapi`; `path` has no trailing slash.
pub(crate) async fn handle(call: &Call, path: &str) -> Answer {
    match path {
        "/openapi/v2" => v2(call).await,
        "/openapi/v3" => Ok(index(call)),
        _ => {
            let wanted = path.strip_prefix("/openapi/v3/").ok_or_else(Status::no_such_path)?;
            v3(call, wanted).await
        }
    }
}

/// Served resources of a group version; of all of them without one.
fn served(catalog: &Catalog, group_version: Option<(&str, &str)>) -> Vec<Served> {
    match group_version {
        Some((group, version)) => catalog.in_version(group, version),
        None => catalog
            .groups()
            .iter()
            .flat_map(|group| group.versions.iter().map(move |version| (group, version)))
            .flat_map(|(group, version)| catalog.in_version(&group.name, version))
            .collect(),
    }
}

fn published(served: &[Served]) -> Vec<Published<'_>> {
    served
        .iter()
        .map(|served| Published {
            resource: &served.resource,
            version: served.version(),
            schema: served.openapi_schema(),
        })
        .collect()
}

/// Changes when the documents about these resources do.
fn hash(served: &[Served]) -> String {
    let mut digest = Sha256::new();
    digest.update(GIT_VERSION);
    for served in served {
        digest.update(format!("{}/{};", served.api_version(), served.resource.plural));
        if let Some(schema) = served.openapi_schema() {
            digest.update(schema.to_string());
        }
    }
    digest.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn index(call: &Call) -> Response<Body> {
    let mut documents = Vec::new();
    for group in call.catalog.groups() {
        for version in &group.versions {
            let hash = hash(&call.catalog.in_version(&group.name, version));
            documents.push((openapi::v3_path(&group.name, version), hash));
        }
    }
    let index = openapi::v3_index(documents.iter().map(|(path, hash)| (path.as_str(), hash.as_str())));
    answer::bytes(200, accept::JSON, index.to_string())
}

async fn v3(call: &Call, wanted: &str) -> Answer {
    let found = call.catalog.groups().iter().find_map(|group| {
        let version = group.versions.iter().find(|version| openapi::v3_path(&group.name, version) == wanted)?;
        Some((group.name.clone(), version.clone()))
    });
    let (group, version) = found.ok_or_else(Status::no_such_path)?;
    let served = served(&call.catalog, Some((&group, &version)));
    let hash = hash(&served);
    if call.query.text("hash").is_some_and(|asked| asked != hash) {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(location) = HeaderValue::try_from(format!("/openapi/v3/{wanted}?hash={hash}")) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        return Ok(response);
    }
    if let Some(unchanged) = not_modified(&call.headers, &hash) {
        return Ok(unchanged);
    }
    let document = build(move || openapi::v3(&group, &version, &published(&served))).await?;
    let mut response = answer::bytes(200, accept::JSON, document.to_string());
    tag(response.headers_mut(), &hash);
    if call.query.text("hash").is_some() {
        let forever = HeaderValue::from_static("public, immutable");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    Ok(gzip::maybe(call, response))
}

async fn v2(call: &Call) -> Answer {
    let served = served(&call.catalog, None);
    let hash = hash(&served);
    if let Some(unchanged) = not_modified(&call.headers, &hash) {
        return Ok(unchanged);
    }
    let document = build(move || openapi::v2(&published(&served))).await?;
    let header = accept::header_text(&call.headers);
    let protobuf =
        accept::clauses(&header).first().is_some_and(|clause| [V2_PROTOBUF_ASKED, V2_PROTOBUF].contains(&clause.media));
    let mut response = if protobuf {
        answer::bytes(200, V2_PROTOBUF, openapi::v2_protobuf(&document))
    } else {
        answer::bytes(200, accept::JSON, document.to_string())
    };
    tag(response.headers_mut(), &hash);
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    Ok(gzip::maybe(call, response))
}

async fn build(make: impl FnOnce() -> Value + Send + 'static) -> Result<Arc<Value>, Status> {
    tokio::task::spawn_blocking(make)
        .await
        .map(Arc::new)
        .map_err(|error| Status::internal(format!("cannot build the OpenAPI document: {error}")))
}

fn tag(headers: &mut HeaderMap, hash: &str) {
    if let Ok(tag) = HeaderValue::try_from(format!("\"{hash}\"")) {
        headers.insert(header::ETAG, tag);
    }
}

fn not_modified(headers: &HeaderMap, hash: &str) -> Option<Response<Body>> {
    let known = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    if !known.split(',').any(|known| known.trim().trim_matches('"') == hash) {
        return None;
    }
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tag(response.headers_mut(), hash);
    Some(response)
}
