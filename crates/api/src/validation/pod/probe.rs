//! Rules of probes and of lifecycle handlers.

use crate::validation::{
    field::{Errors, Field},
    names, net,
};

/// A probe. Only a readiness probe may need more than one success, and it has no grace period of its own.
pub(super) fn probe(errors: &mut Errors, probe: &Field<'_>, readiness: bool, grace_s: Option<i64>) {
    handler(errors, probe, grace_s);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.get(name).not_negative(errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        errors.push(grace.invalid("must be greater than 0"));
    }
    let successes = probe.get("successThreshold");
    if readiness && grace.exists() {
        errors.push(grace.invalid("must not be set for readinessProbes"));
    } else if !readiness && successes.int() != Some(1) {
        errors.push(successes.invalid("must be 1"));
    }
}

/// Exactly one way to act: `exec`, `httpGet`, `tcpSocket`, `grpc` or `sleep`.
pub(super) fn handler(errors: &mut Errors, handler: &Field<'_>, grace_s: Option<i64>) {
    let mut given = false;
    for name in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = &handler.get(name);
        if !action.exists() {
            continue;
        }
        if given {
            errors.push(action.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        given = true;
        match name {
            "exec" => {
                if action.get("command").is_empty() {
                    errors.push(action.get("command").required(""));
                }
            }
            "httpGet" => http_get(errors, action),
            "sleep" => sleep(errors, action, grace_s),
            _ => net::port_or_name(errors, &action.get("port")),
        }
    }
    if !given {
        errors.push(handler.required("must specify a handler type"));
    }
}

fn http_get(errors: &mut Errors, get: &Field<'_>) {
    if get.get("path").is_empty() {
        errors.push(get.get("path").required(""));
    }
    net::port_or_name(errors, &get.get("port"));
    get.get("scheme").one_of(errors, &["HTTP", "HTTPS"]);
    let headers = &get.get("httpHeaders");
    for header in headers.items() {
        let name = header.get("name").str().to_string();
        errors
            .extend(names::http_header(&name).into_iter().map(|message| headers.invalid_value(name.as_str(), message)));
    }
}

fn sleep(errors: &mut Errors, sleep: &Field<'_>, grace_s: Option<i64>) {
    let seconds = sleep.get("seconds").int().unwrap_or(0);
    // A negative grace period counts as one second.
    if let Some(grace_s) = grace_s.map(|grace_s| if grace_s < 0 { 1 } else { grace_s })
        && !(0..=grace_s).contains(&seconds)
    {
        errors.push(sleep.invalid_value(
            seconds,
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"),
        ));
    }
}
