use std::collections::BTreeSet;

use super::*;
use crate::{kind::Subresource, kinds, protobuf::wire::Reader};

fn builtin() -> Vec<Published<'static>> {
    let versions = |resource: &'static std::sync::Arc<Resource>| {
        resource.versions.iter().map(move |version| Published { resource, version, schema: None })
    };
    kinds::all().iter().flat_map(versions).collect()
}

fn document(group: &str, version: &str) -> Value {
    let own = |published: &Published<'_>| published.resource.group == group && published.version.name == version;
    let published: Vec<_> = builtin().into_iter().filter(own).collect();
    assert!(!published.is_empty(), "{group} {version}");
    v3(group, version, &published)
}

/// All references in a document.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(members) => members.iter().for_each(|(name, value)| match value.as_str() {
            Some(reference) if name == "$ref" => _ = found.insert(reference),
            _ => references(value, found),
        }),
        _ => {}
    }
}

fn check_references(document: &Value) {
    let mut found = BTreeSet::new();
    references(document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference} is dangling");
    }
}

#[test]
fn every_group_version_has_a_whole_document_that_describes_its_kinds() {
    let groups: BTreeSet<(String, String)> =
        builtin().iter().map(|published| (published.resource.group.clone(), published.version.name.clone())).collect();
    for (group, version) in &groups {
        let document = document(group, version);
        check_references(&document);
        for published in builtin() {
            if published.resource.group != *group || published.version.name != *version {
                continue;
            }
            let schema = &document["components"]["schemas"][&published.version.definition];
            let kind = json!({"group": group, "kind": published.resource.kind, "version": version});
            assert!(schema["x-kubernetes-group-version-kind"].as_array().unwrap().contains(&kind));
            let described = |schema: &Value| schema["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described(schema), "{} has no description", published.version.definition);
            let silent = schema["properties"]
                .as_object()
                .unwrap()
                .iter()
                .filter(|(name, schema)| *name != "metadata" && !described(schema));
            assert_eq!(silent.map(|(name, _)| name).collect::<Vec<_>>(), [""; 0], "{}", published.version.definition);
        }
    }
}

#[test]
fn patches_tell_what_clients_look_for() {
    let document = document("apps", "v1");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let spec = &schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert_eq!(spec["allOf"], json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}]));
}

#[test]
fn operations_have_the_ids_that_clients_are_generated_from() {
    let document = document("", "v1");
    let cases = [
        ("/api/v1/", "get", "getCoreV1APIResources"),
        ("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces"),
        ("/api/v1/nodes", "get", "listCoreV1Node"),
        ("/api/v1/namespaces/{namespace}/pods", "post", "createCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods", "delete", "deleteCoreV1CollectionNamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods/{name}", "put", "replaceCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/log", "get", "readCoreV1NamespacedPodLog"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/exec", "post", "connectCoreV1PostNamespacedPodExec"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/eviction", "post", "createCoreV1NamespacedPodEviction"),
        ("/api/v1/nodes/{name}/proxy/{path}", "patch", "connectCoreV1PatchNodeProxyWithPath"),
    ];
    for (path, method, id) in cases {
        assert_eq!(document["paths"][path][method]["operationId"], id, "{method} {path}");
    }
    let exec = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"];
    assert_eq!(exec["x-kubernetes-group-version-kind"]["kind"], "PodExecOptions");
}

fn crontabs() -> (Resource, Value) {
    let any = kinds::find("apps", "deployments").unwrap();
    let scale = ("autoscaling".to_string(), "v1".to_string(), "Scale".to_string());
    let subresource = Subresource { name: "scale".into(), response: scale, verbs: vec!["get".into()] };
    let version = Version {
        name: "v1".into(),
        storage: true,
        definition: String::new(),
        subresources: vec![subresource],
        deprecation_warning: None,
    };
    let resource = Resource {
        group: "stable.example.com".into(),
        plural: "crontabs".into(),
        singular: "crontab".into(),
        kind: "CronTab".into(),
        list_kind: "CronTabList".into(),
        versions: vec![version],
        ..Resource::clone(any)
    };
    let schema = json!({
        "type": "object",
        "description": "Runs things.",
        "properties": {
            "spec": {"type": "object", "properties": {"when": {"type": "string", "nullable": true, "default": "now"}}},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        },
    });
    (resource, schema)
}

#[test]
fn custom_resources_are_published_like_others() {
    let (resource, schema) = crontabs();
    let published = [Published { resource: &resource, version: &resource.versions[0], schema: Some(&schema) }];
    let document = v3("stable.example.com", "v1", &published);
    check_references(&document);
    let found = &document["components"]["schemas"]["com.example.stable.v1.CronTab"];
    assert_eq!(found["description"], "Runs things.");
    assert_eq!(found["properties"]["spec"], schema["properties"]["spec"]);
    assert_eq!(
        found["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert_eq!(found["x-kubernetes-group-version-kind"][0]["kind"], "CronTab");
    let item = &document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"];
    assert_eq!(item["patch"]["operationId"], "patchStableExampleComV1NamespacedCronTab");
    assert!(item["patch"]["requestBody"]["content"]["application/strategic-merge-patch+json"].is_null());
    let document = v2(&published);
    check_references(&document);
    let found = &document["definitions"]["com.example.stable.v1.CronTab"]["properties"];
    assert_eq!(found["spec"]["properties"]["when"], json!({}), "version 2 cannot say that null is a value");
    assert_eq!(found["port"], json!({"x-kubernetes-int-or-string": true}));
}

#[test]
fn version_2_has_everything_in_one_document() {
    let document = v2(&builtin());
    check_references(&document);
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["parameters"][0]["in"], "body");
    assert_eq!(
        patch["parameters"][1],
        json!({
            "name": "dryRun",
            "in": "query",
            "description": "With the value All nothing is persisted.",
            "type": "string",
            "uniqueItems": true,
        })
    );
    assert_eq!(patch["consumes"].as_array().unwrap().len(), 4);
    assert_eq!(patch["responses"]["200"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    let bytes = v2_protobuf(&document);
    let mut reader = Reader::new(&bytes);
    let mut seen = BTreeSet::new();
    while let Some((number, wire)) = reader.field().unwrap() {
        if number == 9 {
            let (mut definitions, mut count) = (Reader::new(wire.bytes().unwrap()), 0);
            while definitions.field().unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, document["definitions"].as_object().unwrap().len());
        }
        seen.insert(number);
    }
    assert_eq!(seen, BTreeSet::from([1, 2, 8, 9, 12, 13]));
}

#[test]
fn the_index_names_documents_by_their_hash() {
    let paths = [v3_path("", "v1"), v3_path("apps", "v1")];
    let index = v3_index([(paths[0].as_str(), "AB"), (paths[1].as_str(), "CD")]);
    assert_eq!(
        index,
        json!({"paths": {
            "api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=AB"},
            "apis/apps/v1": {"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=CD"},
        }})
    );
}
