//! `SubjectAccessReview` in its four forms: may somebody do something?

use std::{collections::BTreeMap, sync::Arc};

use api::status::{FieldError, Status};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::Handler;
use crate::{
    authz::{Attributes, Decision, evaluator},
    body::Body,
    catalog::Served,
    pipeline::{
        answer::{self, Answer},
        call::Call,
    },
    registry::{input, meta, output},
    user::{User, UserInfo},
};

/// Whose rights are asked about.
pub(crate) enum AccessReview {
    /// The user in the request.
    Subject,
    /// The same, within the namespace of the path.
    Local,
    /// The caller.
    Own,
}

#[async_trait]
impl Handler for AccessReview {
    async fn handle(&self, call: &Call, served: &Served, body: Body) -> Answer {
        if call.info.verb != "create" {
            return Err(Status::method_not_allowed_on_path());
        }
        let accepted = call.negotiate(output::offer(served))?;
        let mut review = input::object(call, served, body, "CreateOptions").await?;
        meta::check_type(&mut review, &served.api_version(), &served.resource.kind)?;
        let spec = review["spec"].clone();
        let user = match self {
            Self::Own => call.user.clone(),
            _ => subject(&spec, served)?,
        };
        let attributes = wanted(&spec, user, served)?;
        if matches!(self, Self::Local) && attributes.namespace != call.info.namespace {
            return Err(Status::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {}",
                call.info.namespace
            )));
        }
        let decision = call.server.authorizer().decide(&call.server, &attributes).await;
        review["status"] = match decision {
            Decision::Allowed(why) if why.is_empty() => json!({"allowed": true}),
            Decision::Allowed(why) => json!({"allowed": true, "reason": why}),
            Decision::Denied(why) if why.is_empty() => json!({"allowed": false}),
            Decision::Denied(why) => json!({"allowed": false, "reason": why}),
        };
        meta::of(&mut review);
        answer::value(201, &review, accepted)
    }
}

fn subject(spec: &Value, served: &Served) -> Result<User, Status> {
    let name = spec["user"].as_str().unwrap_or_default();
    let groups: Vec<String> = strings(&spec["groups"]);
    if name.is_empty() && groups.is_empty() {
        let error = FieldError::invalid("spec.user", "", "at least one of user or group must be specified");
        return Err(Status::invalid(served.about_kind(""), vec![error]));
    }
    let extra: BTreeMap<String, Vec<String>> = spec["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, values)| (key.to_lowercase(), strings(values)))
        .collect();
    let uid = spec["uid"].as_str().unwrap_or_default().into();
    Ok(Arc::new(UserInfo { name: name.into(), uid, groups, extra }))
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|item| Some(item.as_str()?.to_string())).collect()
}

fn wanted(spec: &Value, user: User, served: &Served) -> Result<Attributes, Status> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let invalid = |why: &str| {
        let error = FieldError::invalid("spec.resourceAttributes", resource.clone(), why);
        Err(Status::invalid(served.about_kind(""), vec![error]))
    };
    if !resource.is_null() && !path.is_null() {
        return invalid("cannot be specified in combination with nonResourceAttributes");
    }
    let text = |of: &Value, member: &str| of[member].as_str().unwrap_or_default().to_string();
    let blank = Attributes::resource(user);
    if !path.is_null() {
        return Ok(Attributes { is_resource: false, path: text(path, "path"), verb: text(path, "verb"), ..blank });
    }
    if resource.is_null() {
        return invalid("exactly one of nonResourceAttributes or resourceAttributes must be specified");
    }
    Ok(Attributes {
        verb: text(resource, "verb"),
        group: text(resource, "group"),
        version: text(resource, "version"),
        resource: text(resource, "resource"),
        subresource: text(resource, "subresource"),
        namespace: text(resource, "namespace"),
        name: text(resource, "name"),
        ..blank
    })
}

/// `SelfSubjectRulesReview`: everything the caller may do in a namespace, as far as rules can tell.
pub(crate) struct RulesReview;

#[async_trait]
impl Handler for RulesReview {
    async fn handle(&self, call: &Call, served: &Served, body: Body) -> Answer {
        if call.info.verb != "create" {
            return Err(Status::method_not_allowed_on_path());
        }
        let accepted = call.negotiate(output::offer(served))?;
        let mut review = input::object(call, served, body, "CreateOptions").await?;
        meta::check_type(&mut review, &served.api_version(), &served.resource.kind)?;
        let namespace = review["spec"]["namespace"].as_str().unwrap_or_default().to_string();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        if call.user.in_group(crate::user::MASTERS) {
            resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        for rule in call.server.authorizer().rbac.rules_of(&call.user, &namespace) {
            let shown = evaluator::to_value(&rule);
            if rule.paths.is_empty() { resources.push(shown) } else { paths.push(shown) }
        }
        review["status"] = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
        meta::of(&mut review);
        answer::value(201, &review, accepted)
    }
}
