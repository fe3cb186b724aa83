//! Rules of resource amounts: names, signs, requests within limits.

use serde_json::Value;

use crate::{
    quantity::Quantity,
    validation::{
        field::{Errors, Field},
        names,
    },
};

/// The fixed cost of a pod's sandbox. Upstream reports it under `limits`.
pub(crate) fn overhead(errors: &mut Errors, overhead: &Field<'_>, path: &str) {
    let limits = Field::at(overhead.value(), path);
    for (name, value) in limits.entries() {
        amount(errors, name, &value);
    }
}

/// The quantity there; none when absent or no quantity.
pub fn parse(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Named by Kubernetes: without a domain, or under its own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Native resources but hugepages may be promised more often than they exist.
fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_hugepages(name)
}

/// A name that stands without a domain.
pub(crate) fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage" | "storage" | "pods" | "services") || is_hugepages(name)
}

/// Devices and such: `example.com/gpu`.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// An amount that is not negative, and whole where a fraction has no meaning.
pub(crate) fn amount(errors: &mut Errors, resource: &str, amount: &Field<'_>) {
    let Some(quantity) = parse(amount.value()) else { return };
    if quantity.sign() < 0 {
        errors.push(amount.invalid_value(quantity.to_string(), "must be greater than or equal to 0"));
    }
    let whole = resource == "pods" || resource == "services" || is_extended(resource);
    if whole && quantity.milli_value() % 1000 != 0 {
        errors.push(amount.invalid_value(quantity.to_string(), "must be an integer"));
    }
}

/// Names that have no slash must be known.
fn container_resource_name(errors: &mut Errors, name: &str, at: &Field<'_>) {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        errors.extend(messages.into_iter().map(|message| at.invalid_value(name, message)));
        return;
    }
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_hugepages(name);
    if !name.contains('/') {
        if !known {
            if !is_standard(name) {
                errors.push(at.invalid_value(name, "must be a standard resource type or fully qualified"));
            }
            errors.push(at.invalid_value(name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(at.invalid_value(name, "doesn't follow extended resource name standard"));
    }
}

/// `resources` of one container; `claims` are the pod's resource claims.
pub(super) fn of_container(errors: &mut Errors, resources: &Field<'_>, claims: &[&str]) {
    if resources.is_empty() {
        return;
    }
    requirements(errors, resources);
    let list = &resources.get("claims");
    for (index, claim) in list.items().enumerate() {
        let name = claim.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if !claims.contains(&name.str()) {
            let mut error = crate::status::FieldError::not_found(claim.path(), name.str());
            error.detail = "must be one of the names in pod.spec.resourceClaims".into();
            if claims.is_empty() {
                error.detail += " which is empty";
            }
            errors.push(error);
        }
        if list.list()[..index].contains(claim.value()) {
            errors.push(claim.duplicate());
        }
    }
}

fn requirements(errors: &mut Errors, resources: &Field<'_>) {
    let (limits, requests) = (&resources.get("limits"), &resources.get("requests"));
    let (mut compute, mut hugepages) = (false, false);
    for list in [limits, requests] {
        for (name, value) in list.entries() {
            container_resource_name(errors, name, &value);
            amount(errors, name, &value);
            compute |= matches!(name, "cpu" | "memory");
            hugepages |= is_hugepages(name);
            if is_hugepages(name) {
                whole_pages(errors, name, &value);
            }
        }
    }
    for (name, value) in requests.entries() {
        let Some(request) = parse(value.value()) else { continue };
        match limits.key(name).value() {
            Value::Null if !may_overcommit(name) => {
                errors.push(limits.required("Limit must be set for non overcommitable resources"));
            }
            Value::Null => {}
            limit => {
                let Some(limit) = parse(limit) else { continue };
                if request != limit && !may_overcommit(name) {
                    errors.push(
                        requests
                            .invalid_value(request.to_string(), format!("must be equal to {name} limit of {limit}")),
                    );
                } else if request > limit {
                    errors.push(requests.invalid_value(
                        request.to_string(),
                        format!("must be less than or equal to {name} limit of {limit}"),
                    ));
                }
            }
        }
    }
    if hugepages && !compute {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

/// Hugepages come in multiples of their size.
fn whole_pages(errors: &mut Errors, name: &str, value: &Field<'_>) {
    let size = name.strip_prefix("hugepages-").and_then(|size| size.parse::<Quantity>().ok());
    if let (Some(size), Some(quantity)) = (size, parse(value.value()))
        && size.value() > 0
        && quantity.value() % size.value() != 0
    {
        errors.push(
            value.invalid_value(quantity.to_string(), format!("{quantity} is not positive integer multiple of {name}")),
        );
    }
}

/// `spec.resources`: the pod's own amounts, which hold for its containers together.
pub(super) fn of_pod(errors: &mut Errors, spec: &Field<'_>) {
    let resources = &spec.get("resources");
    if !resources.exists() {
        return;
    }
    if spec.get("os.name").str() == "windows" {
        errors.push(resources.forbidden("may not be set for a windows pod"));
        return;
    }
    if resources.get("claims").exists() {
        errors.push(resources.get("claims").forbidden("claims may not be set for Resources at pod-level"));
    }
    requirements(errors, resources);
    let limits = &resources.get("limits");
    for list in [limits, &resources.get("requests")] {
        for (name, value) in list.entries() {
            if !matches!(name, "cpu" | "memory") && !is_hugepages(name) {
                errors.push(crate::status::FieldError::not_supported(
                    value.path(),
                    name,
                    &["cpu", "hugepages-", "memory"],
                ));
            }
        }
    }
    let containers = &spec.get("containers");
    for (index, container) in containers.items().enumerate() {
        let own = &container.get("resources.limits");
        for (name, value) in own.entries() {
            if let (Some(limit), Some(of_pod)) = (parse(value.value()), parse(limits.key(name).value()))
                && limit > of_pod
            {
                errors.push(crate::status::FieldError::invalid(
                    format!("{}.containers[{index}][{name}].limits", resources.path()),
                    limit.to_string(),
                    format!("must be less than or equal to pod limits of {of_pod}"),
                ));
            }
        }
    }
}
