//! Rules of device claims, classes and slices.

use crate::{
    kinds::access::Members,
    validation::{
        field::{Errors, Field},
        names,
    },
};

const NOT_A_REQUEST: &str = "must be the name of a request in the claim or the name of a request and a subrequest \
                             separated by '/'";

/// `devices` of a claim: requests, and constraints between them.
pub(super) fn devices(errors: &mut Errors, devices: &Field<'_>) {
    let requests = &devices.get("requests");
    let mut known: Vec<String> = Vec::new();
    for (index, request) in requests.items().enumerate() {
        let name = request.get("name");
        request_name(errors, &name);
        if !name.is_empty() && requests.list()[..index].iter().any(|other| other.text("name") == name.str()) {
            errors.push(crate::status::FieldError::duplicate(request.path(), name.str()));
        }
        known.push(name.str().to_string());
        let (exact, alternatives) = (&request.get("exactly"), &request.get("firstAvailable"));
        match (exact.exists(), !alternatives.is_empty()) {
            (false, false) => {
                errors.push(request.required("exactly one of `exactly` or `firstAvailable` is required"));
            }
            (true, true) => errors.push(
                request
                    .invalid("exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"),
            ),
            (true, false) => exact_request(errors, exact),
            (false, true) => {
                for alternative in alternatives.items() {
                    request_name(errors, &alternative.get("name"));
                    known.push(format!("{}/{}", name.str(), alternative.get("name").str()));
                    exact_request(errors, &alternative);
                }
            }
        }
    }
    let constraints = &devices.get("constraints");
    for constraint in constraints.items() {
        let refers = &constraint.get("requests");
        for request in refers.items() {
            for segment in request.str().split('/') {
                errors.extend(names::dns_label(segment).into_iter().map(|message| request.invalid(message)));
            }
            if !known.iter().any(|name| name == request.str()) {
                errors.push(request.invalid(NOT_A_REQUEST));
            }
        }
        if !constraint.get("matchAttribute").exists() && !constraint.get("distinctAttribute").exists() {
            errors.push(constraint.required(
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            ));
        }
    }
}

fn request_name(errors: &mut Errors, name: &Field<'_>) {
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        name.judge(errors, names::dns_label(name.str()));
    }
}

fn exact_request(errors: &mut Errors, request: &Field<'_>) {
    let class = request.get("deviceClassName");
    match class.str() {
        "" => errors.push(class.required("")),
        text => class.judge(errors, names::dns_subdomain(text)),
    }
    selectors(errors, &request.get("selectors"));
    let (mode, count) = (request.get("allocationMode"), request.get("count"));
    match mode.str() {
        "All" if count.int().unwrap_or(0) != 0 => {
            errors.push(count.invalid("must not be specified when allocationMode is 'All'"));
        }
        "ExactCount" if count.int().unwrap_or(0) <= 0 => errors.push(count.invalid("must be greater than zero")),
        "All" | "ExactCount" => {}
        _ => errors.push(mode.not_supported(&["All", "ExactCount"])),
    }
    let tolerations = &request.get("tolerations");
    for toleration in tolerations.items() {
        let key = toleration.get("key");
        if !key.is_empty() {
            key.judge(errors, names::qualified_name(key.str()));
        }
        toleration.get("operator").one_of(errors, &["Equal", "Exists"]);
        let effect = toleration.get("effect");
        if !effect.is_empty() {
            effect.one_of(errors, &["NoExecute", "NoSchedule", "None"]);
        }
    }
}

/// CEL selectors: given, and parsing.
pub(super) fn selectors(errors: &mut Errors, selectors: &Field<'_>) {
    for selector in selectors.items() {
        let cel = &selector.get("cel");
        if !cel.exists() {
            errors.push(cel.required(""));
            continue;
        }
        let expression = cel.get("expression");
        if expression.is_empty() {
            errors.push(expression.required(""));
        } else if let Err(problem) = cel::Program::compile(expression.str()) {
            errors.push(expression.invalid(format!("compilation failed: {problem}")));
        }
    }
}

/// What a driver publishes: whose devices they are and where.
pub(super) fn slice(errors: &mut Errors, spec: &Field<'_>) {
    let (driver, pool) = (spec.get("driver"), spec.get("pool.name"));
    for field in [driver, pool] {
        match field.str() {
            "" => errors.push(field.required("")),
            text => {
                for part in text.split('/') {
                    errors.extend(names::dns_subdomain(part).into_iter().map(|message| field.invalid(message)));
                }
            }
        }
    }
    let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    let given = places.iter().filter(|name| spec.get(name).exists() && spec.get(name).value() != false).count();
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given {
        0 => errors.push(spec.required(ONE)),
        1 => {}
        _ => errors.push(spec.invalid(format!("{ONE}, but multiple fields are set"))),
    }
    let devices = &spec.get("devices");
    for (index, device) in devices.items().enumerate() {
        let name = device.get("name");
        request_name(errors, &name);
        if devices.list()[..index].iter().any(|other| other.text("name") == name.str()) {
            errors.push(crate::status::FieldError::duplicate(device.path(), name.str()));
        }
        let taints = &device.get("taints");
        for taint in taints.items() {
            taint.get("effect").required_one_of(errors, &["NoExecute", "NoSchedule", "None"]);
        }
    }
}
