//! The text form of label selectors: tokens, then requirements separated by commas.
//!
//! ```text
//! selector    = [ requirement { "," requirement } ]
//! requirement = [ "!" ] key | key ( "=" | "==" | "!=" | ">" | "<" ) value | key ( "in" | "notin" ) "(" values ")"
//! ```

use std::collections::BTreeSet;

use super::{Operator, Requirement, SelectorError};
use crate::{status::FieldError, validation::names};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Less,
    NotEquals,
    Open,
    Word(&'a str),
    Bad(&'a str),
}

impl Token<'_> {
    fn text(self) -> String {
        match self {
            Token::End => String::new(),
            Token::Close => ")".into(),
            Token::Comma => ",".into(),
            Token::Not => "!".into(),
            Token::DoubleEquals => "==".into(),
            Token::Equals => "=".into(),
            Token::Greater => ">".into(),
            Token::Less => "<".into(),
            Token::NotEquals => "!=".into(),
            Token::Open => "(".into(),
            Token::Word(word) => word.into(),
            Token::Bad(text) => format!("error expected: keyword found '{text}'"),
        }
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    const SPECIAL: &[char] = &['=', '!', '(', ')', ',', '>', '<'];
    const SPACE: &[char] = &[' ', '\t', '\r', '\n'];
    let mut out = Vec::new();
    let mut rest = text.trim_start_matches(SPACE);
    // A NUL ends the text, as it does upstream.
    while let Some(first) = rest.chars().next().filter(|c| *c != '\0') {
        let (token, length) = match first {
            '=' if rest.starts_with("==") => (Token::DoubleEquals, 2),
            '=' => (Token::Equals, 1),
            '!' if rest.starts_with("!=") => (Token::NotEquals, 2),
            '!' => (Token::Not, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '>' => (Token::Greater, 1),
            '<' => (Token::Less, 1),
            _ => {
                let end = rest.find(|c| SPECIAL.contains(&c) || SPACE.contains(&c) || c == '\0').unwrap_or(rest.len());
                if end == 0 { (Token::Bad(rest), rest.len()) } else { (Token::Word(&rest[..end]), end) }
            }
        };
        out.push(token);
        rest = rest[length..].trim_start_matches(SPACE);
    }
    out.push(Token::End);
    out
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }
}

fn fail<T>(text: String) -> Result<T, SelectorError> {
    Err(SelectorError(text))
}

/// Parses a whole selector.
pub(super) fn labels(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut out = Vec::new();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Not => {
                let one = requirement(&mut parser)
                    .map_err(|error| SelectorError(format!("unable to parse requirement: {error}")))?;
                out.push(one);
                match parser.next() {
                    Token::End => return Ok(out),
                    Token::Comma => match parser.peek() {
                        Token::Word(_) | Token::Not => {}
                        other => return fail(format!("found '{}', expected: identifier after ','", other.text())),
                    },
                    other => return fail(format!("found '{}', expected: ',' or 'end of string'", other.text())),
                }
            }
            Token::End => return Ok(out),
            other => return fail(format!("found '{}', expected: !, identifier, or 'end of string'", other.text())),
        }
    }
}

fn requirement(parser: &mut Parser<'_>) -> Result<Requirement, SelectorError> {
    let mut token = parser.next();
    let negated = token == Token::Not;
    if negated {
        token = parser.next();
    }
    let Token::Word(key) = token else {
        return fail(format!("found '{}', expected: identifier", token.text()));
    };
    let messages = names::qualified_name(key);
    if !messages.is_empty() {
        return fail(FieldError::invalid("<nil>", key, messages.join("; ")).to_string());
    }
    if negated {
        return Requirement::new(key, Operator::DoesNotExist, Vec::new());
    }
    if matches!(parser.peek(), Token::End | Token::Comma) {
        return Requirement::new(key, Operator::Exists, Vec::new());
    }
    let token = parser.next();
    let operator = match token {
        Token::Word("in") => Operator::In,
        Token::Word("notin") => Operator::NotIn,
        Token::Equals => Operator::Equals,
        Token::DoubleEquals => Operator::DoubleEquals,
        Token::NotEquals => Operator::NotEquals,
        Token::Greater => Operator::Greater,
        Token::Less => Operator::Less,
        _ => return fail(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", token.text())),
    };
    let values = match operator {
        Operator::In | Operator::NotIn => set(parser)?,
        _ => exact(parser)?,
    };
    Requirement::new(key, operator, values)
}

fn exact(parser: &mut Parser<'_>) -> Result<Vec<String>, SelectorError> {
    if matches!(parser.peek(), Token::End | Token::Comma) {
        return Ok(vec![String::new()]);
    }
    match parser.next() {
        Token::Word(word) => Ok(vec![word.into()]),
        other => fail(format!("found '{}', expected: identifier", other.text())),
    }
}

fn set(parser: &mut Parser<'_>) -> Result<Vec<String>, SelectorError> {
    let open = parser.next();
    if open != Token::Open {
        return fail(format!("found '{}' expected: '('", open.text()));
    }
    let mut values = BTreeSet::new();
    match parser.peek() {
        Token::Close => {
            parser.next();
            return Ok(vec![String::new()]);
        }
        Token::Word(_) | Token::Comma => {}
        other => return fail(format!("found '{}', expected: ',', ')' or identifier", other.text())),
    }
    loop {
        match parser.next() {
            Token::Word(word) => {
                values.insert(word.to_string());
                match parser.peek() {
                    Token::Comma => {}
                    Token::Close => break,
                    other => return fail(format!("found '{}', expected: ',' or ')'", other.text())),
                }
            }
            // Nothing between two commas, or before or behind one, is the empty value.
            Token::Comma => {
                if values.is_empty() {
                    values.insert(String::new());
                }
                match parser.peek() {
                    Token::Close => {
                        values.insert(String::new());
                        break;
                    }
                    Token::Comma => {
                        values.insert(String::new());
                    }
                    _ => {}
                }
            }
            other => return fail(format!("found '{}', expected: ',', or identifier", other.text())),
        }
    }
    parser.next();
    Ok(values.into_iter().collect())
}
