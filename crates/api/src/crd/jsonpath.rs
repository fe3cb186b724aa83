//! The part of kubectl's JSONPath that printer columns and selectable fields use.
//!
//! ```text
//! .spec.a['b.c'].list[0]  .list[-1]  .list[*].x  .list[?(@.type=="Ready")].status  .a\.b
//! ```

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    Index(i64),
    All,
    /// Everything at any depth.
    Deep,
    Where(JsonPath, Option<(Test, Value)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equal,
    Unequal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl JsonPath {
    /// Parses a path that begins with `.` or `[`. The error says what is wrong.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Deep);
                rest = after;
                if !rest.starts_with('[') {
                    rest = member(rest, &mut steps);
                }
            } else if let Some(after) = rest.strip_prefix('.') {
                rest = if after.starts_with('[') { after } else { member(after, &mut steps) };
            } else if rest.starts_with('[') {
                rest = bracket(rest, &mut steps)?;
            } else {
                return Err(format!("unrecognized character in action: {:?}", &rest[..1.min(rest.len())]));
            }
        }
        Ok(JsonPath { steps })
    }

    /// The values at the path, in the order of the document.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![root];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.walk(value, &mut next);
            }
            found = next;
        }
        found
    }

    /// Plain member names only: what a selectable field may be.
    pub fn members(&self) -> Option<Vec<&str>> {
        self.steps.iter().map(|step| if let Step::Member(name) = step { Some(name.as_str()) } else { None }).collect()
    }
}

fn member<'t>(rest: &'t str, steps: &mut Vec<Step>) -> &'t str {
    let mut name = String::new();
    let mut chars = rest.char_indices();
    let mut end = rest.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => {
                end = at;
                break;
            }
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => {}
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Member(name)),
    }
    &rest[end..]
}

fn bracket<'t>(rest: &'t str, steps: &mut Vec<Step>) -> Result<&'t str, String> {
    let close = closing(rest).ok_or_else(|| "unterminated array".to_string())?;
    let (inside, after) = (rest[1..close].trim(), &rest[close + 1..]);
    if inside == "*" {
        steps.push(Step::All);
    } else if let Some(quoted) = unquote(inside) {
        steps.push(Step::Member(quoted));
    } else if let Some(filter) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        steps.push(condition(filter)?);
    } else {
        let index = inside.parse().map_err(|_| format!("invalid array index {inside}"))?;
        steps.push(Step::Index(index));
    }
    Ok(after)
}

/// The bracket that closes the first one, quotes respected.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match c {
            c if quote == Some(c) => quote = None,
            _ if quote.is_some() => {}
            '\'' | '"' => quote = Some(c),
            '[' => depth += 1,
            ']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> Option<String> {
    let inside = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    inside.or_else(|| text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))).map(str::to_string)
}

fn condition(text: &str) -> Result<Step, String> {
    const TESTS: [(&str, Test); 6] = [
        ("==", Test::Equal),
        ("!=", Test::Unequal),
        ("<=", Test::LessEqual),
        (">=", Test::GreaterEqual),
        ("<", Test::Less),
        (">", Test::Greater),
    ];
    let path = |text: &str| -> Result<JsonPath, String> {
        JsonPath::parse(text.trim().strip_prefix('@').ok_or_else(|| format!("{text} does not begin with @"))?)
    };
    for (sign, test) in TESTS {
        if let Some((left, right)) = text.split_once(sign) {
            let right = right.trim();
            let value = match unquote(right) {
                Some(quoted) => Value::String(quoted),
                None => serde_json::from_str(right).map_err(|_| format!("invalid value {right}"))?,
            };
            return Ok(Step::Where(path(left)?, Some((test, value))));
        }
    }
    Ok(Step::Where(path(text)?, None))
}

impl Step {
    fn walk<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) {
        match (self, value) {
            (Step::Member(name), Value::Object(members)) => out.extend(members.get(name)),
            (Step::Index(index), Value::Array(items)) => {
                let length = items.len() as i64;
                let at = if *index < 0 { index + length } else { *index };
                out.extend(usize::try_from(at).ok().and_then(|at| items.get(at)));
            }
            (Step::All, Value::Array(items)) => out.extend(items),
            (Step::All, Value::Object(members)) => out.extend(members.values()),
            (Step::Deep, value) => deep(value, out),
            (Step::Where(path, test), Value::Array(items)) => {
                out.extend(items.iter().filter(|item| {
                    let found = path.find(item);
                    match test {
                        None => !found.is_empty(),
                        Some((test, wanted)) => found.first().is_some_and(|found| test.holds(found, wanted)),
                    }
                }));
            }
            _ => {}
        }
    }
}

fn deep<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    out.push(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| deep(item, out)),
        Value::Object(members) => members.values().for_each(|member| deep(member, out)),
        _ => {}
    }
}

impl Test {
    fn holds(self, found: &Value, wanted: &Value) -> bool {
        let order = match (found, wanted) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) if a == b => Some(std::cmp::Ordering::Equal),
            _ => None,
        };
        match self {
            Test::Equal => order.is_some_and(|order| order.is_eq()),
            Test::Unequal => !order.is_some_and(|order| order.is_eq()),
            Test::Less => order.is_some_and(|order| order.is_lt()),
            Test::LessEqual => order.is_some_and(|order| order.is_le()),
            Test::Greater => order.is_some_and(|order| order.is_gt()),
            Test::GreaterEqual => order.is_some_and(|order| order.is_ge()),
        }
    }
}
