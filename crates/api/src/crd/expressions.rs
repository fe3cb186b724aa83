//! `x-kubernetes-validations`: rules in CEL about a value and what it was before.
//!
//! All rules of an object share one budget. A rule that uses `oldSelf` runs only where there is an old value that the
//! new one can be told to be (unless it takes an optional one); other rules are not asked about what did not change.

use serde_json::Value;

use super::{list_items::Kind, values::Rules};
use crate::{
    cel::{Budget, EvalError, OBJECT_LIMIT, Program, Scope, Typing, Val},
    status::{FieldError, FieldErrorKind},
};

const VARIABLES: [&str; 2] = ["self", "oldSelf"];
/// Longer evaluated messages are not shown.
const MOST_MESSAGE_BYTES: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// One compiled rule.
#[derive(Debug)]
pub(super) struct Expression {
    /// What did not compile fails when it is asked.
    rule: Result<Program, String>,
    message: String,
    message_expression: Option<Program>,
    reason: FieldErrorKind,
    field_path: String,
    uses_old: bool,
    optional_old: bool,
}

impl Expression {
    /// Compiles the rules of a schema node.
    pub(super) fn read(schema: &Value) -> Vec<Expression> {
        let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
        rules
            .map(|rule| {
                let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default().trim().to_string();
                let program = Program::compile(&text("rule"), &VARIABLES).map_err(|error| error.to_string());
                let message_expression = Some(text("messageExpression")).filter(|text| !text.is_empty());
                Expression {
                    uses_old: program.as_ref().is_ok_and(|program| program.uses("oldSelf")),
                    rule: program,
                    message: text("message"),
                    message_expression: message_expression.and_then(|text| Program::compile(&text, &VARIABLES).ok()),
                    reason: match text("reason").as_str() {
                        "FieldValueForbidden" => FieldErrorKind::Forbidden,
                        "FieldValueRequired" => FieldErrorKind::Required,
                        "FieldValueDuplicate" => FieldErrorKind::Duplicate,
                        _ => FieldErrorKind::Invalid,
                    },
                    field_path: text("fieldPath").trim_start_matches('.').to_string(),
                    optional_old: rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false),
                }
            })
            .collect()
    }

    fn shown(&self) -> &str {
        match &self.rule {
            _ if !self.message.is_empty() => &self.message,
            Ok(program) => program.source(),
            Err(_) => "",
        }
    }
}

/// Field errors of all rules of an object that is valid otherwise.
pub(super) fn check(rules: &Rules, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut run = Run { budget: Budget::new(OBJECT_LIMIT), errors: Vec::new() };
    // Out of budget: the error is there already.
    let _ = run.walk(rules, new, old, "");
    run.errors
}

/// The budget is spent; no further rules are run.
struct Exhausted;

struct Run {
    budget: Budget,
    errors: Vec<FieldError>,
}

fn field(path: &str) -> String {
    if path.is_empty() { "<nil>".into() } else { path.into() }
}

