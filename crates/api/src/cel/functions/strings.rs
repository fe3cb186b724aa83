//! Methods of strings, the extended string library and regular expressions.

use regex::Regex;

use super::{
    super::{EvalError, value::Val},
    Result, convert,
};

pub(super) fn method<'a>(name: &str, text: &str, args: &[Val<'a>]) -> Result<'a> {
    match (name, args) {
        ("contains", [Val::Str(part)]) => Ok(Val::Bool(text.contains(part.as_ref()))),
        ("startsWith", [Val::Str(part)]) => Ok(Val::Bool(text.starts_with(part.as_ref()))),
        ("endsWith", [Val::Str(part)]) => Ok(Val::Bool(text.ends_with(part.as_ref()))),
        ("matches", [Val::Str(pattern)]) => Ok(Val::Bool(compile(pattern)?.is_match(text))),
        ("find", [Val::Str(pattern)]) => {
            Ok(Val::string(compile(pattern)?.find(text).map(|found| found.as_str()).unwrap_or_default()))
        }
        ("findAll", [Val::Str(pattern)]) => Ok(find_all(&compile(pattern)?, text, usize::MAX)),
        ("findAll", [Val::Str(pattern), Val::Int(most)]) => {
            Ok(find_all(&compile(pattern)?, text, usize::try_from(*most).unwrap_or(usize::MAX)))
        }
        ("charAt", [Val::Int(at)]) => {
            let length = text.chars().count() as i64;
            if !(0..=length).contains(at) {
                return Err(EvalError::new(format!("index out of range: {at}")));
            }
            Ok(Val::string(text.chars().nth(*at as usize).map(String::from).unwrap_or_default()))
        }
        ("indexOf", [Val::Str(part)]) => Ok(Val::Int(index(text, part, 0))),
        ("indexOf", [Val::Str(part), Val::Int(from)]) => Ok(Val::Int(index(text, part, bounded(text, *from)?))),
        ("lastIndexOf", [Val::Str(part)]) => Ok(Val::Int(last_index(text, part, usize::MAX))),
        ("lastIndexOf", [Val::Str(part), Val::Int(from)]) => {
            Ok(Val::Int(last_index(text, part, bounded(text, *from)?)))
        }
        ("lowerAscii", []) => Ok(Val::string(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Val::string(text.to_ascii_uppercase())),
        ("reverse", []) => Ok(Val::string(text.chars().rev().collect::<String>())),
        ("trim", []) => Ok(Val::string(text.trim())),
        ("replace", [Val::Str(from), Val::Str(to)]) => Ok(Val::string(text.replace(from.as_ref(), to))),
        ("replace", [Val::Str(from), Val::Str(to), Val::Int(most)]) => Ok(match usize::try_from(*most) {
            Ok(most) => Val::string(text.replacen(from.as_ref(), to, most)),
            Err(_) => Val::string(text.replace(from.as_ref(), to)),
        }),
        ("split", [Val::Str(by)]) => Ok(split(text, by, -1)),
        ("split", [Val::Str(by), Val::Int(most)]) => Ok(split(text, by, *most)),
        ("substring", [Val::Int(from)]) => substring(text, *from, text.chars().count() as i64),
        ("substring", [Val::Int(from), Val::Int(to)]) => substring(text, *from, *to),
        ("format", [list]) => format(text, &list.items().ok_or_else(EvalError::overload)?),
        _ => Err(EvalError::overload()),
    }
}

fn compile(pattern: &str) -> std::result::Result<Regex, EvalError> {
    Regex::new(pattern).map_err(|_| EvalError::new(format!("error parsing regexp: {pattern:?}")))
}

fn find_all<'a>(pattern: &Regex, text: &str, most: usize) -> Val<'a> {
    Val::list(pattern.find_iter(text).take(most).map(|found| Val::string(found.as_str())).collect())
}

