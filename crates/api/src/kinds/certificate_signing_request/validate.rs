//! Rules of certificate requests and of what their subresources may decide.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use x509_parser::{certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer};

use crate::{
    kind::{Context, Part},
    kinds::access::Members,
    validation::{
        field::{Errors, Field, same},
        names,
    },
};

/// Extended and plain key usages that a request may name.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const SECONDS_MIN: i64 = 600;

pub(super) fn request(errors: &mut Errors, request: &Field<'_>) {
    let spec = &request.get("spec");
    if let Err(why) = parse(spec.get("request").str()) {
        errors.push(spec.get("request").invalid(why));
    }
    let usages = &spec.get("usages");
    if usages.is_empty() {
        errors.push(usages.required(""));
    }
    for (index, usage) in usages.items().enumerate() {
        usage.one_of(errors, USAGES);
        if usages.list()[..index].contains(usage.value()) {
            errors.push(usage.duplicate());
        }
    }
    let signer = spec.get("signerName");
    if signer.str() == LEGACY_SIGNER {
        errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
    } else {
        signer_name(errors, &signer);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|number| number < SECONDS_MIN) {
        errors.push(seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
    }
    conditions(errors, &request.get("status.conditions"));
}

/// The PEM block of a PKCS #10 request, in base64.
fn parse(request: &str) -> Result<(), String> {
    let pem = BASE64_STANDARD.decode(request).map_err(|error| error.to_string())?;
    let block = match parse_x509_pem(&pem) {
        Ok((_, block)) if matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => block,
        _ => return Err("PEM block type must be CERTIFICATE REQUEST".into()),
    };
    X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    Ok(())
}

/// `domain/path`, the domain with a dot.
fn signer_name(errors: &mut Errors, signer: &Field<'_>) {
    if signer.is_empty() {
        errors.push(signer.required(""));
        return;
    }
    let parts: Vec<&str> = signer.str().split('/').collect();
    let [domain, path] = parts[..] else {
        errors.push(signer.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'"));
        return;
    };
    for (part, judge) in [(domain, names::dns_label as fn(&str) -> Vec<String>), (path, names::dns_subdomain)] {
        let wrong = part.split('.').map(|label| (label, judge(label))).find(|(_, messages)| !messages.is_empty());
        for (label, message) in wrong.into_iter().flat_map(|(label, list)| list.into_iter().map(move |m| (label, m))) {
            errors.push(signer.invalid_value(part, format!("validating label {label:?}: {message}")));
        }
    }
    if !domain.contains('.') {
        errors.push(signer.invalid_value(domain, "should be a domain with at least two segments separated by dots"));
    }
}

fn conditions(errors: &mut Errors, conditions: &Field<'_>) {
    let has = |kind: &str| conditions.list().iter().any(|condition| condition.text("type") == kind);
    for (index, condition) in conditions.items().enumerate() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if kind.is_empty() {
            errors.push(kind.required(""));
        }
        let known: &[&str] = match kind.str() {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        status.required_one_of(errors, known);
        if conditions.list()[..index].iter().any(|other| other["type"] == *kind.value()) {
            errors.push(kind.duplicate());
        }
    }
    if has("Approved") && has("Denied") {
        errors.push(conditions.invalid_value("Denied", "Approved and Denied conditions are mutually exclusive"));
    }
}

fn of_type<'a>(request: &Field<'a>, kind: &str) -> Vec<&'a Value> {
    let list = request.value()["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter(|condition| condition.text("type") == kind).collect()
}

pub(super) fn update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if !same(new.get("spec").value(), old.get("spec").value()) {
        request(errors, new);
    } else {
        conditions(errors, &new.get("status.conditions"));
    }
    let approving = cx.part == Part::Other("approval");
    let list = &new.get("status.conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        let (now, before) = (of_type(new, kind), of_type(old, kind));
        if now.len() < before.len() {
            errors.push(list.forbidden(format!("updates may not remove a condition of type {kind:?}")));
        } else if !approving && kind != "Failed" && now.len() > before.len() {
            errors.push(list.forbidden(format!("updates may not add a condition of type {kind:?}")));
        } else if !approving && kind != "Failed" && now != before {
            errors.push(list.forbidden(format!("updates may not modify a condition of type {kind:?}")));
        }
    }
    let (certificate, before) = (new.get("status.certificate"), old.get("status.certificate"));
    if certificate.str() != before.str() {
        if cx.part != Part::Status {
            errors.push(certificate.forbidden("updates may not set certificate content"));
        } else if !before.is_empty() {
            errors.push(certificate.forbidden("updates may not modify existing certificate content"));
        }
    }
}
