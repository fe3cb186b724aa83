//! The function libraries: which functions there are, and where they live.
//!
//! A function is found by its name and, for methods, by what it is called on. What no library takes is
//! `no such overload`, as at run time upstream.

use super::{EvalError, value::Val};

mod authorizer;
pub(super) mod convert;
mod formats;
mod lists;
mod network;
mod quantity;
pub(super) mod semver;
mod strings;
mod time;
pub(super) mod url;

pub(super) type Result<'a> = std::result::Result<Val<'a>, EvalError>;

/// Names before the dot of functions that are called on no value.
const SPACES: [&str; 8] = ["cel", "format", "ip", "jsonpatch", "math", "optional", "sets", "strings"];

/// Functions that are called without a target; operators have names of their own.
const GLOBALS: [&str; 22] = [
    "bool",
    "bytes",
    "cidr",
    "double",
    "duration",
    "dyn",
    "int",
    "ip",
    "isCIDR",
    "isIP",
    "isQuantity",
    "isSemver",
    "isURL",
    "matches",
    "quantity",
    "semver",
    "size",
    "string",
    "timestamp",
    "type",
    "uint",
    "url",
];

pub(super) fn is_space(name: &str) -> bool {
    SPACES.contains(&name)
}

/// Whether a call without a target can be meant.
pub(super) fn is_known(name: &str) -> bool {
    GLOBALS.contains(&name) || name.starts_with(['_', '@', '!', '-'])
}

/// `size(x)`, `quantity(x)`, ...
pub(super) fn global<'a>(name: &str, mut args: Vec<Val<'a>>) -> Result<'a> {
    match (name, args.len()) {
        // Both are written either way.
        ("size" | "matches", 1..) => {
            let target = args.remove(0);
            method(name, target, &args)
        }
        (_, 1) => {
            let arg = args.remove(0);
            match name {
                "quantity" | "isQuantity" => quantity::make(name, &arg),
                "ip" | "isIP" | "cidr" | "isCIDR" => network::make(name, &arg),
                "url" | "isURL" => url::make(name, &arg),
                "semver" | "isSemver" => semver::make(name, &arg, false),
                _ => convert::make(name, arg),
            }
        }
        ("semver" | "isSemver", 2) => match &args[1] {
            Val::Bool(normalize) => semver::make(name, &args[0], *normalize),
            _ => Err(EvalError::overload()),
        },
        _ => Err(EvalError::overload()),
    }
}

/// `sets.contains(a, b)`, `optional.of(x)`, ...
pub(super) fn namespaced<'a>(space: &str, name: &str, args: Vec<Val<'a>>) -> Result<'a> {
    match (space, name, args.as_slice()) {
        ("sets", _, [left, right]) => lists::sets(name, left, right),
        ("optional", "none", []) => Ok(Val::Optional(None)),
        ("optional", "of", [value]) => Ok(Val::optional(Some(value.clone()))),
        ("optional", "ofNonZeroValue", [value]) => {
            Ok(Val::optional(Some(value.clone()).filter(|value| !convert::is_zero(value))))
        }
        ("ip", "isCanonical", [text]) => network::is_canonical(text),
        ("format", _, _) => formats::named(name, &args),
        ("strings", "quote", [Val::Str(text)]) => Ok(Val::string(format!("{text:?}"))),
        ("jsonpatch", "escapeKey", [Val::Str(text)]) => Ok(Val::string(text.replace('~', "~0").replace('/', "~1"))),
        ("math", "greatest" | "least", _) => lists::extreme(&args, name == "greatest"),
        _ => Err(EvalError::new(format!("undeclared reference to '{space}'"))),
    }
}

/// `x.f(..)`
pub(super) fn method<'a>(name: &str, target: Val<'a>, args: &[Val<'a>]) -> Result<'a> {
    match (&target, name, args) {
        (_, "size", []) => match target.size() {
            Some(size) => Ok(Val::Int(size as i64)),
            None => Err(EvalError::overload()),
        },
        (Val::Optional(inner), _, _) => match (name, args) {
            ("hasValue", []) => Ok(Val::Bool(inner.is_some())),
            ("value", []) => match inner {
                Some(inner) => Ok((**inner).clone()),
                None => Err(EvalError::new("optional.none() dereference")),
            },
            ("orValue", [other]) => Ok(inner.as_ref().map_or_else(|| other.clone(), |inner| (**inner).clone())),
            ("or", [other]) => Ok(if inner.is_some() { target.clone() } else { other.clone() }),
            _ => Err(EvalError::overload()),
        },
        (Val::Str(text), _, _) => strings::method(name, text, args),
        (Val::Time(at), _, _) => time::of_timestamp(name, *at, args),
        (Val::Duration(nanos), _, []) => time::of_duration(name, *nanos),
        (Val::Quantity(quantity), _, _) => quantity::method(name, quantity, args),
        (Val::Ip(_) | Val::Cidr(_), _, _) => network::method(name, &target, args),
        (Val::Url(url), _, []) => url::method(name, url),
        (Val::Semver(version), _, _) => semver::method(name, version, args),
        (Val::Format(format), "validate", [Val::Str(text)]) => Ok(formats::validate(format, text)),
        (Val::Authorizer(authorizer, check), _, _) => authorizer::method(name, authorizer, check, args),
        (Val::Decision(decision), _, []) => authorizer::answer(name, decision),
        _ if target.is_list() => lists::method(name, &target, args),
        _ => Err(EvalError::overload()),
    }
}
