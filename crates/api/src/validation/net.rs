//! Addresses, ranges and ports in fields.

use std::net::IpAddr;

use super::{
    field::{Errors, Field},
    names,
};

/// An IP address in any valid spelling.
pub fn address(errors: &mut Errors, field: &Field<'_>) {
    if field.str().parse::<IpAddr>().is_err() {
        errors.push(field.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
    }
}

/// An IP address in its canonical spelling.
pub fn canonical_address(errors: &mut Errors, field: &Field<'_>) {
    match field.str().parse::<IpAddr>() {
        Err(_) => address(errors, field),
        Ok(IpAddr::V6(six)) if six.to_ipv4_mapped().is_some() => {
            errors.push(field.invalid("must not be an IPv4-mapped IPv6 address"));
        }
        Ok(address) if address.to_string() != field.str() => {
            errors.push(field.invalid(format!("must be in canonical form (\"{address}\")")));
        }
        Ok(_) => {}
    }
}

/// A range of addresses.
pub fn range(errors: &mut Errors, field: &Field<'_>) {
    if field.str().parse::<ipnet::IpNet>().is_err() {
        errors.push(field.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
    }
}

/// A range in canonical spelling, without bits beyond its prefix.
pub fn canonical_range(errors: &mut Errors, field: &Field<'_>) {
    match field.str().parse::<ipnet::IpNet>() {
        Err(_) => range(errors, field),
        Ok(net) if net.addr() != net.network() => {
            errors.push(field.invalid("must not have bits set beyond the prefix length"));
        }
        Ok(net) if net.to_string() != field.str() => {
            errors.push(field.invalid(format!("must be in canonical form (\"{net}\")")));
        }
        Ok(_) => {}
    }
}

/// An address that can be routed to: neither unspecified, loopback nor link-local.
pub fn not_local(errors: &mut Errors, field: &Field<'_>) {
    let Ok(address) = field.str().parse::<IpAddr>() else { return };
    if address.is_unspecified() {
        errors.push(field.invalid(format!("may not be unspecified ({})", field.str())));
    }
    if address.is_loopback() {
        errors.push(field.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    let (link_local, multicast) = match address {
        IpAddr::V4(four) => (four.is_link_local(), four.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(six) => (six.is_unicast_link_local(), six.segments()[0] == 0xff02),
    };
    if link_local {
        errors.push(field.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)"));
    }
    if multicast {
        errors.push(field.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"));
    }
}

/// A port by number, or by name.
pub fn port_or_name(errors: &mut Errors, field: &Field<'_>) {
    match field.value().as_str() {
        Some(name) => field.judge(errors, names::port_name(name)),
        None => {
            let number = field.int().unwrap_or(0);
            errors.extend(names::port_number(number).into_iter().map(|message| field.invalid_value(number, message)));
        }
    }
}

/// `example.com/path`: a domain, a slash and a path of URL characters.
pub fn domain_prefixed_path(errors: &mut Errors, field: &Field<'_>) {
    const PATH: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
    if field.str().is_empty() {
        errors.push(field.required(""));
        return;
    }
    let Some((host, path)) = field.str().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        errors.push(field.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    };
    errors.extend(names::dns_subdomain(host).into_iter().map(|message| field.invalid_value(host, message)));
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
        errors.push(field.invalid_value(path, names::pattern("Invalid path", PATH, &[])));
    }
}
