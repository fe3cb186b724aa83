//! Named formats: `format.dns1123Label().validate(name)` gives nothing, or what is wrong.

use super::{
    super::{EvalError, value::Val},
    Result,
};
use crate::validation::names;

const NAMES: [&str; 14] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
    "duration",
];

/// `format.NAME()` or `format.named('NAME')`.
pub(super) fn named<'a>(name: &str, args: &[Val<'a>]) -> Result<'a> {
    let find = |name: &str| NAMES.iter().find(|own| **own == name).map(|name| Val::Format(name));
    match (name, args) {
        ("named", [Val::Str(name)]) => Ok(Val::optional(find(name))),
        (name, []) => find(name).ok_or_else(EvalError::overload),
        _ => Err(EvalError::overload()),
    }
}

pub(super) fn validate<'a>(format: &str, text: &str) -> Val<'a> {
    let messages = match format {
        "dns1123Label" => names::dns_label(text),
        "dns1123Subdomain" => names::dns_subdomain(text),
        "dns1035Label" => names::dns_1035_label(text),
        "qualifiedName" => names::qualified_name(text),
        "dns1123LabelPrefix" => names::label_name(text, true),
        "dns1123SubdomainPrefix" => names::subdomain_name(text, true),
        "dns1035LabelPrefix" => names::label_1035_name(text, true),
        "labelValue" => names::label_value(text),
        other if crate::crd::is_format(other, text) => Vec::new(),
        other => vec![format!("does not match expected format {other}")],
    };
    if messages.is_empty() {
        return Val::Optional(None);
    }
    Val::optional(Some(Val::list(messages.into_iter().map(Val::string).collect())))
}
