//! What can be said of an expression without values: unknown names and unknown members.

use cel::common::ast::{EntryExpr, Expr, IdedExpr};

use super::{
    functions::{self, convert},
    value::{self, Typing},
};

/// Visits an expression and what is below, with the variables that are bound there.
fn walk<'e>(
    expression: &'e IdedExpr,
    bound: &mut Vec<&'e str>,
    visit: &mut dyn FnMut(&'e Expr, &[&'e str]) -> Result<(), String>,
) -> Result<(), String> {
    visit(&expression.expr, bound)?;
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Ok(()),
        Expr::Select(select) => walk(&select.operand, bound, visit),
        Expr::List(list) => list.elements.iter().try_for_each(|element| walk(element, bound, visit)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| self::entry(&entry.expr, bound, visit)),
        Expr::Struct(of) => of.entries.iter().try_for_each(|entry| self::entry(&entry.expr, bound, visit)),
        Expr::Comprehension(of) => {
            walk(&of.iter_range, bound, visit)?;
            walk(&of.accu_init, bound, visit)?;
            let start = bound.len();
            bound.extend([of.accu_var.as_str(), of.iter_var.as_str()]);
            bound.extend(of.iter_var2.as_deref());
            let result =
                [&of.loop_cond, &of.loop_step, &of.result].into_iter().try_for_each(|part| walk(part, bound, visit));
            bound.truncate(start);
            result
        }
        Expr::Call(call) => {
            let start = bound.len();
            // Macros that the parser leaves alone name their variables as identifiers.
            let variables = match (call.func_name.as_str(), call.args.len()) {
                ("bind", 3) | ("optMap" | "optFlatMap", 2) => 1,
                ("all" | "exists" | "existsOne" | "transformList" | "transformMap", 3..=4) => 2,
                _ => 0,
            };
            let is_space = |target: &IdedExpr| matches!(&target.expr, Expr::Ident(name) if functions::is_space(name));
            if let Some(target) = call.target.as_ref().filter(|target| !is_space(target)) {
                walk(target, bound, visit)?;
            }
            for arg in call.args.iter().take(variables) {
                if let Expr::Ident(name) = &arg.expr {
                    bound.push(name);
                }
            }
            let result = call.args.iter().skip(variables).try_for_each(|arg| walk(arg, bound, visit));
            bound.truncate(start);
            result
        }
    }
}

fn entry<'e>(
    entry: &'e EntryExpr,
    bound: &mut Vec<&'e str>,
    visit: &mut dyn FnMut(&'e Expr, &[&'e str]) -> Result<(), String>,
) -> Result<(), String> {
    match entry {
        EntryExpr::StructField(field) => walk(&field.value, bound, visit),
        EntryExpr::MapEntry(entry) => {
            walk(&entry.key, bound, visit)?;
            walk(&entry.value, bound, visit)
        }
    }
}

/// Refuses identifiers and functions that nobody declares.
pub(super) fn names(expression: &IdedExpr, variables: &[&str]) -> Result<(), String> {
    walk(expression, &mut Vec::new(), &mut |expr, bound| match expr {
        Expr::Ident(name)
            if !bound.contains(&name.as_str())
                && !variables.contains(&name.as_str())
                && convert::type_named(name).is_none() =>
        {
            Err(format!("ERROR: <input>: undeclared reference to '{name}' (in container '')"))
        }
        Expr::Call(call) if call.target.is_none() && !functions::is_known(&call.func_name) => {
            Err(format!("ERROR: <input>: undeclared reference to '{}' (in container '')", call.func_name))
        }
        _ => Ok(()),
    })
}

/// Refuses selections below `self` and `oldSelf` of members that the type does not have.
pub(super) fn members(expression: &IdedExpr, of: &dyn Typing) -> Result<(), String> {
    fn type_of<'t>(expression: &Expr, bound: &[&str], of: &'t dyn Typing) -> Option<&'t dyn Typing> {
        match expression {
            Expr::Ident(name) if (name == "self" || name == "oldSelf") && !bound.contains(&name.as_str()) => Some(of),
            Expr::Select(select) if !select.test => member(type_of(&select.operand.expr, bound, of)?, &select.field),
            _ => None,
        }
    }
    fn member<'t>(of: &'t dyn Typing, name: &str) -> Option<&'t dyn Typing> {
        of.member(name).or_else(|| of.member(&value::unescape(name)?))
    }
    walk(expression, &mut Vec::new(), &mut |expr, bound| {
        let Expr::Select(select) = expr else { return Ok(()) };
        let Some(operand) = type_of(&select.operand.expr, bound, of) else { return Ok(()) };
        if operand.is_open() || member(operand, &select.field).is_some() {
            return Ok(());
        }
        Err(format!("ERROR: <input>: undefined field '{}'", select.field))
    })
}

/// Whether a variable occurs unbound.
pub(super) fn uses(expression: &IdedExpr, variable: &str) -> bool {
    let found = walk(expression, &mut Vec::new(), &mut |expr, bound| match expr {
        Expr::Ident(name) if name == variable && !bound.contains(&variable) => Err(String::new()),
        _ => Ok(()),
    });
    found.is_err()
}
