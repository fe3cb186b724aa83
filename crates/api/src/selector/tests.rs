use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn label_texts_parse_and_print_sorted() {
    for (text, printed) in [
        ("", ""),
        ("a", "a"),
        ("!a", "!a"),
        ("b=1,a==2", "a==2,b=1"),
        ("a in (y, x,)", "a in (,x,y)"),
        ("a notin (x)", "a notin (x)"),
        ("a>1,b<2", "a>1,b<2"),
        ("a!=", "a!="),
        ("in in (in)", "in in (in)"),
        ("x in ()", "x in ()"),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap().to_string(), printed, "{text}");
    }
}

#[test]
fn wrong_label_texts_get_upstreams_messages() {
    for (text, message) in [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a,", "found '', expected: identifier after ','"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn labels_match() {
    let labels = |key: &str| match key {
        "app" => Some("web"),
        "tier" => Some("3"),
        _ => None,
    };
    for (text, expected) in [
        ("app=web", true),
        ("app!=web", false),
        ("gone!=web", true),
        ("app in (db,web)", true),
        ("app notin (db)", true),
        ("gone", false),
        ("!gone", true),
        ("tier>2", true),
        ("tier<3", false),
        ("app>1", false),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap().matches(labels), expected, "{text}");
    }
    let object = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]});
    assert!(LabelSelector::from_object(&object).unwrap().matches(labels));
    assert!(!LabelSelector::from_object(&Value::Null).unwrap().matches(labels));
    let wrong = json!({"matchExpressions": [{"key": "tier", "operator": "Is"}]});
    assert_eq!(
        LabelSelector::from_object(&wrong).unwrap_err().to_string(),
        "\"Is\" is not a valid label selector operator"
    );
}

#[test]
fn field_selectors_parse_escape_and_match() {
    let selector = FieldSelector::parse(r"b!=x\,y,a==1").unwrap();
    assert_eq!(selector.to_string(), r"a=1,b!=x\,y");
    assert_eq!(selector.exact("a"), Some("1"));
    assert!(selector.matches(|field| (field == "a").then_some("1")));
    assert!(!selector.matches(|field| Some(if field == "a" { "1" } else { "x,y" })));
    for (text, message) in [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), message, "{text}");
    }
}

proptest! {
    #[test]
    fn printed_selectors_parse_to_themselves(text in "[a-c!=,() <>in]{0,24}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            let again = LabelSelector::parse(&selector.to_string());
            prop_assert_eq!(again.map(|again| again.to_string()), Ok(selector.to_string()));
        }
    }

    #[test]
    fn any_value_survives_a_field_selector(value in "\\PC{0,20}") {
        let text = format!("a={}", super::field::escape(&value));
        let selector = FieldSelector::parse(&text).unwrap();
        prop_assert_eq!(selector.exact("a"), Some(value.as_str()));
    }
}
