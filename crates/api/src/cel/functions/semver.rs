//! Semantic versions (semver.org 2.0.0).

use std::{cmp::Ordering, fmt, rc::Rc};

use super::{
    super::{EvalError, value::Val},
    Result,
};

/// A version; build metadata does not take part in comparisons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    pre: Vec<String>,
    build: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre.join("."))?;
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

impl Version {
    /// `normalize`: a leading `v`, missing numbers and leading zeros are taken.
    fn parse(text: &str, normalize: bool) -> Option<Version> {
        let text = if normalize { text.trim_start_matches(['v', 'V']) } else { text };
        let (main, build) = text.split_once('+').unwrap_or((text, ""));
        let (main, pre) = main.split_once('-').map_or((main, None), |(main, pre)| (main, Some(pre)));
        let mut numbers = [0; 3];
        let parts: Vec<&str> = main.split('.').collect();
        if parts.len() > 3 || parts.len() < 3 && !normalize {
            return None;
        }
        for (number, part) in numbers.iter_mut().zip(&parts) {
            let leading_zero = part.len() > 1 && part.starts_with('0');
            if !part.bytes().all(|byte| byte.is_ascii_digit()) || leading_zero && !normalize {
                return None;
            }
            *number = part.parse().ok()?;
        }
        let is_word =
            |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let pre: Vec<&str> = pre.map(|pre| pre.split('.').collect()).unwrap_or_default();
        if !pre.iter().all(is_word) || !build.is_empty() && !build.split('.').all(|word| is_word(&word)) {
            return None;
        }
        Some(Version { numbers, pre: pre.into_iter().map(str::to_string).collect(), build: build.into() })
    }

    /// Precedence: numbers first, a pre-release before its release.
    pub(in crate::cel) fn cmp(&self, other: &Version) -> Ordering {
        let part = |a: &String, b: &String| match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            _ => a.cmp(b),
        };
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => {
                let parts = self.pre.iter().zip(&other.pre).map(|(a, b)| part(a, b));
                parts.fold(Ordering::Equal, Ordering::then).then(self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

pub(super) fn make<'a>(name: &str, arg: &Val<'a>, normalize: bool) -> Result<'a> {
    let Val::Str(text) = arg else { return Err(EvalError::overload()) };
    match (name, Version::parse(text, normalize)) {
        ("isSemver", parsed) => Ok(Val::Bool(parsed.is_some())),
        (_, Some(version)) => Ok(Val::Semver(Rc::new(version))),
        (_, None) => Err(EvalError::new(format!("semver parse error: invalid version {text:?}"))),
    }
}

pub(super) fn method<'a>(name: &str, own: &Version, args: &[Val<'a>]) -> Result<'a> {
    Ok(match (name, args) {
        ("major", []) => Val::Int(own.numbers[0] as i64),
        ("minor", []) => Val::Int(own.numbers[1] as i64),
        ("patch", []) => Val::Int(own.numbers[2] as i64),
        ("isLessThan", [Val::Semver(other)]) => Val::Bool(own.cmp(other).is_lt()),
        ("isGreaterThan", [Val::Semver(other)]) => Val::Bool(own.cmp(other).is_gt()),
        ("compareTo", [Val::Semver(other)]) => Val::Int(own.cmp(other) as i64),
        _ => return Err(EvalError::overload()),
    })
}
