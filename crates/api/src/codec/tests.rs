use serde_json::json;

use super::*;

fn deployment(text: &str, encoding: Encoding) -> Result<Decoded, String> {
    let of = Schema::builtin().find("io.k8s.api.apps.v1.Deployment").unwrap();
    decode(text.as_bytes(), encoding, of, "Deployment", "v1").map_err(|status| status.message)
}

#[test]
fn problems_come_in_the_order_of_the_document() {
    let decoded = deployment(
        r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"a":1,"replicas":1,"replicas":2,"template":{"x":{"y":1,"y":1},
            "spec":{"containers":[{"u":1,"name":"a","name":"b"}]}},"a":2}}"#,
        Encoding::Json,
    )
    .unwrap();
    assert_eq!(
        decoded.problems.join(", "),
        "unknown field \"spec.a\", duplicate field \"spec.replicas\", unknown field \"spec.template.x\", unknown field \
         \"spec.template.spec.containers[0].u\", duplicate field \"spec.template.spec.containers[0].name\""
    );
    assert_eq!(decoded.object["spec"], json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "b"}]}}}));
}

#[test]
fn wrong_values_get_the_oracles_words() {
    let body = |rest: &str| format!(r#"{{"apiVersion":"apps/v1","kind":"Deployment",{rest}}}"#);
    let unrecognized = "the object provided is unrecognized (must be of type Deployment): ";
    let unreadable = "Deployment in version \"v1\" cannot be handled as a Deployment: ";
    for (text, expected) in [
        (
            "{".into(),
            format!("{unrecognized}couldn't get version/kind; json parse error: unexpected end of JSON input ({{)"),
        ),
        (
            String::new(),
            format!(
                "{unrecognized}couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"
            ),
        ),
        (
            body(""),
            format!(
                "{unrecognized}couldn't get version/kind; json parse error: invalid character '}}' looking for beginning of object key string ({{\"apiVersion\":\"apps/v1\",\"kind\" ...)"
            ),
        ),
        (
            body(r#""spec":{"replicas":"a"}"#),
            format!(
                "{unreadable}json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
            ),
        ),
        (
            body(r#""spec":{"replicas":1.5}"#),
            format!(
                "{unreadable}json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
            ),
        ),
        (
            body(r#""spec":{"replicas":99999999999}"#),
            format!(
                "{unreadable}json: cannot unmarshal number 99999999999 into Go struct field DeploymentSpec.spec.replicas of type int32"
            ),
        ),
        (
            body(r#""spec":[]"#),
            format!(
                "{unreadable}json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"
            ),
        ),
        (
            body(r#""spec":{"template":{"spec":{"containers":{}}}}"#),
            format!(
                "{unreadable}json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"
            ),
        ),
        (
            body(r#""metadata":{"labels":{"a":1}}"#),
            format!(
                "{unreadable}json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"
            ),
        ),
        (
            body(r#""metadata":{"labels":[]}"#),
            format!(
                "{unreadable}json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string"
            ),
        ),
        (
            body(r#""spec":{"strategy":{"rollingUpdate":{"maxSurge":true}}}"#),
            format!(
                "{unreadable}json: cannot unmarshal bool into Go struct field RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type int32"
            ),
        ),
        (
            body(r#""spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}}"#),
            format!(
                "{unreadable}quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            ),
        ),
    ] {
        assert_eq!(deployment(&text, Encoding::Json), Err(expected), "{text}");
    }
}

#[test]
fn null_is_absent_and_values_become_canonical() {
    let decoded = deployment(
        r#"{"metadata":{"creationTimestamp":null,"labels":{"a":null}},
            "spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":1.5,"memory":"1024Mi"}}}]}}}}"#,
        Encoding::Json,
    )
    .unwrap()
    .object;
    assert_eq!(decoded["metadata"], json!({"labels": {"a": ""}}));
    let empty = deployment(
        r#"{"metadata":{"labels":{}},"spec":{"template":{"spec":{"containers":[],"volumes":[],"securityContext":{}}}}}"#,
        Encoding::Json,
    );
    assert_eq!(
        empty.unwrap().object,
        json!({"metadata": {}, "spec": {"template": {"spec": {"containers": [], "securityContext": {}}}}})
    );
    let limits = &decoded["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(limits, &json!({"cpu": "1500m", "memory": "1Gi"}));
}

#[test]
fn yaml_is_read_along_the_type() {
    let decoded =
        deployment("apiVersion: apps/v1\nkind: Deployment\nspec:\n  replicas: 010\n  foo: 1\n", Encoding::Yaml)
            .unwrap();
    assert_eq!(decoded.object["spec"], json!({"replicas": 8}));
    assert_eq!(decoded.problems, ["unknown field \"spec.foo\""]);
    let twice = deployment("spec:\n  replicas: 1\n  replicas: 2\n", Encoding::Yaml).unwrap();
    assert_eq!(twice.object["spec"], json!({"replicas": 2}));
    assert_eq!(twice.problems, ["duplicate field \"spec.replicas\""]);
    assert!(deployment("a: b: c\n", Encoding::Yaml).unwrap_err().contains("(must be of type Deployment): yaml: "));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_string()
        + &(1..12)
            .map(|n| format!("{}: &{} [{}]\n", l(n), l(n), vec![format!("*{}", l(n - 1)); 10].join(",")))
            .collect::<String>();
    assert!(deployment(&bomb, Encoding::Yaml).is_err());
}

fn l(n: u8) -> char {
    char::from(b'a' + n)
}

#[test]
fn custom_resources_are_pruned_and_defaulted() {
    let schema = Schema::from_openapi(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "n": {"type": "integer", "default": 3}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "maybe": {"type": "string", "nullable": true}, "text": {"type": "string"}}}}}))
    .unwrap();
    let text = br#"{"apiVersion":"a/v1","kind":"K","metadata":{"name":"x","foo":1},"z":1,"spec":{"b":1,"free":{"q":1},"maybe":null,"text":null}}"#;
    let mut decoded = decode(text, Encoding::Json, schema.root(), "K", "v1").unwrap();
    assert_eq!(decoded.problems, ["unknown field \"metadata.foo\"", "unknown field \"spec.b\"", "unknown field \"z\""]);
    drop_nulls(&mut decoded.object, schema.root());
    default(&mut decoded.object, schema.root());
    assert_eq!(decoded.object["spec"], json!({"free": {"q": 1}, "maybe": null, "n": 3}));
    assert_eq!(decoded.object["metadata"], json!({"name": "x"}));
}
