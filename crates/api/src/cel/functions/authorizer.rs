//! `authorizer.group('apps').resource('deployments').namespace('x').check('get').allowed()`

use std::rc::Rc;

use super::{
    super::{
        EvalError,
        value::{Authorizer, Check, Decision, Val},
    },
    Result,
};

pub(super) fn method<'a>(
    name: &str,
    authorizer: &Rc<dyn Authorizer + 'a>,
    check: &Rc<Check>,
    args: &[Val<'a>],
) -> Result<'a> {
    let mut next = (**check).clone();
    match (name, args) {
        ("path", [Val::Str(path)]) => next.path = Some(path.to_string()),
        ("serviceAccount", [Val::Str(namespace), Val::Str(name)]) => {
            next.service_account = Some((namespace.to_string(), name.to_string()));
        }
        ("check", [Val::Str(verb)]) => {
            next.verb = verb.to_string();
            return Ok(Val::Decision(Rc::new(authorizer.check(&next))));
        }
        (_, [Val::Str(text)]) => {
            let place = match name {
                "group" => &mut next.group,
                "resource" => &mut next.resource,
                "subresource" => &mut next.subresource,
                "namespace" => &mut next.namespace,
                "name" => &mut next.name,
                "fieldSelector" => &mut next.field_selector,
                "labelSelector" => &mut next.label_selector,
                _ => return Err(EvalError::overload()),
            };
            *place = text.to_string();
        }
        _ => return Err(EvalError::overload()),
    }
    Ok(Val::Authorizer(authorizer.clone(), Rc::new(next)))
}

pub(super) fn answer<'a>(name: &str, decision: &Decision) -> Result<'a> {
    Ok(match name {
        "allowed" => Val::Bool(decision.allowed),
        "reason" => Val::string(decision.reason.clone()),
        "errored" => Val::Bool(decision.error.is_some()),
        "error" => Val::string(decision.error.clone().unwrap_or_default()),
        _ => return Err(EvalError::overload()),
    })
}
