//! URLs: absolute URIs and absolute paths, taken apart.

use std::{fmt, rc::Rc};

use super::{
    super::{EvalError, value::Val},
    Result,
};

/// A parsed URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse(text: &str) -> Option<Url> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let main = text.split('#').next().unwrap_or_default();
    let (main, query) = main.split_once('?').unwrap_or((main, ""));
    let mut url = Url { text: text.into(), query: query.into(), ..Url::default() };
    if main.starts_with('/') {
        url.path = main.into();
        return Some(url);
    }
    let (scheme, rest) = main.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return None;
    }
    url.scheme = scheme.to_ascii_lowercase();
    match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            url.host = authority.rsplit('@').next().unwrap_or_default().into();
            url.path = path.into();
        }
        None => url.path = rest.into(),
    }
    Some(url)
}

/// Host and port of an authority, brackets of IPv6 removed.
fn host_port(host: &str) -> (&str, &str) {
    if let Some((inside, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (inside, rest.strip_prefix(':').unwrap_or_default());
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

pub(super) fn make<'a>(name: &str, arg: &Val<'a>) -> Result<'a> {
    let Val::Str(text) = arg else { return Err(EvalError::overload()) };
    match (name, parse(text)) {
        ("isURL", parsed) => Ok(Val::Bool(parsed.is_some())),
        (_, Some(url)) => Ok(Val::Url(Rc::new(url))),
        (_, None) => Err(EvalError::new(format!(
            "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
        ))),
    }
}

pub(super) fn method<'a>(name: &str, url: &Url) -> Result<'a> {
    Ok(Val::string(match name {
        "getScheme" => url.scheme.as_str(),
        "getHost" => url.host.as_str(),
        "getHostname" => host_port(&url.host).0,
        "getPort" => host_port(&url.host).1,
        "getEscapedPath" => url.path.as_str(),
        "getQuery" => return Ok(query(&url.query)),
        _ => return Err(EvalError::overload()),
    }))
}

fn query<'a>(text: &str) -> Val<'a> {
    let mut out: Vec<(String, Vec<Val<'a>>)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name), Val::string(decode(value)));
        match out.iter_mut().find(|(own, _)| *own == name) {
            Some((_, values)) => values.push(value),
            None => out.push((name, vec![value])),
        }
    }
    Val::Map(Rc::new(out.into_iter().map(|(name, values)| (Val::string(name), Val::list(values))).collect()))
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