/// An index in characters that is inside the text.
fn bounded(text: &str, at: i64) -> std::result::Result<usize, EvalError> {
    let length = text.chars().count();
    usize::try_from(at)
        .ok()
        .filter(|at| *at <= length)
        .ok_or_else(|| EvalError::new(format!("index out of range: {at}")))
}

/// Places are characters, not bytes.
fn index(text: &str, part: &str, from: usize) -> i64 {
    let start = text.char_indices().nth(from).map_or(text.len(), |(at, _)| at);
    text[start..].find(part).map_or(-1, |at| text[..start + at].chars().count() as i64)
}

fn last_index(text: &str, part: &str, from: usize) -> i64 {
    let places = text.char_indices().map(|(at, _)| at).chain([text.len()]).take(from.saturating_add(1));
    let found = places.enumerate().filter(|(_, at)| text[*at..].starts_with(part)).last();
    found.map_or(-1, |(index, _)| index as i64)
}

fn split<'a>(text: &str, by: &str, most: i64) -> Val<'a> {
    let pieces: Vec<String> = match (most, by) {
        (0, _) => Vec::new(),
        (1, _) => vec![text.to_string()],
        (most, "") => {
            let all: Vec<String> = text.chars().map(String::from).collect();
            match usize::try_from(most) {
                Ok(most) if all.len() > most => {
                    let (first, rest) = all.split_at(most - 1);
                    first.iter().cloned().chain([rest.concat()]).collect()
                }
                _ => all,
            }
        }
        (most, by) => match usize::try_from(most) {
            Ok(most) => text.splitn(most, by).map(str::to_string).collect(),
            Err(_) => text.split(by).map(str::to_string).collect(),
        },
    };
    Val::list(pieces.into_iter().map(Val::string).collect())
}

fn substring<'a>(text: &str, from: i64, to: i64) -> Result<'a> {
    let length = text.chars().count() as i64;
    if from < 0 || to > length || from > to {
        return Err(EvalError::new(format!("invalid substring range. start: {from}, end: {to}")));
    }
    Ok(Val::string(text.chars().skip(from as usize).take((to - from) as usize).collect::<String>()))
}

/// `"%s is %d".format([..])`: s, d, f, e, b, o, x, X with a precision.
fn format<'a>(template: &str, args: &[Val<'a>]) -> Result<'a> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok().map(|digits| digits.min(100));
        }
        let verb = chars.next().ok_or_else(|| EvalError::new("unexpected end of format string"))?;
        let value = args.next().ok_or_else(|| EvalError::new("index out of range of format arguments"))?;
        let wrong = || EvalError::new(format!("error during formatting: no formatting function for %{verb}"));
        let text = match (verb, value) {
            ('s', value) => convert::shown(value),
            ('d', Val::Int(value)) => Some(value.to_string()),
            ('d', Val::Uint(value)) => Some(value.to_string()),
            ('f', Val::Double(value)) => Some(format!("{value:.*}", precision.unwrap_or(6))),
            ('f', Val::Int(value)) => Some(format!("{:.*}", precision.unwrap_or(6), *value as f64)),
            ('e', Val::Double(value)) => Some(format!("{value:.*e}", precision.unwrap_or(6))),
            ('b', Val::Int(value)) => Some(format!("{value:b}")),
            ('b', Val::Bool(value)) => Some(u8::from(*value).to_string()),
            ('o', Val::Int(value)) => Some(format!("{value:o}")),
            ('x', Val::Int(value)) => Some(format!("{value:x}")),
            ('X', Val::Int(value)) => Some(format!("{value:X}")),
            ('x', Val::Str(value)) => Some(value.bytes().map(|byte| format!("{byte:02x}")).collect()),
            ('X', Val::Str(value)) => Some(value.bytes().map(|byte| format!("{byte:02X}")).collect()),
            _ => None,
        };
        out += &text.ok_or_else(wrong)?;
    }
    Ok(Val::string(out))
}
