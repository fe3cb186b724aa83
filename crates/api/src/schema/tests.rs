use serde_json::json;

use super::*;

#[test]
fn every_reference_of_the_table_resolves() {
    let schema = Schema::builtin();
    assert!(schema.named().count() > 1200);
    for of in schema.named().filter(|of| !of.get().proto_only) {
        for field in of.object().into_iter().flat_map(Object::members) {
            let untyped = matches!(of.at(field.of).shape(), Shape::Any { .. }) && of.at(field.of).get().name.is_empty();
            assert!(!untyped, "{} {}", of.get().name, field.name);
        }
    }
}

#[test]
fn a_pod_has_its_parts() {
    let pod = Schema::builtin().find("io.k8s.api.core.v1.Pod").unwrap();
    let spec = pod.member("spec").unwrap();
    let containers = spec.member("containers").unwrap();
    let Shape::List(list) = containers.shape() else { panic!("{containers:?}") };
    assert_eq!((list.kind, list.keys.as_slice()), (ListKind::Map, &["name".into()][..]));
    assert_eq!(spec.field("containers").unwrap().merge_key, "name");
    let port = containers.item().unwrap().member("ports").unwrap().item().unwrap();
    assert_eq!(port.field("protocol").unwrap().default.as_deref(), Some(&json!("TCP")));
    assert!(matches!(
        pod.member("metadata").unwrap().member("creationTimestamp").unwrap().shape(),
        Shape::Scalar(Scalar::Time)
    ));
    assert!(spec.member("nope").is_none());
}

#[test]
fn a_definition_makes_the_same_model() {
    let schema = Schema::from_openapi(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "n": {"type": "integer", "default": 3},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                     "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}}}))
    .unwrap();
    let root = schema.root();
    let spec = root.member("spec").unwrap();
    assert_eq!(spec.field("n").unwrap().default.as_deref(), Some(&json!(3)));
    assert!(spec.member("any").unwrap().member("whatever").is_some());
    assert!(spec.member("whatever").is_none());
    assert!(matches!(spec.member("labels").unwrap().shape(), Shape::Map(_)));
    assert_eq!(root.member("metadata").unwrap().get().name, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    assert!(Schema::from_openapi(&json!({"type": "object", "properties": {"a": {"type": "null"}}})).is_err());
}
