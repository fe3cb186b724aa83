use proptest::prelude::*;
use serde_json::json;

use super::{
    messages::{Card, Field, Kind, Other},
    *,
};

/// The bytes between the envelope's head and its empty content encoding and type.
fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend([0x0a, (api_version.len() + kind.len() + 4) as u8, 0x0a, api_version.len() as u8]);
    out.extend(api_version.as_bytes());
    out.extend([0x12, kind.len() as u8]);
    out.extend(kind.as_bytes());
    out.extend([0x12, raw.len() as u8]);
    out.extend(raw);
    out.extend([0x1a, 0, 0x22, 0]);
    out
}

#[test]
fn objects_have_the_bytes_that_go_reads() {
    let cases: &[(Value, &str, &str, &[u8])] = &[
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}}),
            "v1",
            "ConfigMap",
            b"\x12\x06\x0a\x01k\x12\x01v\x0a\x03\x0a\x01a",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Secret", "data": {"k": "AAE="}, "immutable": false}),
            "v1",
            "Secret",
            b"\x12\x07\x0a\x01k\x12\x02\x00\x01\x28\x00",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": -1, "targetPort": "x"}]}}),
            "v1",
            "Service",
            b"\x12\x16\x0a\x14\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x22\x07\x08\x01\x10\x00\x1a\x01x",
        ),
        (json!({"apiVersion": "apps/v1", "kind": "Scale", "status": null}), "apps/v1", "Scale", b""),
    ];
    for (object, api_version, kind, raw) in &cases[..3] {
        let expected = enveloped(api_version, kind, raw);
        assert_eq!(encode(object).unwrap(), expected, "{object}");
        assert_eq!(decode(&expected, "", "").unwrap(), *object);
    }
    let (object, api_version, kind, _) = &cases[3];
    let error = Error::NoMessage { api_version: api_version.to_string(), kind: kind.to_string() };
    assert_eq!(encode(object), Err(error), "Scale is a kind of autoscaling");
}

#[test]
fn zeros_that_go_writes_for_nothing_are_dropped_and_others_kept() {
    // metadata with an empty name; immutable, a pointer, false.
    let bytes = enveloped("v1", "ConfigMap", b"\x0a\x02\x0a\x00\x20\x00");
    let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "immutable": false});
    assert_eq!(decode(&bytes, "", "").unwrap(), expected);
}

#[test]
fn inline_members_stand_in_their_parent() {
    let volume = json!({"name": "v", "emptyDir": {}});
    let probe = json!({"httpGet": {"port": 80}, "periodSeconds": 3});
    let container = json!({"name": "c", "livenessProbe": probe, "resources": {"limits": {"cpu": "1500m"}}});
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"volumes": [volume], "containers": [container]},
    });
    assert_eq!(decode(&encode(&pod).unwrap(), "", "").unwrap(), pod);
}

#[test]
fn definitions_of_custom_resources_keep_their_schemas() {
    let schema = json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "a": {"type": "integer", "minimum": 0, "maximum": 1.5, "default": {"any": [1, "thing"]}, "enum": [1, null]},
            "b": {"$ref": "#/x", "additionalProperties": {"type": "string"}, "items": [{"type": "string"}, {}]},
            "c": {"additionalProperties": false, "dependencies": {"d": ["e"], "f": {"type": "string"}}},
            "g": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
        },
    });
    let version = json!({"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema}});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"group": "g", "names": {"plural": "x", "kind": "X"}, "scope": "Cluster", "versions": [version]},
    });
    assert_eq!(decode(&encode(&crd).unwrap(), "", "").unwrap(), crd);
}

#[test]
fn options_and_answers_of_every_group_have_messages() {
    for (api_version, kind) in [
        ("v1", "Status"),
        ("v1", "DeleteOptions"),
        ("apps/v1", "DeleteOptions"),
        ("policy/v1", "Eviction"),
        ("v1", "PodList"),
        ("meta.k8s.io/v1", "PartialObjectMetadataList"),
        ("v1", "APIResourceList"),
    ] {
        assert!(supports(api_version, kind), "{api_version} {kind}");
    }
    assert!(!supports("meta.k8s.io/v1", "Table"));
    assert!(!supports("stable.example.com/v1", "CronTab"));
    for resource in crate::kinds::all() {
        for version in &resource.versions {
            let api_version = format!("{}/{}", resource.group, version.name);
            assert!(supports(api_version.trim_start_matches('/'), &resource.kind), "{api_version} {}", resource.kind);
        }
    }
}

#[test]
fn every_field_of_every_message_that_json_has_is_known() {
    for of in schema().named().filter(|of| of.get().message && !of.get().proto_only) {
        let index = Table::get().find(&of.get().name).unwrap();
        let message = Table::get().message(index);
        let wanted = of.object().into_iter().flat_map(|object| &object.fields).filter(|field| field.pb.is_some());
        for field in wanted {
            let known = message.fields.iter().any(|own| own.name == field.name);
            assert!(known, "{} {}", of.get().name, field.name);
        }
    }
}