/// Objects and lists are not quoted in errors.
fn error(kind: FieldErrorKind, path: &str, value: &Value, detail: impl Into<String>) -> FieldError {
    let kind = match kind {
        FieldErrorKind::Invalid if value.is_object() || value.is_array() => FieldErrorKind::InvalidUnquoted,
        kind => kind,
    };
    FieldError::new(kind, field(path), value.clone(), detail)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Run {
    fn walk(&mut self, rules: &Rules, new: &Value, old: Option<&Value>, path: &str) -> Result<(), Exhausted> {
        if !rules.has_expressions || new.is_null() {
            return Ok(());
        }
        for expression in &rules.expressions {
            self.one(expression, rules, new, old, path)?;
        }
        match new {
            Value::Object(members) => {
                for (name, value) in members {
                    let old = old.and_then(|old| old.get(name));
                    if let Some(of) = rules.property(name) {
                        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                        self.walk(of, value, old, &below)?;
                    } else if let Some(of) = &rules.additional {
                        self.walk(of, value, old, &format!("{path}[{name}]"))?;
                    }
                }
            }
            Value::Array(items) => {
                let Some(of) = &rules.items else { return Ok(()) };
                // Only items of map lists have a history.
                let old = old.filter(|_| matches!(rules.list, Kind::Map(_)));
                for (index, (item, old)) in items.iter().zip(rules.list.correlate(items, old)).enumerate() {
                    self.walk(of, item, old, &format!("{path}[{index}]"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn one(
        &mut self,
        expression: &Expression,
        rules: &Rules,
        new: &Value,
        old: Option<&Value>,
        path: &str,
    ) -> Result<(), Exhausted> {
        if expression.uses_old && old.is_none() && !expression.optional_old {
            return Ok(());
        }
        if !expression.uses_old && old == Some(new) {
            return Ok(());
        }
        let program = match &expression.rule {
            Ok(program) => program,
            Err(why) => {
                self.errors.push(FieldError::invalid(
                    field(path),
                    type_name(new),
                    format!("rule compile error: {why}"),
                ));
                return Ok(());
            }
        };
        let typing: &dyn Typing = rules;
        let mut scope = Scope::new().with("self", Val::typed(new, Some(typing)));
        let before = old.map(|old| Val::typed(old, Some(typing)));
        if expression.optional_old {
            scope = scope.with("oldSelf", Val::Optional(before.map(std::rc::Rc::new)));
        } else if let Some(before) = before {
            scope = scope.with("oldSelf", before);
        }
        let told = |why: String| FieldError::invalid(field(path), type_name(new), why);
        match program.test(&scope, &mut self.budget) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(EvalError::Cost) => {
                self.errors.push(if self.budget.left() == 0 {
                    told(OUT_OF_BUDGET.into())
                } else {
                    told(format!(
                        "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        EvalError::Cost,
                        expression.shown()
                    ))
                });
                return Err(Exhausted);
            }
            Err(EvalError::Failed(why)) => {
                self.errors.push(told(if why.starts_with("no such overload") {
                    format!(
                        "'{why}': call arguments did not match a supported operator, function or macro signature for \
                         rule: {}",
                        expression.shown()
                    )
                } else {
                    format!("{why} evaluating rule: {}", expression.shown())
                }));
                return Ok(());
            }
        }
        let detail = self.message(expression, &scope).unwrap_or_else(|| match expression.message.as_str() {
            "" => format!("failed rule: {}", program.source()),
            message => message.to_string(),
        });
        let place = match (path, expression.field_path.as_str()) {
            (path, "") => path.to_string(),
            ("", below) => below.to_string(),
            (path, below) => format!("{path}.{below}"),
        };
        self.errors.push(error(expression.reason, &place, new, detail));
        Ok(())
    }

    /// The evaluated message; `None` when there is none or it is not fit to be shown.
    fn message<'a>(&mut self, expression: &'a Expression, scope: &Scope<'a>) -> Option<String> {
        let program = expression.message_expression.as_ref()?;
        match program.evaluate(scope, &mut self.budget) {
            Ok(Val::Str(text)) => {
                let text = text.trim();
                let fits = !text.is_empty() && !text.contains('\n') && text.len() <= MOST_MESSAGE_BYTES;
                fits.then(|| text.to_string())
            }
            _ => None,
        }
    }
}

/// Field errors of the expressions of a schema whose compiled form is `rules`.
pub(super) fn validate(schema: &Value, rules: &Rules, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_node(schema, rules, path, None, &mut errors);
    errors
}

/// `uncorrelatable`: the list above whose items have no history.
fn validate_node(
    schema: &Value,
    rules: &Rules,
    path: &str,
    uncorrelatable: Option<&str>,
    errors: &mut Vec<FieldError>,
) {
    let all = schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
    for (index, rule) in all.enumerate() {
        let at = format!("{path}.x-kubernetes-validations[{index}]");
        let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("rule").trim().is_empty() {
            continue;
        }
        match Program::compile_for(text("rule"), &VARIABLES, rules) {
            Err(why) => errors.push(FieldError::invalid(format!("{at}.rule"), rule.clone(), why.to_string())),
            Ok(program) => {
                let uses_old = program.uses("oldSelf");
                if let Some(list) = uncorrelatable.filter(|_| uses_old) {
                    let why =
                        format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                    errors.push(FieldError::invalid(format!("{at}.rule"), text("rule"), why));
                }
                if let (Some(given), false) = (rule.get("optionalOldSelf").filter(|given| !given.is_null()), uses_old) {
                    let why = "may not be set if oldSelf is not used in rule";
                    errors.push(FieldError::invalid(format!("{at}.optionalOldSelf"), given.clone(), why));
                }
            }
        }
        if !text("messageExpression").trim().is_empty()
            && let Err(why) = Program::compile_for(text("messageExpression"), &VARIABLES, rules)
        {
            let detail = format!("messageExpression {why}");
            errors.push(FieldError::invalid(format!("{at}.messageExpression"), rule.clone(), detail));
        }
    }
    for (name, of) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(below) = rules.property(name) {
            validate_node(of, below, &format!("{path}.properties[{name}]"), uncorrelatable, errors);
        }
    }
    if let (Some(of), Some(below)) = (schema.get("additionalProperties"), &rules.additional) {
        validate_node(of, below, &format!("{path}.additionalProperties"), uncorrelatable, errors);
    }
    if let (Some(of), Some(below)) = (schema.get("items"), &rules.items) {
        let uncorrelatable = uncorrelatable.or(Some(path).filter(|_| !matches!(rules.list, Kind::Map(_))));
        validate_node(of, below, &format!("{path}.items"), uncorrelatable, errors);
    }
}
