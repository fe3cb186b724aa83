//! What is served: the legacy lists (`/api`, `/apis`, per group and version) and the aggregated form of both roots.
//!
//! Everything is built from the catalog when it is asked for; a client that remembers the `ETag` gets a 304.

pub(crate) mod openapi;
pub(crate) mod paths;
pub(crate) mod version;

use api::{kind::Resource, status::Status};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    body,
    catalog::{Catalog, Group, Served, api_version},
    pipeline::{
        accept::{self, Accepted, Format, Offer},
        answer::{self, Answer},
        call::Call,
    },
};

/// Answers `/api...` and `/apis...`; `path` has no trailing slash.
pub(crate) fn handle(call: &Call, path: &str) -> Answer {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let catalog = &call.catalog;
    match parts[..] {
        ["api"] => aggregated(call, true).unwrap_or_else(|| document(call, &legacy_versions(call))),
        ["apis"] => aggregated(call, false).unwrap_or_else(|| document(call, &group_list(catalog))),
        ["api", version] => resource_list(call, "", version),
        ["apis", group] => {
            let group = catalog.group(group).filter(|group| !group.name.is_empty()).ok_or_else(Status::no_such_path)?;
            document(call, &with_type(group_value(group), "APIGroup", "v1"))
        }
        ["apis", group, version] => resource_list(call, group, version),
        _ => Err(Status::no_such_path()),
    }
}

fn document(call: &Call, value: &Value) -> Answer {
    let accepted = call.negotiate(Offer::DOCUMENTS)?;
    answer::value(200, value, accepted)
}

fn with_type(mut value: Value, kind: &str, version: &str) -> Value {
    value["kind"] = kind.into();
    value["apiVersion"] = version.into();
    value
}

fn legacy_versions(call: &Call) -> Value {
    let config = call.server.config();
    let address = config.advertise_address.map_or_else(|| "127.0.0.1".to_string(), |address| address.to_string());
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": format!("{address}:{}", config.advertise_port)},
        ],
    })
}

fn group_list(catalog: &Catalog) -> Value {
    let groups: Vec<Value> = catalog.groups().iter().filter(|group| !group.name.is_empty()).map(group_value).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_value(group: &Group) -> Value {
    let version = |version: &String| json!({"groupVersion": api_version(&group.name, version), "version": version});
    json!({
        "name": group.name,
        "versions": group.versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": group.versions.first().map(version),
    })
}

fn resource_list(call: &Call, group: &str, version: &str) -> Answer {
    let known = call.catalog.group(group).is_some_and(|known| known.versions.iter().any(|own| own == version));
    if !known {
        return Err(Status::no_such_path());
    }
    let mut resources: Vec<Value> = Vec::new();
    for served in call.catalog.in_version(group, version) {
        resources.push(resource_value(&served));
        for subresource in &served.version().subresources {
            let (group, version, kind) = &subresource.response;
            let mut value = json!({
                "name": format!("{}/{}", served.resource.plural, subresource.name),
                "singularName": "",
                "namespaced": served.resource.namespaced,
                "kind": kind,
                "verbs": subresource.verbs,
            });
            if !version.is_empty() {
                value["version"] = version.clone().into();
                if !group.is_empty() {
                    value["group"] = group.clone().into();
                }
            }
            resources.push(value);
        }
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    document(
        call,
        &json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": api_version(group, version),
            "resources": resources,
        }),
    )
}

fn resource_value(served: &Served) -> Value {
    let resource: &Resource = &served.resource;
    let mut value = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if resource.hooks.stored() {
        value["storageVersionHash"] = storage_version_hash(served).into();
    }
    value
}

/// Upstream's hash of group, storage version and kind, by which clients notice migrations.
fn storage_version_hash(served: &Served) -> String {
    let resource = &served.resource;
    let text = format!("{}/{}/{}", resource.group, served.storage_version().name, resource.kind);
    let digest = Sha256::digest(text.as_bytes());
    STANDARD.encode(&digest[..8])
}

/// The aggregated form, when the client asks for it.
fn aggregated(call: &Call, legacy: bool) -> Option<Answer> {
    let header = accept::header_text(&call.headers);
    let clause = accept::clauses(&header).into_iter().find(|clause| {
        let json = matches!(clause.media, accept::JSON | "application/*" | "*/*");
        json && (clause.param("as").is_none()
            || clause.param("g") == Some("apidiscovery.k8s.io") && clause.param("as") == Some("APIGroupDiscoveryList"))
    })?;
    clause.param("as")?;
    let version = match clause.param("v") {
        Some("v2") => "v2",
        Some("v2beta1") => "v2beta1",
        _ => return None,
    };
    let items: Vec<Value> = call
        .catalog
        .groups()
        .iter()
        .filter(|group| group.name.is_empty() == legacy)
        .map(|group| discovery_of(&call.catalog, group))
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    Some(tagged(call, &document, version))
}

fn tagged(call: &Call, document: &Value, version: &str) -> Answer {
    let bytes = document.to_string();
    let digest: String = Sha256::digest(bytes.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{digest}\"");
    let etag = HeaderValue::try_from(tag.as_str()).unwrap_or(HeaderValue::from_static(""));
    let matches = call.header("if-none-match").is_some_and(|known| known.split(',').any(|known| known.trim() == tag));
    let mut response = answer::bytes(200, accept::JSON, bytes);
    if matches {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = body::empty();
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    if let Ok(media) = HeaderValue::try_from(media) {
        response.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    response.headers_mut().insert(header::ETAG, etag);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(response)
}

fn discovery_of(catalog: &Catalog, group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = catalog
                .in_version(&group.name, version)
                .iter()
                .map(|served| discovered(group, version, served))
                .collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let mut metadata = json!({"creationTimestamp": null});
    if !group.name.is_empty() {
        metadata["name"] = group.name.clone().into();
    }
    json!({"metadata": metadata, "versions": versions})
}

fn discovered(group: &Group, version: &str, served: &Served) -> Value {
    let resource: &Resource = &served.resource;
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": kind(&group.name, version, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    let subresources: Vec<Value> = served
        .version()
        .subresources
        .iter()
        .map(|sub| {
            let (own_group, own_version, own_kind) = &sub.response;
            let own =
                if own_version.is_empty() { (group.name.as_str(), version) } else { (&**own_group, &**own_version) };
            json!({"subresource": sub.name, "responseKind": kind(own.0, own.1, own_kind), "verbs": sub.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}

/// A plain JSON document for those who take JSON.
pub(crate) fn json_document(call: &Call, value: &Value) -> Answer {
    let accepted: Accepted = call.negotiate(Offer { yaml: false, protobuf: false, views: false })?;
    debug_assert_eq!(accepted.format, Format::Json);
    answer::value(200, value, accepted)
}
