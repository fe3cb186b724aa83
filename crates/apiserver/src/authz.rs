//! Who may do what: an ordered table of authorizers; the first that allows decides.
//!
//! `system:masters` passes before any of them. Nobody can deny: what no authorizer allows is forbidden.

pub(crate) mod evaluator;
pub(crate) mod node;
pub(crate) mod rbac;

use std::sync::Arc;

use api::status::{About, Status};

use crate::{
    pipeline::call::Call,
    server::Server,
    user::{MASTERS, User},
};

/// What somebody wants to do.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) user: User,
    pub(crate) verb: String,
    /// A resource; otherwise `path` counts.
    pub(crate) is_resource: bool,
    pub(crate) path: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Selectors of a list, watch or deletecollection, as sent.
    pub(crate) field_selector: String,
    pub(crate) label_selector: String,
}

impl Attributes {
    /// A resource request of `user`, otherwise blank.
    pub(crate) fn resource(user: User) -> Self {
        Self {
            user,
            verb: String::new(),
            is_resource: true,
            path: String::new(),
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            field_selector: String::new(),
            label_selector: String::new(),
        }
    }

    pub(crate) fn of(call: &Call) -> Self {
        let info = &call.info;
        Self {
            user: call.user.clone(),
            verb: info.verb.into(),
            is_resource: info.is_resource,
            path: info.path.clone(),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            field_selector: call.query.get("fieldSelector").unwrap_or_default().into(),
            label_selector: call.query.get("labelSelector").unwrap_or_default().into(),
        }
    }

    /// `pods` or `pods/log`.
    pub(crate) fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// Why this is forbidden, in the words that clients show.
    pub(crate) fn denial(&self, why: &str) -> String {
        let user = &self.user.name;
        let mut text = if !self.is_resource {
            format!("User {user:?} cannot {} path {:?}", self.verb, self.path)
        } else {
            let place = if self.namespace.is_empty() {
                "at the cluster scope".to_string()
            } else {
                format!("in the namespace {:?}", self.namespace)
            };
            format!(
                "User {user:?} cannot {} resource {:?} in API group {:?} {place}",
                self.verb,
                self.full_resource(),
                self.group
            )
        };
        if !why.is_empty() {
            text += ": ";
            text += why;
        }
        text
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// With the reason that reviews show.
    Allowed(String),
    Denied(String),
}

impl Decision {
    pub(crate) fn allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

pub(crate) struct Authorizer {
    pub(crate) rbac: rbac::Rbac,
    pub(crate) nodes: node::NodeAuthorizer,
}

impl Authorizer {
    pub(crate) fn new() -> Self {
        Self { rbac: rbac::Rbac::default(), nodes: node::NodeAuthorizer::default() }
    }

    /// 403 unless the request is allowed.
    pub(crate) async fn check(&self, call: &Call) -> Result<(), Status> {
        if call.user.in_group(MASTERS) {
            return Ok(());
        }
        let attributes = Attributes::of(call);
        let Decision::Denied(why) = self.decide(&call.server, &attributes).await else { return Ok(()) };
        let resource = attributes.full_resource();
        let about = About { group: &attributes.group, resource: &resource, name: &attributes.name };
        Err(Status::forbidden(about, attributes.denial(&why)))
    }

    pub(crate) async fn decide(&self, server: &Arc<Server>, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(MASTERS) {
            return Decision::Allowed(String::new());
        }
        let why = match self.nodes.decide(server, attributes).await {
            Some(Decision::Allowed(why)) => return Decision::Allowed(why),
            Some(Decision::Denied(why)) => why,
            None => String::new(),
        };
        match self.rbac.decide(attributes) {
            Decision::Denied(reason) if reason.is_empty() => Decision::Denied(why),
            decision => decision,
        }
    }
}
