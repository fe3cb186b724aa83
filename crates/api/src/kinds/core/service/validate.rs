//! Rules of a Service's spec and status, and what an update of it may change.

use std::net::IpAddr;

use serde_json::Value;

use super::{externally_accessible, needs_health_check_port};
use crate::{
    kind::{Context, Part},
    kinds::access::Members,
    validation::{
        field::{Errors, Field},
        metadata, names, net,
    },
};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub(super) fn create(errors: &mut Errors, service: &Field<'_>, _cx: &Context<'_>) {
    spec(errors, service);
}

fn spec(errors: &mut Errors, service: &Field<'_>) {
    let spec = &service.get("spec");
    let kind = spec.get("type").str();
    by_type(errors, spec, kind);
    ports(errors, spec, kind);
    metadata::labels(errors, &spec.get("selector"));
    affinity(errors, spec);
    if kind != "ExternalName" {
        cluster_addresses(errors, spec);
    }
    let external = &spec.get("externalIPs");
    for address in external.items() {
        net::address(errors, &address);
        net::not_local(errors, &address);
    }
    spec.get("type").required_one_of(errors, TYPES);
    source_ranges(errors, spec, kind);
    policies(errors, spec, kind);
}

fn by_type(errors: &mut Errors, spec: &Field<'_>, kind: &str) {
    let headless = spec.get("clusterIP").str() == "None";
    match kind {
        "LoadBalancer" => {
            if headless {
                errors.push(
                    spec.get("clusterIPs").index(0).invalid("may not be set to 'None' for LoadBalancer services"),
                );
            }
            let allocate = spec.get("allocateLoadBalancerNodePorts");
            if !allocate.exists() {
                errors.push(allocate.required(""));
            }
        }
        "NodePort" if headless => {
            errors.push(spec.get("clusterIPs").index(0).invalid("may not be set to 'None' for NodePort services"));
        }
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.get(name).is_empty() {
                    errors.push(spec.get(name).forbidden("may not be set for ExternalName services"));
                }
            }
            let name = spec.get("externalName");
            // RFC 1123 host names may end with the root's dot.
            let text = name.str().strip_suffix('.').unwrap_or(name.str());
            match text {
                "" => errors.push(name.required("")),
                text => name.judge(errors, names::dns_subdomain(text)),
            }
        }
        _ => {}
    }
    if kind != "LoadBalancer" && spec.get("allocateLoadBalancerNodePorts").exists() {
        errors.push(
            spec.get("allocateLoadBalancerNodePorts").forbidden("may only be used when `type` is 'LoadBalancer'"),
        );
    }
    let class = spec.get("loadBalancerClass");
    if class.exists() {
        if kind == "LoadBalancer" {
            class.judge(errors, names::qualified_name(class.str()));
        } else {
            errors.push(class.forbidden("may only be used when `type` is 'LoadBalancer'"));
        }
    }
}

fn ports(errors: &mut Errors, spec: &Field<'_>, kind: &str) {
    let ports = &spec.get("ports");
    let headless = spec.get("clusterIP").str() == "None";
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(ports.required(""));
    }
    for (index, port) in ports.items().enumerate() {
        let before = &ports.list()[..index];
        let name = port.get("name");
        match name.str() {
            "" if ports.list().len() > 1 => errors.push(name.required("")),
            "" => {}
            text => {
                name.judge(errors, names::dns_label(text));
                if before.iter().any(|port| port.text("name") == text) {
                    errors.push(name.duplicate());
                }
            }
        }
        let number = port.get("port");
        errors.extend(
            names::port_number(number.int().unwrap_or(0))
                .into_iter()
                .map(|message| number.invalid_value(number.int().unwrap_or(0), message)),
        );
        port.get("protocol").required_one_of(errors, PROTOCOLS);
        net::port_or_name(errors, &port.get("targetPort"));
        let protocol = port.get("appProtocol");
        if protocol.exists() {
            protocol.judge(errors, names::qualified_name(protocol.str()));
        }
        let node_port = port.get("nodePort");
        let node_number = node_port.int().unwrap_or(0);
        if matches!(kind, "ClusterIP" | "ExternalName") && node_number != 0 {
            errors.push(node_port.forbidden(format!("may not be used when `type` is '{kind}'")));
        }
        let same = |other: &Value, name: &str| other[name] == port.value()[name];
        if node_number != 0 && before.iter().any(|other| same(other, "nodePort") && same(other, "protocol")) {
            errors.push(node_port.duplicate());
        }
        if before.iter().any(|other| same(other, "port") && same(other, "protocol")) {
            errors.push(crate::status::FieldError::duplicate(
                port.path(),
                serde_json::json!({"protocol": port.get("protocol").str(), "port": number.value()}),
            ));
        }
    }
}

