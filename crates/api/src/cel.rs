//! The Common Expression Language as Kubernetes speaks it: parsing, names, evaluation, cost.
//!
//! A [`Program`] is compiled once and evaluated against a [`Scope`] of variables (`self`, `oldSelf`, `object`,
//! `request`, ...) with a [`Budget`] that every step draws from, so that an expression cannot hold a request up.
//! Values borrow from the JSON they are about; nothing is converted that an expression does not touch.
//!
//! The parser and its macros are the `cel` crate's. Functions are the standard ones and the libraries of the API
//! reference ("CEL options, language features and libraries").

use cel::{
    common::ast::IdedExpr,
    parser::{Expression, Parser},
};

mod check;
mod eval;
mod functions;
mod operators;
mod value;

pub use value::{Authorizer, Check, Decision, Typing, Val};

/// What one expression may cost (upstream's per-call limit).
pub const CALL_LIMIT: u64 = 1_000_000;
/// What all rules of one object may cost together.
pub const OBJECT_LIMIT: u64 = 10_000_000;

/// An expression that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compilation failed: {0}")]
pub struct CompileError(String);

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// `no such key: a`, `division by zero`, `no such overload`, ...
    #[error("{0}")]
    Failed(String),
    #[error("operation cancelled: actual cost limit exceeded")]
    Cost,
}

impl EvalError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        EvalError::Failed(text.into())
    }

    pub(crate) fn overload() -> Self {
        EvalError::Failed("no such overload".into())
    }
}

/// What is left to spend.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    pub fn new(cost: u64) -> Self {
        Self { left: cost }
    }

    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes `cost`, or fails.
    pub(crate) fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        self.left = self.left.checked_sub(cost).ok_or(EvalError::Cost)?;
        Ok(())
    }
}

/// The variables of an evaluation.
#[derive(Clone, Default)]
pub struct Scope<'a> {
    variables: Vec<(&'a str, Val<'a>)>,
}

impl<'a> Scope<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable; the last one of a name counts.
    pub fn with(mut self, name: &'a str, value: Val<'a>) -> Self {
        self.variables.push((name, value));
        self
    }

    fn get(&self, name: &str) -> Option<Val<'a>> {
        self.variables.iter().rev().find(|(own, _)| *own == name).map(|(_, value)| value.clone())
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    source: String,
    expression: IdedExpr,
}

impl Program {
    /// Parses an expression in which only `variables` are known.
    pub fn compile(source: &str, variables: &[&str]) -> Result<Program, CompileError> {
        let program = Self::parse(source)?;
        check::names(&program.expression, variables).map_err(CompileError)?;
        Ok(program)
    }

    /// Parses an expression about `self` of a known type, whose members must exist.
    pub fn compile_for(source: &str, variables: &[&str], of: &dyn Typing) -> Result<Program, CompileError> {
        let program = Self::compile(source, variables)?;
        check::members(&program.expression, of).map_err(CompileError)?;
        Ok(program)
    }

    fn parse(source: &str) -> Result<Program, CompileError> {
        let parser = Parser::new().enable_optional_syntax(true).enable_ident_escape_syntax(true);
        let expression: Expression = parser
            .parse(source)
            .map_err(|errors| CompileError(errors.to_string().trim_end().replace("\n| ", "\n | ")))?;
        Ok(Program { source: source.to_string(), expression })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether a variable occurs.
    pub fn uses(&self, variable: &str) -> bool {
        check::uses(&self.expression, variable)
    }

    /// Evaluates; the cost is taken from the budget, failed or not.
    pub fn evaluate<'a>(&'a self, scope: &Scope<'a>, budget: &mut Budget) -> Result<Val<'a>, EvalError> {
        let mut call = Budget::new(CALL_LIMIT.min(budget.left));
        let before = call.left;
        let result = eval::Evaluator::new(scope, &mut call).run(&self.expression);
        budget.left -= before - call.left;
        result
    }

    /// Evaluates to a truth value.
    pub fn test<'a>(&'a self, scope: &Scope<'a>, budget: &mut Budget) -> Result<bool, EvalError> {
        match self.evaluate(scope, budget)? {
            Val::Bool(value) => Ok(value),
            _ => Err(EvalError::overload()),
        }
    }
}

#[cfg(test)]
mod tests;
