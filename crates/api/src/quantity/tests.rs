use proptest::prelude::*;

use super::*;

#[test]
fn canonical_forms_are_upstreams() {
    for (given, expected) in [
        ("0", "0"),
        ("0Ki", "0"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("1.500", "1.500"),
        ("0.500", "500m"),
        ("1Gi", "1Gi"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("2000Ki", "2000Ki"),
        ("0.5Ki", "512"),
        ("100Mi", "100Mi"),
        ("1e3", "1e3"),
        ("1e4", "10e3"),
        ("12E6", "12E6"),
        ("1000", "1k"),
        ("1000k", "1M"),
        ("1500", "1500"),
        ("123456789", "123456789"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("-5", "-5"),
        ("1.1Ki", "1126400m"),
        ("16Ei", "9223372036854775807"),
        ("0.1Mi", "104857600m"),
        ("1E", "1E"),
        ("3.0", "3"),
        (".5", "500m"),
        ("5.", "5."),
        ("001", "001"),
    ] {
        assert_eq!(Quantity::canonicalize(given).as_deref(), Ok(expected), "{given}");
    }
}

#[test]
fn bad_texts_are_refused_with_upstreams_words() {
    for (given, expected) in [
        ("", ParseError::Format),
        ("1.1.1", ParseError::Format),
        ("1x", ParseError::Format),
        ("1kk", ParseError::Suffix),
        ("abc", ParseError::Format),
        ("1 Gi", ParseError::Format),
        ("1e", ParseError::Suffix),
        ("Gi", ParseError::Number),
    ] {
        assert_eq!(given.parse::<Quantity>().err(), Some(expected), "{given}");
    }
}

#[test]
fn values_round_away_from_zero() {
    let q = |text: &str| text.parse::<Quantity>().unwrap();
    assert_eq!(q("1.1").value(), 2);
    assert_eq!(q("-1.1").value(), -2);
    assert_eq!(q("1m").value(), 1);
    assert_eq!(q("100u").milli_value(), 1);
    assert_eq!(q("1e30").value(), i64::MAX);
    assert_eq!(q("1000m"), q("1"));
    assert!(q("1Gi") > q("1G") && q("-1e40") < q("1n"));
    let mut sum = q("1Gi");
    sum.add(&q("512Mi"));
    assert_eq!(sum.to_string(), "1536Mi");
    sum.sub(&q("1536Mi"));
    assert_eq!(sum.to_string(), "0");
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same_amount(mantissa in -1_000_000_000_000i64..1_000_000_000_000, unit in prop::sample::select(
        vec!["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "e3", "e5", "E-2"])) {
        let quantity: Quantity = format!("{mantissa}{unit}").parse().unwrap();
        let printed = quantity.to_string();
        let again: Quantity = printed.parse().unwrap();
        prop_assert_eq!(quantity, again);
        prop_assert_eq!(again.to_string(), printed);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-+0-9.eEinumkKMGTP]{0,60}") {
        if let Ok(quantity) = text.parse::<Quantity>() {
            let _ = (quantity.to_string(), quantity.value(), quantity.milli_value(), quantity.cmp(&Quantity::default()));
        }
    }
}