fn affinity(errors: &mut Errors, spec: &Field<'_>) {
    let affinity = spec.get("sessionAffinity");
    affinity.required_one_of(errors, &["ClientIP", "None"]);
    let config = spec.get("sessionAffinityConfig");
    match affinity.str() {
        "ClientIP" => {
            let timeout = config.get("clientIP.timeoutSeconds");
            match timeout.int() {
                None => errors.push(timeout.required("when session affinity type is ClientIP")),
                Some(seconds) if seconds <= 0 || seconds > 86400 => {
                    errors.push(timeout.invalid("must be greater than 0 and less than 86400"));
                }
                Some(_) => {}
            }
        }
        "None" if config.exists() => {
            errors.push(config.forbidden("must not be set when session affinity type is None"));
        }
        _ => {}
    }
}

fn cluster_addresses(errors: &mut Errors, spec: &Field<'_>) {
    let addresses = &spec.get("clusterIPs");
    match (spec.get("clusterIP").str(), addresses.index(0).str()) {
        ("", "") => {}
        ("", _) => errors.push(addresses.invalid("must be empty when `clusterIP` is not specified")),
        (_, "") => errors.push(addresses.required("")),
        (single, first) if single != first => errors.push(addresses.invalid("first value must match `clusterIP`")),
        _ => {}
    }
    let families = &spec.get("ipFamilies");
    for (index, family) in families.items().enumerate() {
        family.one_of(errors, &["IPv4", "IPv6"]);
        if families.list()[..index].contains(family.value()) {
            errors.push(family.duplicate());
        }
    }
    let policy = spec.get("ipFamilyPolicy");
    if policy.exists() {
        policy.one_of(errors, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    }
    let before = errors.len();
    for (index, address) in addresses.items().enumerate() {
        if index == 0 && address.str() == "None" {
            if addresses.list().len() > 1 {
                errors.push(addresses.invalid("'None' must be the first and only value"));
            }
        } else {
            net::address(errors, &address);
        }
    }
    if addresses.list().len() > 2 {
        errors.push(addresses.invalid("may only hold up to 2 values"));
    }
    if errors.len() > before {
        return;
    }
    let is_v6 = |value: &Value| value.as_str().unwrap_or_default().contains(':');
    if let [first, second] = addresses.list()
        && is_v6(first) == is_v6(second)
    {
        errors.push(addresses.invalid("may specify no more than one IP for each IP family"));
    }
    for (index, (address, family)) in addresses.items().zip(families.items()).enumerate() {
        let wanted = family.str();
        if address.str() != "None" && is_v6(address.value()) != (wanted == "IPv6") {
            errors.push(address.invalid(format!("expected an {wanted} value as indicated by `ipFamilies[{index}]`")));
        }
    }
}

/// Upstream capitalizes the field's name in these paths.
fn source_ranges(errors: &mut Errors, spec: &Field<'_>, kind: &str) {
    let path = format!("{}.LoadBalancerSourceRanges", spec.path());
    let ranges = &Field::at(spec.get("loadBalancerSourceRanges").value(), &path);
    if !ranges.is_empty() && kind != "LoadBalancer" {
        errors.push(ranges.forbidden("may only be used when `type` is 'LoadBalancer'"));
    }
    for range in ranges.items() {
        // Blanks around a range have always been tolerated here.
        match range.str().trim().parse::<ipnet::IpNet>() {
            Err(_) => errors.push(range.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")),
            Ok(net) if net.addr() != net.network() => {
                errors.push(range.invalid("must not have bits set beyond the prefix length"));
            }
            Ok(_) => {}
        }
    }
}

fn policies(errors: &mut Errors, spec: &Field<'_>, kind: &str) {
    let external = spec.get("externalTrafficPolicy");
    if externally_accessible(spec.value()) {
        external.required_one_of(errors, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        errors.push(external.invalid("may only be set for externally-accessible services"));
    }
    let health = spec.get("healthCheckNodePort");
    let number = health.int().unwrap_or(0);
    if needs_health_check_port(spec.value()) {
        // An absent one is allocated behind these checks.
        if number != 0 {
            health.judge(errors, names::port_number(number));
        }
    } else if number != 0 {
        errors.push(
            health.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"),
        );
    }
    let internal = spec.get("internalTrafficPolicy");
    if internal.exists() {
        internal.one_of(errors, &["Cluster", "Local"]);
    } else if kind != "ExternalName" && TYPES.contains(&kind) {
        errors.push(internal.required(""));
    }
    let distribution = spec.get("trafficDistribution");
    if distribution.exists() {
        distribution.one_of(errors, &["PreferClose", "PreferSameZone", "PreferSameNode"]);
    }
}

pub(super) fn update(errors: &mut Errors, new: &Field<'_>, old: &Field<'_>, cx: &Context<'_>) {
    if cx.part == Part::Status {
        return status(errors, new);
    }
    let (spec_field, old_spec) = (&new.get("spec"), &old.get("spec"));
    let external = |spec: &Field<'_>| spec.get("type").str() == "ExternalName";
    let headless = |spec: &Field<'_>| spec.get("clusterIP").str() == "None";
    let both_headless = headless(spec_field) && headless(old_spec);
    if !(external(spec_field) || external(old_spec) || both_headless) {
        address_changes(errors, spec_field, old_spec);
        family_changes(errors, spec_field, old_spec);
    }
    let balanced = |spec: &Field<'_>| spec.get("type").str() == "LoadBalancer";
    let class = spec_field.get("loadBalancerClass");
    if balanced(spec_field) && balanced(old_spec) && class.value() != old_spec.get("loadBalancerClass").value() {
        errors.push(class.invalid("may not change once set"));
    }
    let health = spec_field.get("healthCheckNodePort");
    if needs_health_check_port(spec_field.value())
        && needs_health_check_port(old_spec.value())
        && health.value() != old_spec.get("healthCheckNodePort").value()
    {
        errors.push(health.forbidden("field is immutable"));
    }
    spec(errors, new);
}

fn address_changes(errors: &mut Errors, spec: &Field<'_>, old: &Field<'_>) {
    let (new_field, old_field) = (&spec.get("clusterIPs"), old.get("clusterIPs"));
    let (new, old) = (new_field.list(), old_field.list());
    let at = |index: usize, why: &str| {
        crate::status::FieldError::invalid(format!("{}[{index}]", new_field.path()), new.to_vec(), why)
    };
    if new.len() == old.len() {
        for (index, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old) {
            errors.push(at(index, "may not change once set"));
        }
        return;
    }
    match (new.first(), old.first()) {
        (None, Some(_)) => errors.push(at(0, "primary clusterIP can not be unset")),
        (Some(new), Some(old)) if new != old => errors.push(at(0, "may not change once set")),
        _ => {}
    }
    let policy = spec.get("ipFamilyPolicy");
    if new.len() == 1 && old.len() > 1 && policy.str() != "SingleStack" {
        errors.push(policy.invalid("must be set to 'SingleStack' when releasing the secondary clusterIP"));
    }
}

fn family_changes(errors: &mut Errors, spec: &Field<'_>, old: &Field<'_>) {
    let (new_field, old_field) = (spec.get("ipFamilies"), old.get("ipFamilies"));
    if let (Some(new), Some(old)) = (new_field.list().first(), old_field.list().first())
        && new != old
    {
        errors.push(crate::status::FieldError::invalid(
            format!("{}[0]", new_field.path()),
            new_field.value().clone(),
            "may not change once set",
        ));
    }
}

fn status(errors: &mut Errors, service: &Field<'_>) {
    let ingresses = &service.get("status.loadBalancer.ingress");
    if service.get("spec.type").str() != "LoadBalancer" && !ingresses.is_empty() {
        errors.push(ingresses.forbidden("may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    for ingress in ingresses.items() {
        let (ip, mode, host) = (ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname"));
        if !ip.str().is_empty() {
            net::address(errors, &ip);
        }
        match (mode.exists(), ip.str().is_empty()) {
            (false, false) => errors.push(mode.required("must be specified when `ip` is set")),
            (true, true) => errors.push(mode.forbidden("may not be specified when `ip` is not set")),
            (true, false) => {
                mode.one_of(errors, &["Proxy", "VIP"]);
            }
            (false, true) => {}
        }
        if !host.str().is_empty() {
            host.judge(errors, names::dns_subdomain(host.str()));
            if host.str().parse::<IpAddr>().is_ok() {
                errors.push(host.invalid("must be a DNS name, not an IP address"));
            }
        }
    }
}
