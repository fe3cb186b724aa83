//! Secret: bytes by key, with required keys for the well-known types.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::config_map::{DATA_BYTES_MAX, decoded_length, frozen};
use crate::{
    kind::Context,
    kinds::{
        access::{Members, keep},
        builtin::Kind,
        cells,
    },
    validation::{
        field::{Errors, Field},
        names,
    },
};

pub(crate) static KIND: Kind = Kind {
    default: |secret| {
        merge_text(secret);
        secret.fill("type", "Opaque");
    },
    update: |new, old, _| {
        if new.text("type").is_empty() {
            keep(new, old, "type");
        }
    },
    validate: |errors, secret, _| validate(errors, secret),
    validate_update: Some(validate_update),
    fields: &["type"],
    row: Some(|secret, now| {
        let keys = secret["data"].as_object().map_or(0, |data| data.len());
        vec![cells::name(secret), secret.text("type").into(), keys.into(), cells::age(secret, now)]
    }),
    ..Kind::PLAIN
};

/// `stringData` is written only: its texts become data.
fn merge_text(secret: &mut Value) {
    if let Some(Value::Object(texts)) = secret.drop_member("stringData") {
        for (key, text) in texts {
            let encoded = BASE64_STANDARD.encode(text.as_str().unwrap_or_default());
            secret.object("data").insert(key, encoded.into());
        }
    }
}

fn validate(errors: &mut Errors, secret: &Field<'_>) {
    let data = &secret.get("data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        errors.extend(names::config_key(key).into_iter().map(|message| value.invalid_value(key, message)));
        bytes += decoded_length(value.value());
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(data.too_long(DATA_BYTES_MAX));
    }
    let require = |errors: &mut Errors, key: &str| {
        if !data.key(key).exists() {
            errors.push(data.key(key).required(""));
        }
    };
    match secret.get("type").str() {
        "kubernetes.io/service-account-token" => {
            let annotations = &secret.get("metadata.annotations");
            let name = annotations.key("kubernetes.io/service-account.name");
            if name.str().is_empty() {
                errors.push(name.required(""));
            }
        }
        "kubernetes.io/dockercfg" => json_object(errors, data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_object(errors, data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !data.key("username").exists() && !data.key("password").exists() => {
            require(errors, "username");
            require(errors, "password");
        }
        "kubernetes.io/ssh-auth" if data.key("ssh-privatekey").is_empty() => {
            errors.push(data.key("ssh-privatekey").required(""));
        }
        "kubernetes.io/tls" => {
            require(errors, "tls.crt");
            require(errors, "tls.key");
        }
        _ => {}
    }
}

fn json_object(errors: &mut Errors, data: &Field<'_>, key: &str) {
    let value = data.key(key);
    if !value.exists() {
        errors.push(value.required(""));
        return;
    }
    let bytes = BASE64_STANDARD.decode(value.str()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        let first = bytes.first().copied().map(char::from).unwrap_or_default();
        let starts = first.is_ascii_digit() || matches!(first, '{' | '[' | '"' | '-' | 't' | 'f' | 'n');
        let why = match bytes.is_empty() {
            true => "unexpected end of JSON input".to_string(),
            false if starts => error.to_string(),
            false => format!("invalid character {first:?} looking for beginning of value"),
        };
        errors.push(value.invalid_value("<secret contents redacted>", why));
    }
}

fn validate_update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, _cx: &Context<'_>) {
    new.get("type").immutable(errors, &old.get("type"));
    if old.get("immutable").is_true() {
        frozen(errors, new, old, &["data"]);
    }
    validate(errors, new);
}
