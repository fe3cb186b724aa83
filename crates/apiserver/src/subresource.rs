//! Subresources with behaviour of their own, and resources that are questions: one file each, found through a table.

pub(crate) mod access_review;
pub(crate) mod authentication_review;
pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod pod_streams;
pub(crate) mod proxies;
pub(crate) mod token;

use api::status::Status;
use async_trait::async_trait;

use crate::{
    body::Body,
    catalog::Served,
    pipeline::{answer::Answer, call::Call},
};

/// Answers a subresource, or a resource of which nothing is stored.
#[async_trait]
pub(crate) trait Handler: Send + Sync {
    async fn handle(&self, call: &Call, served: &Served, body: Body) -> Answer;
}

/// Group, plural, subresource; the handler.
type Line = (&'static str, &'static str, &'static str, &'static dyn Handler);

/// Everything that the registry does not answer by itself. An empty subresource: the resource itself is a question.
static HANDLERS: &[Line] = &[
    ("", "bindings", "", &binding::Binding),
    ("", "nodes", "proxy", &proxies::Proxy::Node),
    ("", "pods", "attach", &pod_streams::PodStream::Attach),
    ("", "pods", "binding", &binding::Binding),
    ("", "pods", "eviction", &eviction::Eviction),
    ("", "pods", "exec", &pod_streams::PodStream::Exec),
    ("", "pods", "log", &pod_streams::PodStream::Log),
    ("", "pods", "portforward", &pod_streams::PodStream::PortForward),
    ("", "pods", "proxy", &proxies::Proxy::Pod),
    ("", "services", "proxy", &proxies::Proxy::Service),
    ("", "serviceaccounts", "token", &token::Token),
    (AUTHENTICATION, "selfsubjectreviews", "", &authentication_review::SelfReview),
    (AUTHENTICATION, "tokenreviews", "", &authentication_review::TokenReview),
    (AUTHORIZATION, "localsubjectaccessreviews", "", &access_review::AccessReview::Local),
    (AUTHORIZATION, "selfsubjectaccessreviews", "", &access_review::AccessReview::Own),
    (AUTHORIZATION, "selfsubjectrulesreviews", "", &access_review::RulesReview),
    (AUTHORIZATION, "subjectaccessreviews", "", &access_review::AccessReview::Subject),
];

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// The handler of a subresource, where it is special.
pub(crate) fn find(served: &Served, subresource: &str) -> Option<&'static dyn Handler> {
    let resource = &served.resource;
    HANDLERS
        .iter()
        .find(|(group, plural, sub, _)| *group == resource.group && *plural == resource.plural && *sub == subresource)
        .map(|(.., handler)| *handler)
}

/// Who answers a resource whose objects are not kept.
pub(crate) fn virtual_resource(served: &Served) -> Option<&'static dyn Handler> {
    if served.resource.hooks.stored() {
        return None;
    }
    Some(find(served, "").unwrap_or(&Unanswered))
}

/// A question without an answer here.
struct Unanswered;

#[async_trait]
impl Handler for Unanswered {
    async fn handle(&self, _: &Call, _: &Served, _: Body) -> Answer {
        Err(Status::method_not_allowed_on_path())
    }
}
