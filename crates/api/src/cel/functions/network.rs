//! IP addresses and networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    super::{EvalError, value::Val},
    Result,
};

fn parse_ip(text: &str) -> Option<IpAddr> {
    // IPv4-mapped IPv6 addresses and zones are no addresses here.
    let ip: IpAddr = text.parse().ok()?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        ip => Some(ip),
    }
}

pub(super) fn make<'a>(name: &str, arg: &Val<'a>) -> Result<'a> {
    match (name, arg) {
        ("isIP", Val::Str(text)) => Ok(Val::Bool(parse_ip(text).is_some())),
        ("ip", Val::Str(text)) => parse_ip(text)
            .map(Val::Ip)
            .ok_or_else(|| EvalError::new(format!("IP Address {text:?} parse error during conversion from string"))),
        ("isCIDR", Val::Str(text)) => Ok(Val::Bool(text.parse::<IpNet>().is_ok())),
        ("cidr", Val::Str(text)) => text.parse().map(Val::Cidr).map_err(|_| {
            EvalError::new(format!("network address parse error during conversion from string: {text:?}"))
        }),
        _ => Err(EvalError::overload()),
    }
}

pub(super) fn is_canonical<'a>(arg: &Val<'a>) -> Result<'a> {
    let Val::Str(text) = arg else { return Err(EvalError::overload()) };
    let ip = parse_ip(text)
        .ok_or_else(|| EvalError::new(format!("IP Address {text:?} parse error during conversion from string")))?;
    Ok(Val::Bool(ip.to_string() == text.as_ref()))
}

fn family(ip: &IpAddr) -> i64 {
    if ip.is_ipv4() { 4 } else { 6 }
}

fn is_link_local(ip: &IpAddr, multicast: bool) -> bool {
    match (ip, multicast) {
        (IpAddr::V4(ip), false) => ip.is_link_local(),
        (IpAddr::V4(ip), true) => ip.octets()[..3] == [224, 0, 0],
        (IpAddr::V6(ip), false) => ip.segments()[0] & 0xffc0 == 0xfe80,
        (IpAddr::V6(ip), true) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

pub(super) fn method<'a>(name: &str, target: &Val<'a>, args: &[Val<'a>]) -> Result<'a> {
    match (target, name, args) {
        (Val::Ip(ip), "family", []) => Ok(Val::Int(family(ip))),
        (Val::Ip(ip), "isUnspecified", []) => Ok(Val::Bool(ip.is_unspecified())),
        (Val::Ip(ip), "isLoopback", []) => Ok(Val::Bool(ip.is_loopback())),
        (Val::Ip(ip), "isLinkLocalMulticast", []) => Ok(Val::Bool(is_link_local(ip, true))),
        (Val::Ip(ip), "isLinkLocalUnicast", []) => Ok(Val::Bool(is_link_local(ip, false))),
        (Val::Ip(ip), "isGlobalUnicast", []) => Ok(Val::Bool(
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip, false))
                && *ip != IpAddr::from([255, 255, 255, 255]),
        )),
        (Val::Cidr(net), "ip", []) => Ok(Val::Ip(net.addr())),
        (Val::Cidr(net), "prefixLength", []) => Ok(Val::Int(net.prefix_len().into())),
        (Val::Cidr(net), "masked", []) => Ok(Val::Cidr(net.trunc())),
        (Val::Cidr(net), "containsIP", [other]) => match other {
            Val::Ip(ip) => Ok(Val::Bool(net.contains(ip))),
            Val::Str(text) => match make("ip", &Val::Str(text.clone()))? {
                Val::Ip(ip) => Ok(Val::Bool(net.contains(&ip))),
                _ => Err(EvalError::overload()),
            },
            _ => Err(EvalError::overload()),
        },
        (Val::Cidr(net), "containsCIDR", [other]) => match other {
            Val::Cidr(other) => Ok(Val::Bool(net.contains(other))),
            Val::Str(text) => match make("cidr", &Val::Str(text.clone()))? {
                Val::Cidr(other) => Ok(Val::Bool(net.contains(&other))),
                _ => Err(EvalError::overload()),
            },
            _ => Err(EvalError::overload()),
        },
        _ => Err(EvalError::overload()),
    }
}
