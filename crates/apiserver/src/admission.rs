//! Admission: plugins that change and judge writes, in two ordered tables.
//!
//! First all mutating plugins run, in the order of [`MUTATING`]; then, on the object as it will be stored, all validating
//! ones in the order of [`VALIDATING`]. A plugin is one file with one static value. Plugins that count things (quota)
//! hand out a [`Ticket`] that is given back when the write does not happen.

mod amounts;
pub(crate) mod certificates;
pub(crate) mod default_toleration_seconds;
pub(crate) mod escalation;
pub(crate) mod ingress_class;
pub(crate) mod limit_ranger;
pub(crate) mod namespace_lifecycle;
pub(crate) mod node_restriction;
pub(crate) mod node_taints;
pub(crate) mod priority;
pub(crate) mod runtime_class;
pub(crate) mod service_account;
pub(crate) mod storage;

use std::sync::Arc;

use api::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use crate::{catalog::Served, config::Config, pipeline::call::Call, server::Server, user::UserInfo};

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A write on its way to the store.
#[derive(Clone)]
pub(crate) struct Attributes<'a> {
    pub(crate) call: &'a Call,
    pub(crate) served: &'a Served,
    pub(crate) operation: Operation,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The stored object, for updates and deletes.
    pub(crate) old: Option<&'a Value>,
    pub(crate) dry_run: bool,
    /// `CreateOptions`, `UpdateOptions`, `DeleteOptions` as webhooks see them.
    pub(crate) options: Value,
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(
        call: &'a Call,
        served: &'a Served,
        operation: Operation,
        namespace: &str,
        name: &str,
        dry_run: bool,
    ) -> Self {
        Self {
            call,
            served,
            operation,
            subresource: call.info.subresource.clone(),
            namespace: namespace.into(),
            name: name.into(),
            old: None,
            dry_run,
            options: Value::Null,
        }
    }

    pub(crate) fn user(&self) -> &UserInfo {
        &self.call.user
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.call.server
    }

    /// Whether the write is to this resource itself and not to one of its subresources.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.resource_is(group, plural)
    }

    pub(crate) fn resource_is(&self, group: &str, plural: &str) -> bool {
        self.served.resource.group == group && self.served.resource.plural == plural
    }

    /// 403 in the words of an admission plugin.
    pub(crate) fn forbid(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(self.served.about(&self.name), why)
    }
}

/// One admission plugin.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// Changes the object. Returns whether it did.
    async fn mutate(&self, _: &Attributes<'_>, _object: &mut Value) -> Result<bool, Status> {
        Ok(false)
    }

    /// Judges the write; there is no object in a delete.
    async fn validate(&self, _: &Attributes<'_>, _object: Option<&Value>) -> Result<Option<Ticket>, Status> {
        Ok(None)
    }

    /// Whether the plugin cares at all: asked before anything else, so that others cost nothing.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;
}

/// Something taken in advance for a write; dropped without [`Tickets::keep`], it is given back.
pub(crate) struct Ticket(Option<Box<dyn FnOnce() + Send>>);

impl Ticket {
    pub(crate) fn new(give_back: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(give_back)))
    }

    /// The write happened.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            give_back();
        }
    }
}

/// The tickets of one write.
#[derive(Default)]
pub(crate) struct Tickets(Vec<Ticket>);

impl Tickets {
    /// The write happened.
    pub(crate) fn keep(self) {
        self.0.into_iter().for_each(Ticket::keep);
    }
}

/// State that plugins share.
pub(crate) struct Admission {}

impl Admission {
    pub(crate) fn new(_: &Config) -> Self {
        Self {}
    }
}

/// Mutating plugins in their order.
static MUTATING: &[&dyn Plugin] = &[
    &namespace_lifecycle::NamespaceLifecycle,
    &limit_ranger::LimitRanger,
    &service_account::ServiceAccount,
    &node_taints::TaintNodesByCondition,
    &priority::Priority,
    &default_toleration_seconds::DefaultTolerationSeconds,
    &storage::DefaultStorageClass,
    &storage::InUseProtection,
    &runtime_class::RuntimeClass,
    &ingress_class::DefaultIngressClass,
];

/// Validating plugins in their order.
static VALIDATING: &[&dyn Plugin] = &[
    &escalation::Escalation,
    &limit_ranger::LimitRanger,
    &node_restriction::NodeRestriction,
    &priority::Priority,
    &storage::ClaimResize,
    &certificates::CertificateApproval,
    &certificates::CertificateSigning,
    &certificates::CertificateSubjectRestriction,
];

/// Runs the mutating plugins. Returns whether the object changed.
pub(crate) async fn mutate(attributes: &Attributes<'_>, object: &mut Value) -> Result<bool, Status> {
    let mut changed = false;
    for plugin in MUTATING {
        if plugin.handles(attributes) {
            changed |= plugin.mutate(attributes, object).await?;
        }
    }
    Ok(changed)
}

/// Runs the validating plugins.
pub(crate) async fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Tickets, Status> {
    let mut tickets = Tickets::default();
    for plugin in VALIDATING {
        if plugin.handles(attributes) {
            tickets.0.extend(plugin.validate(attributes, object).await?);
        }
    }
    Ok(tickets)
}

/// An object is gone: what plugins counted for it is free again.
pub(crate) fn deleted(_call: &Call, _served: &Served, _object: &Value) {}

/// Starts following what plugins must know at once.
pub(crate) async fn start(_: &Arc<Server>) {}
