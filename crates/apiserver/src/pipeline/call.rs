//! One request on its way through the pipeline: who, what, when, and the warnings gathered for its answer.

use std::sync::Arc;

use api::{
    kind::{Context, Part},
    status::Status,
};
use http::{HeaderMap, Method};
use parking_lot::Mutex;

use super::{
    accept::{self, Accepted, Offer},
    info::RequestInfo,
    query::Query,
};
use crate::{catalog::Catalog, clock, server::Server, user::User};

/// Everything later steps may ask about a request. The body travels beside it.
pub(crate) struct Call {
    pub(crate) server: Arc<Server>,
    pub(crate) user: User,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) info: RequestInfo,
    /// The resources served when the request came in.
    pub(crate) catalog: Arc<Catalog>,
    /// RFC 3339, whole seconds: every timestamp that the request writes.
    pub(crate) now: String,
    /// What the connection attached: a pending upgrade.
    pub(crate) extensions: Mutex<http::Extensions>,
    warnings: Mutex<Vec<String>>,
}

impl Call {
    pub(crate) fn new(
        server: Arc<Server>,
        user: User,
        method: Method,
        headers: HeaderMap,
        query: Query,
        info: RequestInfo,
    ) -> Self {
        let catalog = server.catalog();
        Self {
            server,
            user,
            method,
            headers,
            query,
            info,
            catalog,
            now: clock::now(),
            extensions: Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    pub(crate) fn with_extensions(self, extensions: http::Extensions) -> Self {
        Self { extensions: Mutex::new(extensions), ..self }
    }

    /// Requests that last as long as the client likes: they have no time limit and take no seat.
    pub(crate) fn is_long_running(&self) -> bool {
        self.info.verb == "watch"
            || matches!(self.info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
    }

    /// A call that the server makes on its own behalf.
    pub(crate) fn internal(server: &Arc<Server>) -> Self {
        Self::new(
            server.clone(),
            server.own_user().clone(),
            Method::GET,
            HeaderMap::new(),
            Query::default(),
            RequestInfo::default(),
        )
    }

    /// Adds a `Warning` header to the answer; a repeated text is sent once.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }

    pub(crate) fn negotiate(&self, offer: Offer) -> Result<Accepted, Status> {
        accept::negotiate(&self.headers, self.query.flag("pretty"), offer)
    }

    /// What hooks may know.
    pub(crate) fn context<'a>(&'a self, version: &'a str, part: Part) -> Context<'a> {
        Context { now: &self.now, user: &self.user.name, groups: &self.user.groups, version, part }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn user_agent(&self) -> &str {
        self.header("user-agent").unwrap_or_default()
    }

    /// Who owns the fields that this request writes: `?fieldManager`, or the first word of the user agent.
    pub(crate) fn field_manager(&self) -> String {
        if let Some(manager) = self.query.text("fieldManager") {
            return manager.to_string();
        }
        match api::apply::manager_of(self.user_agent()) {
            name if name.is_empty() => "unknown".into(),
            name => name,
        }
    }
}
