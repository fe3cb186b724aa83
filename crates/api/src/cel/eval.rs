//! Walks an expression. Errors of `&&`, `||` and comprehensions are absorbed as the language asks.

use std::rc::Rc;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, SelectExpr, operators as op,
};

use super::{Budget, EvalError, Scope, functions, operators, value::Val};

type Result<'a> = std::result::Result<Val<'a>, EvalError>;

/// Deeper expressions are refused: the stack is not theirs.
const DEEPEST: usize = 200;

pub(super) struct Evaluator<'s, 'a> {
    scope: &'s Scope<'a>,
    budget: &'s mut Budget,
    /// Variables of comprehensions and bindings, innermost last.
    locals: Vec<(&'a str, Val<'a>)>,
    depth: usize,
}

impl<'s, 'a> Evaluator<'s, 'a> {
    pub(super) fn new(scope: &'s Scope<'a>, budget: &'s mut Budget) -> Self {
        Self { scope, budget, locals: Vec::new(), depth: 0 }
    }

    pub(super) fn run(&mut self, expression: &'a IdedExpr) -> Result<'a> {
        self.budget.spend(1)?;
        if self.depth >= DEEPEST {
            return Err(EvalError::new("expression is nested too deeply"));
        }
        self.depth += 1;
        let result = self.node(&expression.expr);
        self.depth -= 1;
        result
    }

    fn node(&mut self, expression: &'a Expr) -> Result<'a> {
        match expression {
            Expr::Literal(literal) => Ok(constant(literal)),
            Expr::Ident(name) => {
                self.variable(name).ok_or_else(|| EvalError::new(format!("no such attribute(s): {name}")))
            }
            Expr::Select(select) => self.select(select),
            Expr::List(list) => {
                let mut items = Vec::with_capacity(list.elements.len());
                for (index, element) in list.elements.iter().enumerate() {
                    let value = self.run(element)?;
                    match value {
                        Val::Optional(inner) if list.optional_indices.contains(&index) => {
                            items.extend(inner.map(|inner| (*inner).clone()));
                        }
                        value => items.push(value),
                    }
                }
                Ok(Val::list(items))
            }
            Expr::Map(map) => self.entries(&map.entries),
            Expr::Struct(of) => self.entries(&of.entries),
            Expr::Comprehension(of) => self.comprehension(of),
            Expr::Call(call) => self.call(call),
            Expr::Unspecified => Err(EvalError::new("unspecified expression")),
        }
    }

    fn variable(&self, name: &str) -> Option<Val<'a>> {
        let local = self.locals.iter().rev().find(|(own, _)| *own == name).map(|(_, value)| value.clone());
        local.or_else(|| self.scope.get(name)).or_else(|| functions::convert::type_named(name))
    }

    fn entries(&mut self, entries: &'a [IdedEntryExpr]) -> Result<'a> {
        let mut out = Vec::with_capacity(entries.len());
        for entry in entries {
            let (key, value, optional) = match &entry.expr {
                EntryExpr::MapEntry(entry) => (self.run(&entry.key)?, self.run(&entry.value)?, entry.optional),
                EntryExpr::StructField(field) => (Val::text(&field.field), self.run(&field.value)?, field.optional),
            };
            match value {
                Val::Optional(inner) if optional => out.extend(inner.map(|inner| (key, (*inner).clone()))),
                value => out.push((key, value)),
            }
        }
        Ok(Val::Map(Rc::new(out)))
    }

    fn select(&mut self, select: &'a SelectExpr) -> Result<'a> {
        let operand = self.run(&select.operand)?;
        let key = Val::text(&select.field);
        if select.test {
            return match &operand {
                Val::Optional(inner) => Ok(Val::Bool(inner.as_ref().is_some_and(|inner| inner.get(&key).is_some()))),
                value if value.is_map() => Ok(Val::Bool(value.get(&key).is_some())),
                _ => Err(EvalError::overload()),
            };
        }
        match &operand {
            Val::Optional(inner) => Ok(Val::optional(inner.as_ref().and_then(|inner| inner.get(&key)))),
            value if value.is_map() => {
                value.get(&key).ok_or_else(|| EvalError::new(format!("no such key: {}", select.field)))
            }
            _ => Err(EvalError::new(format!("no such key: {}", select.field))),
        }
    }

    fn comprehension(&mut self, of: &'a ComprehensionExpr) -> Result<'a> {
        let range = self.run(&of.iter_range)?;
        let pairs: Vec<(Val<'a>, Val<'a>)> = match (range.items(), range.entries()) {
            (Some(items), _) => items.into_iter().enumerate().map(|(at, item)| (Val::Int(at as i64), item)).collect(),
            (_, Some(entries)) => entries,
            _ => return Err(EvalError::overload()),
        };
        let over_map = range.is_map();
        let start = self.locals.len();
        let accumulated = self.run(&of.accu_init)?;
        self.locals.push((&of.accu_var, accumulated));
        let result = (|| {
            for (first, second) in pairs {
                self.locals.truncate(start + 1);
                match &of.iter_var2 {
                    Some(name) => {
                        self.locals.push((&of.iter_var, first));
                        self.locals.push((name, second));
                    }
                    // One variable goes over a list's items or a map's keys.
                    None => self.locals.push((&of.iter_var, if over_map { first } else { second })),
                }
                if matches!(self.run(&of.loop_cond), Ok(Val::Bool(false))) {
                    break;
                }
                let next = self.step(&of.loop_step)?;
                self.locals[start].1 = next;
            }
            self.locals.truncate(start + 1);
            self.run(&of.result)
        })();
        self.locals.truncate(start);
        result
    }

    /// The step of `all` and `exists` absorbs errors through its `&&` and `||`.
    fn step(&mut self, step: &'a IdedExpr) -> Result<'a> {
        self.run(step)
    }

    fn call(&mut self, call: &'a CallExpr) -> Result<'a> {
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (op::LOGICAL_AND, [left, right]) => return self.logical(left, right, false),
            (op::LOGICAL_OR, [left, right]) => return self.logical(left, right, true),
            (op::CONDITIONAL, [condition, yes, no]) => {
                return match self.run(condition)? {
                    Val::Bool(true) => self.run(yes),
                    Val::Bool(false) => self.run(no),
                    _ => Err(EvalError::overload()),
                };
            }
            (op::NOT_STRICTLY_FALSE, [value]) => {
                return Ok(Val::Bool(!matches!(self.run(value), Ok(Val::Bool(false)))));
            }
            _ => {}
        }
        if let Some(target) = &call.target {
            if let Expr::Ident(space) = &target.expr
                && self.variable(space).is_none()
            {
                return self.namespaced(space, call);
            }
            if let Some(result) = self.macros(target, call) {
                return result;
            }
            let target = self.run(target)?;
            let args = self.arguments(&call.args)?;
            self.charge(&target, &args)?;
            return functions::method(name, target, &args);
        }
        let args = self.arguments(&call.args)?;
        if let Some((first, rest)) = args.split_first() {
            self.charge(first, rest)?;
        }
        if let Some(result) = operators::apply(name, &args) {
            return result;
        }
        functions::global(name, args)
    }

    fn arguments(&mut self, args: &'a [IdedExpr]) -> std::result::Result<Vec<Val<'a>>, EvalError> {
        args.iter().map(|arg| self.run(arg)).collect()
    }

    /// Functions cost by the size of what they look at.
    fn charge(&mut self, first: &Val<'a>, rest: &[Val<'a>]) -> std::result::Result<(), EvalError> {
        let cost = |value: &Val<'a>| match value {
            Val::Str(text) => (text.len() as u64).div_ceil(10),
            Val::Bytes(bytes) => (bytes.len() as u64).div_ceil(10),
            other => other.size().unwrap_or(0) as u64,
        };
        self.budget.spend(rest.iter().map(cost).fold(cost(first), u64::saturating_add))
    }

    /// `decides`: the value of either side that settles the result, whatever the other side is.
    fn logical(&mut self, left: &'a IdedExpr, right: &'a IdedExpr, decides: bool) -> Result<'a> {
        let first = self.run(left);
        if matches!(first, Ok(Val::Bool(value)) if value == decides) || matches!(first, Err(EvalError::Cost)) {
            return first;
        }
        let second = self.run(right);
        if matches!(second, Ok(Val::Bool(value)) if value == decides) || matches!(second, Err(EvalError::Cost)) {
            return second;
        }
        match (first?, second?) {
            (Val::Bool(_), Val::Bool(_)) => Ok(Val::Bool(!decides)),
            _ => Err(EvalError::overload()),
        }
    }

    /// `sets.contains(..)`, `optional.of(..)`, `cel.bind(..)`, ...
    fn namespaced(&mut self, space: &str, call: &'a CallExpr) -> Result<'a> {
        if let ("cel", "bind", [variable, value, body]) = (space, call.func_name.as_str(), call.args.as_slice())
            && let Expr::Ident(variable) = &variable.expr
        {
            let value = self.run(value)?;
            self.locals.push((variable, value));
            let result = self.run(body);
            self.locals.pop();
            return result;
        }
        let args = self.arguments(&call.args)?;
        if let Some((first, rest)) = args.split_first() {
            self.charge(first, rest)?;
        }
        functions::namespaced(space, &call.func_name, args)
    }

    /// Calls that bind variables and that the parser leaves alone: optionals and two-variable comprehensions.
    fn macros(&mut self, target: &'a IdedExpr, call: &'a CallExpr) -> Option<Result<'a>> {
        let variable = |at: usize| match &call.args.get(at)?.expr {
            Expr::Ident(name) => Some(name.as_str()),
            _ => None,
        };
        match (call.func_name.as_str(), call.args.len()) {
            ("optMap" | "optFlatMap", 2) => {
                let (name, body) = (variable(0)?, call.args.get(1)?);
                let flat = call.func_name == "optFlatMap";
                Some(self.optional_map(target, name, body, flat))
            }
            ("all" | "exists" | "existsOne" | "transformList" | "transformMap", 3..=4) => {
                let (first, second) = (variable(0)?, variable(1)?);
                Some(self.pairs(target, first, second, call))
            }
            _ => None,
        }
    }

    fn optional_map(&mut self, target: &'a IdedExpr, name: &'a str, body: &'a IdedExpr, flat: bool) -> Result<'a> {
        let Val::Optional(inner) = self.run(target)? else { return Err(EvalError::overload()) };
        let Some(inner) = inner else { return Ok(Val::Optional(None)) };
        self.locals.push((name, (*inner).clone()));
        let result = self.run(body);
        self.locals.pop();
        let result = result?;
        Ok(if flat { result } else { Val::optional(Some(result)) })
    }

    fn pairs(&mut self, target: &'a IdedExpr, first: &'a str, second: &'a str, call: &'a CallExpr) -> Result<'a> {
        let range = self.run(target)?;
        let pairs: Vec<(Val<'a>, Val<'a>)> = match (range.items(), range.entries()) {
            (Some(items), _) => items.into_iter().enumerate().map(|(at, item)| (Val::Int(at as i64), item)).collect(),
            (_, Some(entries)) => entries,
            _ => return Err(EvalError::overload()),
        };
        let (filter, body) = match call.args.as_slice() {
            [_, _, body] => (None, body),
            [_, _, filter, body] => (Some(filter), body),
            _ => return Err(EvalError::overload()),
        };
        let start = self.locals.len();
        let mut results = Vec::new();
        let mut failed = None;
        for (key, value) in pairs {
            self.locals.truncate(start);
            self.locals.push((first, key.clone()));
            self.locals.push((second, value));
            let wanted = match filter.map(|filter| self.run(filter)) {
                None | Some(Ok(Val::Bool(true))) => true,
                Some(Ok(Val::Bool(false))) => false,
                Some(Ok(_)) => return Err(EvalError::overload()),
                Some(Err(error)) => return Err(error),
            };
            if wanted {
                match self.run(body) {
                    Ok(result) => results.push((key, result)),
                    Err(EvalError::Cost) => return Err(EvalError::Cost),
                    Err(error) => failed = Some(error),
                }
            }
        }
        self.locals.truncate(start);
        let holds = |results: &[(Val<'a>, Val<'a>)], value: bool| {
            results.iter().filter(|(_, result)| matches!(result, Val::Bool(own) if *own == value)).count()
        };
        match (call.func_name.as_str(), failed) {
            ("all", _) if holds(&results, false) > 0 => Ok(Val::Bool(false)),
            ("exists", _) if holds(&results, true) > 0 => Ok(Val::Bool(true)),
            (_, Some(error)) => Err(error),
            ("all", None) => Ok(Val::Bool(true)),
            ("exists", None) => Ok(Val::Bool(false)),
            ("existsOne", None) => Ok(Val::Bool(holds(&results, true) == 1)),
            ("transformList", None) => Ok(Val::list(results.into_iter().map(|(_, result)| result).collect())),
            (_, None) => Ok(Val::Map(Rc::new(results))),
        }
    }
}

fn constant(literal: &LiteralValue) -> Val<'_> {
    match literal {
        LiteralValue::Boolean(value) => Val::Bool(*value.inner()),
        LiteralValue::Bytes(value) => Val::Bytes(value.inner().into()),
        LiteralValue::Double(value) => Val::Double(*value.inner()),
        LiteralValue::Int(value) => Val::Int(*value.inner()),
        LiteralValue::Null => Val::Null,
        LiteralValue::String(value) => Val::text(value.inner()),
        LiteralValue::UInt(value) => Val::Uint(*value.inner()),
    }
}