#[test]
fn bad_bytes_are_errors() {
    assert_eq!(decode(b"{}", "v1", "Pod"), Err(Error::NoMagic));
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}});
    let bytes = encode(&pod).unwrap();
    for len in MAGIC.len()..bytes.len() {
        // Some cuts fall between fields; none may panic.
        let _ = decode(&bytes[..len], "v1", "Pod");
    }
    let mut deep = json!({"type": "object"});
    for _ in 0..100 {
        deep = json!({"not": deep});
    }
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": deep}});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"group": "g", "names": {"plural": "x", "kind": "X"}, "scope": "Cluster", "versions": [version]},
    });
    let error = decode(&encode(&crd).unwrap(), "", "").unwrap_err();
    assert_eq!(error, Error::Malformed("messages are nested too deep"));
    let wrong = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": "none"}});
    assert_eq!(encode(&wrong).unwrap_err().to_string(), "field containers has no protobuf form: it should be a list");
}

#[test]
fn a_watch_frame_begins_with_its_length() {
    let frame = watch_frame("ADDED", b"k8s\0...");
    assert_eq!(frame, b"\0\0\0\x12\x0a\x05ADDED\x12\x09\x0a\x07k8s\0...");
}

/// A source of choices that a seed decides.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn any_message(index: usize, dice: &mut Dice, depth: usize) -> Map<String, Value> {
    let mut members = Map::new();
    for field in &Table::get().message(index).fields {
        if field.inline {
            if let Kind::Message(index) = field.kind {
                members.extend(any_message(index, dice, depth));
            }
            continue;
        }
        if dice.roll(3) == 0 || (depth == 0 && matches!(field.kind, Kind::Message(_) | Kind::SchemaOr(..))) {
            continue;
        }
        let value = match field.card {
            Card::One => any_value(field, dice, depth),
            Card::Repeated => (0..=dice.roll(2)).map(|_| any_value(field, dice, depth)).collect(),
            Card::Map => (0..=dice.roll(2))
                .map(|at| (format!("k{at}"), any_value(field, dice, depth)))
                .collect::<Map<_, _>>()
                .into(),
        };
        members.insert(field.name.to_string(), value);
    }
    members
}

fn any_value(field: &Field, dice: &mut Dice, depth: usize) -> Value {
    let zero = u64::from(!field.keep_zero && field.card == Card::One);
    let text = |dice: &mut Dice| "x".repeat((zero + dice.roll(5)) as usize);
    match field.kind {
        Kind::String => text(dice).into(),
        Kind::Bytes => ["", "AA==", "/+8="][(zero + dice.roll(2)) as usize].into(),
        Kind::Bool => (zero == 1 || dice.roll(2) == 1).into(),
        Kind::Int32 => (zero as i64 * 2 + dice.roll(1000) as i64).into(),
        Kind::Int64 => (-(zero as i64) - (dice.roll(1 << 30) << 20) as i64).into(),
        Kind::Double => (zero as f64 + dice.roll(9) as f64 + 0.25).into(),
        Kind::Message(index) => any_message(index, dice, depth - 1).into(),
        Kind::Time => "2026-11-21T10:00:00Z".into(),
        Kind::MicroTime => "2026-11-21T10:00:00.000001Z".into(),
        Kind::Quantity => format!("{}m", dice.roll(5)).into(),
        Kind::IntOrString if dice.roll(2) == 0 => "25%".into(),
        Kind::IntOrString => dice.roll(9).into(),
        Kind::Json => json!({"any": [dice.roll(9), null, "thing"]}),
        Kind::Texts => json!(["a", ""]),
        Kind::SchemaOr(Other::Bool, _) if dice.roll(2) == 0 => (dice.roll(2) == 0).into(),
        Kind::SchemaOr(Other::Texts, _) if dice.roll(2) == 0 => json!(["a"]),
        Kind::SchemaOr(Other::Schemas, schema) if dice.roll(2) == 0 => json!([any_message(schema, dice, depth - 1)]),
        Kind::SchemaOr(_, schema) => any_message(schema, dice, depth - 1).into(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_comes_back_as_it_was(seed: u64) {
        let (table, mut dice) = (Table::get(), Dice(seed));
        for name in table.names() {
            let index = table.find(name).unwrap();
            let members = any_message(index, &mut dice, 3);
            let mut out = Writer::new(&[]);
            encode::message(table, index, &members, &mut out).unwrap();
            let back = decode::message(table, index, &out.finish(), MAX_DEPTH).unwrap();
            prop_assert_eq!(back, members, "{}", name);
        }
    }
}
