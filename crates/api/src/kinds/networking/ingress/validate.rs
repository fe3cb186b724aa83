//! Rules of Ingresses: hosts, paths, backends.

use std::net::IpAddr;

use crate::{
    kind::{Context, Part},
    validation::{
        field::{Errors, Field},
        names, net,
    },
};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(super) fn create(errors: &mut Errors, ingress: &Field<'_>) {
    spec(errors, &ingress.get("spec"));
    let annotations = &ingress.get("metadata.annotations");
    let (old_class, class) = (annotations.key(CLASS_ANNOTATION), ingress.get("spec.ingressClassName"));
    if old_class.exists() && class.exists() && old_class.str() != class.str() {
        errors.push(crate::status::FieldError::invalid(
            format!("annotations.{CLASS_ANNOTATION}"),
            old_class.str(),
            "must match `ingressClassName` when both are specified",
        ));
    }
}

pub(super) fn update(errors: &mut Errors, new: &Field<'_>, _old: &Field<'_>, cx: &Context<'_>) {
    if cx.part != Part::Status {
        return spec(errors, &new.get("spec"));
    }
    let points = &new.get("status.loadBalancer.ingress");
    for point in points.items() {
        let (ip, host) = (point.get("ip"), point.get("hostname"));
        if !ip.is_empty() {
            net::address(errors, &ip);
        }
        if !host.is_empty() {
            host.judge(errors, names::dns_subdomain(host.str()));
            not_an_address(errors, &host);
        }
    }
}

fn not_an_address(errors: &mut Errors, host: &Field<'_>) {
    if host.str().parse::<IpAddr>().is_ok() {
        errors.push(host.invalid("must be a DNS name, not an IP address"));
    }
}

fn host(errors: &mut Errors, host: &Field<'_>) {
    let judge = if host.str().contains('*') { names::wildcard_subdomain } else { names::dns_subdomain };
    host.judge(errors, judge(host.str()));
}

fn spec(errors: &mut Errors, spec: &Field<'_>) {
    let (default, rules) = (spec.get("defaultBackend"), &spec.get("rules"));
    if rules.is_empty() && !default.exists() {
        errors.push(spec.invalid_value(rules.value().clone(), "either `defaultBackend` or `rules` must be specified"));
    }
    if default.exists() {
        backend(errors, &default);
    }
    for rule in rules.items() {
        let name = rule.get("host");
        if !name.is_empty() {
            not_an_address(errors, &name);
            host(errors, &name);
        }
        let http = &rule.get("http");
        if http.exists() {
            let paths = &http.get("paths");
            if paths.is_empty() {
                errors.push(paths.required(""));
            }
            for item in paths.items() {
                path(errors, &item);
            }
        }
    }
    let tls = &spec.get("tls");
    for entry in tls.items() {
        let hosts = &entry.get("hosts");
        for name in hosts.items() {
            host(errors, &name);
        }
        let secret = entry.get("secretName");
        if !secret.is_empty() {
            secret.judge(errors, names::dns_subdomain(secret.str()));
        }
    }
    let class = spec.get("ingressClassName");
    if class.exists() {
        class.judge(errors, names::dns_subdomain(class.str()));
    }
}

/// Texts that a path of a strict type may not hold, and how it may not end.
const SEQUENCES: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const SUFFIXES: &[&str] = &["/..", "/."];

fn path(errors: &mut Errors, item: &Field<'_>) {
    let (kind, path) = (item.get("pathType"), item.get("path"));
    if !kind.exists() {
        errors.push(kind.required("pathType must be specified"));
        return;
    }
    if kind.one_of(errors, &["Exact", "ImplementationSpecific", "Prefix"]) {
        let strict = kind.str() != "ImplementationSpecific";
        if !path.str().starts_with('/') && (strict || !path.is_empty()) {
            errors.push(path.invalid("must be an absolute path"));
        }
        if strict {
            for sequence in SEQUENCES.iter().filter(|sequence| path.str().contains(**sequence)) {
                errors.push(path.invalid(format!("must not contain '{sequence}'")));
            }
            for suffix in SUFFIXES.iter().filter(|suffix| path.str().ends_with(**suffix)) {
                errors.push(path.invalid(format!("cannot end with '{suffix}'")));
            }
        }
    }
    backend(errors, &item.get("backend"));
}

fn backend(errors: &mut Errors, backend: &Field<'_>) {
    let (service, resource) = (&backend.get("service"), &backend.get("resource"));
    match (service.exists(), resource.exists()) {
        (true, true) => errors.push(backend.invalid_value("", "cannot set both resource and service backends")),
        (false, false) => errors.push(backend.invalid_value("", "resource or service backend is required")),
        (false, true) => {
            for member in ["kind", "name"] {
                let field = resource.get(member);
                match field.str() {
                    "" => errors.push(field.required("")),
                    text => field.judge(errors, names::path_segment(text, false)),
                }
            }
        }
        (true, false) => {
            let name = service.get("name");
            match name.str() {
                "" => errors.push(name.required("")),
                text => name.judge(errors, names::dns_label(text)),
            }
            let (port_name, number) = (service.get("port.name"), service.get("port.number"));
            match (port_name.str(), number.int().unwrap_or(0)) {
                ("", 0) => errors.push(backend.required("port name or number is required")),
                ("", port) => number.judge(errors, names::port_number(port)),
                (text, 0) => port_name.judge(errors, names::port_name(text)),
                _ => errors.push(backend.invalid_value("", "cannot set both port name & port number")),
            }
        }
    }
}
