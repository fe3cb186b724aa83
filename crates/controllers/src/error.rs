//! Why a pass over one key failed.

use client::{ErrorExt, Key};

/// A failed pass. The driver logs it once and tries the key again later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused or could not be reached.
    #[error("failed to {verb} {kind} {key}")]
    Api {
        verb: &'static str,
        kind: String,
        key: Key,
        #[source]
        source: Box<kube::Error>,
    },
    /// A request could not be put together.
    #[error("failed to build a request to {verb} {kind} {key}: {why}")]
    Request { verb: &'static str, kind: String, key: Key, why: String },
    /// An object says something that cannot be acted on.
    #[error("{kind} {key} cannot be processed: {why}")]
    Object { kind: &'static str, key: Key, why: String },
    /// Several steps of one pass failed; the first is the source.
    #[error("{count} steps failed, the first")]
    Several {
        count: usize,
        #[source]
        first: Box<Error>,
    },
    /// The world has not caught up with what was asked of it; there is nothing to report yet.
    #[error("waiting: {0}")]
    Waiting(String),
}

impl Error {
    fn api(&self) -> Option<&kube::Error> {
        match self {
            Self::Api { source, .. } => Some(source),
            Self::Several { first, .. } => first.api(),
            _ => None,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.api().is_some_and(ErrorExt::is_not_found)
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.api().is_some_and(ErrorExt::is_conflict)
    }

    pub(crate) fn is_invalid(&self) -> bool {
        self.api().is_some_and(|e| e.code() == Some(422))
    }

    /// The object has gone, or another of its name has taken its place: a write for the old uid has no subject.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_not_found() || self.is_invalid() || self.is_conflict()
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        self.api().is_some_and(ErrorExt::is_already_exists)
    }

    pub(crate) fn is_forbidden(&self) -> bool {
        self.api().is_some_and(ErrorExt::is_forbidden)
    }

    /// The answer of a server that refuses new content because the namespace is being deleted.
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        let Some(kube::Error::Api(status)) = self.api() else { return false };
        let causes = status.details.iter().flat_map(|d| &d.causes);
        self.is_forbidden() && causes.into_iter().any(|c| c.reason == "NamespaceTerminating")
    }

    /// True for what will most likely pass by itself within moments.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Waiting(_)) || self.is_conflict()
    }

    /// The text for events and conditions: the server's own words where there are some.
    pub(crate) fn message(&self) -> String {
        match self.api() {
            Some(kube::Error::Api(status)) => status.message.clone(),
            _ => chain(self),
        }
    }

    /// One error for the outcome of independent steps.
    pub(crate) fn collect(errors: Vec<Error>) -> Result<(), Error> {
        let count = errors.len();
        match errors.into_iter().next() {
            None => Ok(()),
            Some(only) if count == 1 => Err(only),
            Some(first) => Err(Self::Several { count, first: Box::new(first) }),
        }
    }
}

/// The error and its causes on one line; of an API error only what the server said.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let api =
            error.downcast_ref::<kube::Error>().or_else(|| error.downcast_ref::<Box<kube::Error>>().map(|b| &**b));
        let (part, last) = match api {
            Some(kube::Error::Api(status)) => (format!("{} ({})", status.message, status.reason), true),
            _ => (error.to_string(), false),
        };
        if !text.ends_with(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = if last { None } else { error.source() };
    }
    text
}
