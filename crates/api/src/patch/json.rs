//! JSON patch (RFC 6902): operations at JSON pointers, all or nothing.

use serde_json::Value;

/// One operation, not yet checked: what is wrong with it shows when it is applied.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    value: Value,
}

/// Why an operation does not fit a document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("operation {0:?} is none of add, remove, replace, move, copy, test")]
    Unknown(String),
    #[error("the operation names no place")]
    NoPath,
    #[error("the document has no {0:?}")]
    Missing(String),
    #[error("the value at {0:?} is another one")]
    Differs(String),
    #[error("{0:?} is no index of the array")]
    Index(String),
    #[error("copies would make the document larger than {0} bytes")]
    TooLarge(usize),
}

/// Most bytes that `copy` operations may add.
const MOST_COPIED: usize = 3 << 20;

impl Operation {
    pub(super) fn read(item: &Value) -> Self {
        let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_string);
        Self {
            op: text("op").unwrap_or_default(),
            path: text("path"),
            from: text("from"),
            value: item.get("value").cloned().unwrap_or(Value::Null),
        }
    }
}

/// Applies all operations in order.
pub(super) fn apply(mut document: Value, operations: &[Operation]) -> Result<Value, Error> {
    let mut copied = 0;
    for operation in operations {
        let path = operation.path.as_deref().ok_or(Error::NoPath);
        let from = || operation.from.as_deref().ok_or(Error::NoPath);
        match operation.op.as_str() {
            "add" => add(&mut document, path?, operation.value.clone())?,
            "remove" => {
                take(&mut document, path?)?;
            }
            "replace" => replace(&mut document, path?, operation.value.clone())?,
            "move" => {
                let value = take(&mut document, from()?)?;
                add(&mut document, path?, value)?;
            }
            "copy" => {
                let value = get(&document, from()?).ok_or_else(|| missing(operation.from.as_deref()))?.clone();
                copied += value.to_string().len();
                if copied > MOST_COPIED {
                    return Err(Error::TooLarge(MOST_COPIED));
                }
                add(&mut document, path?, value)?;
            }
            "test" => {
                let path = path?;
                if !same(get(&document, path).unwrap_or(&Value::Null), &operation.value) {
                    return Err(Error::Differs(path.into()));
                }
            }
            other => return Err(Error::Unknown(other.into())),
        }
    }
    Ok(document)
}

fn missing(path: Option<&str>) -> Error {
    Error::Missing(path.unwrap_or_default().into())
}

/// Numbers are the same when their values are.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

fn get<'v>(document: &'v Value, path: &str) -> Option<&'v Value> {
    if path.is_empty() {
        return Some(document);
    }
    path.strip_prefix('/')?.split('/').try_fold(document, |value, token| match value {
        Value::Object(members) => members.get(&unescape(token)),
        Value::Array(items) => items.get(index(token, items.len())?),
        _ => None,
    })
}

/// The container of a path and the last token.
fn parent<'v>(document: &'v mut Value, path: &str) -> Result<(&'v mut Value, String), Error> {
    let fail = || Error::Missing(path.into());
    let (parents, last) = path.rsplit_once('/').ok_or_else(fail)?;
    let mut value = document;
    for token in parents.split('/').skip(1) {
        value = match value {
            Value::Object(members) => members.get_mut(&unescape(token)).ok_or_else(fail)?,
            Value::Array(items) => {
                let at = index(token, items.len()).ok_or_else(fail)?;
                items.get_mut(at).ok_or_else(fail)?
            }
            _ => return Err(fail()),
        };
    }
    if value.is_object() || value.is_array() { Ok((value, unescape(last))) } else { Err(fail()) }
}

/// An index below or at `length`; negative ones count from the end, as upstream's library has it.
fn index(token: &str, length: usize) -> Option<usize> {
    let at: i64 = token.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let at = if at < 0 { at + length } else { at };
    (0..=length).contains(&at).then_some(at as usize)
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), Error> {
    match parent(document, path)? {
        (Value::Object(members), last) => {
            members.insert(last, value);
        }
        (Value::Array(items), last) if last == "-" => items.push(value),
        (Value::Array(items), last) => {
            // One longer than the array: a negative index counts from behind the new item.
            let length = if last.starts_with('-') { items.len() + 1 } else { items.len() };
            let at = index(&last, length).filter(|at| *at <= items.len()).ok_or(Error::Index(last))?;
            items.insert(at, value);
        }
        _ => return Err(Error::Missing(path.into())),
    }
    Ok(())
}

fn take(document: &mut Value, path: &str) -> Result<Value, Error> {
    match parent(document, path)? {
        (Value::Object(members), last) => members.remove(&last).ok_or_else(|| Error::Missing(path.into())),
        (Value::Array(items), last) => match index(&last, items.len()) {
            Some(at) if at < items.len() => Ok(items.remove(at)),
            _ => Err(Error::Index(last)),
        },
        _ => Err(Error::Missing(path.into())),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), Error> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return Err(Error::Differs(path.into()));
        }
        *document = value;
        return Ok(());
    }
    match parent(document, path)? {
        // Upstream's library sets a member that was not there, too.
        (Value::Object(members), last) => {
            members.insert(last, value);
        }
        (Value::Array(items), last) => match index(&last, items.len()).and_then(|at| items.get_mut(at)) {
            Some(item) => *item = value,
            None => return Err(Error::Index(last)),
        },
        _ => return Err(Error::Missing(path.into())),
    }
    Ok(())
}
