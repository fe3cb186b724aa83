//! Methods of lists, and sets of values.

use std::cmp::Ordering;

use super::{
    super::{EvalError, value::Val},
    Result,
};

pub(super) fn method<'a>(name: &str, target: &Val<'a>, args: &[Val<'a>]) -> Result<'a> {
    let items = target.items().unwrap_or_default();
    let place = |at: Option<usize>| Ok(Val::Int(at.map_or(-1, |at| at as i64)));
    match (name, args) {
        ("isSorted", []) => {
            Ok(Val::Bool(items.windows(2).all(|pair| pair[0].compare(&pair[1]).is_some_and(Ordering::is_le))))
        }
        ("sum", []) => sum(&items),
        ("min" | "max", []) if items.is_empty() => Err(EvalError::new(format!("{name} called on empty list"))),
        ("min" | "max", []) => extreme(&items, name == "max"),
        ("indexOf", [item]) => place(items.iter().position(|own| own.equals(item))),
        ("lastIndexOf", [item]) => place(items.iter().rposition(|own| own.equals(item))),
        ("join", []) => join(&items, ""),
        ("join", [Val::Str(between)]) => join(&items, between),
        ("distinct", []) => {
            let mut out: Vec<Val<'a>> = Vec::new();
            for item in items {
                if !out.iter().any(|own| own.equals(&item)) {
                    out.push(item);
                }
            }
            Ok(Val::list(out))
        }
        ("reverse", []) => Ok(Val::list(items.into_iter().rev().collect())),
        ("slice", [Val::Int(from), Val::Int(to)]) => {
            let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            match range.and_then(|(from, to)| items.get(from..to)) {
                Some(part) => Ok(Val::list(part.to_vec())),
                None => Err(EvalError::new(format!("cannot slice({from}, {to}), list is length {}", items.len()))),
            }
        }
        ("sort", []) => {
            let mut items = items;
            if items.windows(2).any(|pair| pair[0].compare(&pair[1]).is_none()) {
                return Err(EvalError::new("list elements must have the same type"));
            }
            items.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
            Ok(Val::list(items))
        }
        ("flatten", []) => {
            Ok(Val::list(items.into_iter().flat_map(|item| item.items().unwrap_or_else(|| vec![item])).collect()))
        }
        _ => Err(EvalError::overload()),
    }
}

fn sum<'a>(items: &[Val<'a>]) -> Result<'a> {
    let Some((first, rest)) = items.split_first() else { return Ok(Val::Int(0)) };
    rest.iter().try_fold(first.clone(), |sum, item| {
        let pair = [sum, item.clone()];
        super::super::operators::apply(cel::common::ast::operators::ADD, &pair)
            .unwrap_or_else(|| Err(EvalError::overload()))
    })
}

/// The largest or the smallest of some values.
pub(super) fn extreme<'a>(items: &[Val<'a>], largest: bool) -> Result<'a> {
    let items: Vec<Val<'a>> = match items {
        [one] if one.is_list() => one.items().unwrap_or_default(),
        many => many.to_vec(),
    };
    let mut items = items.into_iter();
    let first = items.next().ok_or_else(EvalError::overload)?;
    items.try_fold(first, |best, item| {
        let order = item.compare(&best).ok_or_else(EvalError::overload)?;
        let better = if largest { order.is_gt() } else { order.is_lt() };
        Ok(if better { item } else { best })
    })
}

fn join<'a>(items: &[Val<'a>], between: &str) -> Result<'a> {
    let texts: Option<Vec<&str>> =
        items.iter().map(|item| if let Val::Str(text) = item { Some(text.as_ref()) } else { None }).collect();
    Ok(Val::string(texts.ok_or_else(EvalError::overload)?.join(between)))
}

/// `sets.contains`, `sets.equivalent`, `sets.intersects`.
pub(super) fn sets<'a>(name: &str, left: &Val<'a>, right: &Val<'a>) -> Result<'a> {
    let (Some(left), Some(right)) = (left.items(), right.items()) else { return Err(EvalError::overload()) };
    let has = |all: &[Val<'a>], item: &Val<'a>| all.iter().any(|own| own.equals(item));
    Ok(Val::Bool(match name {
        "contains" => right.iter().all(|item| has(&left, item)),
        "equivalent" => right.iter().all(|item| has(&left, item)) && left.iter().all(|item| has(&right, item)),
        "intersects" => right.iter().any(|item| has(&left, item)),
        _ => return Err(EvalError::overload()),
    }))
}
