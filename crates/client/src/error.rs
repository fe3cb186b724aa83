//! What a failed request says, without matching on it.

/// Questions that callers ask of a [`kube::Error`].
pub trait ErrorExt {
    /// HTTP status code of the API's answer; `None` when there was none.
    fn code(&self) -> Option<u16>;
    /// `Status.reason` of the API's answer.
    fn reason(&self) -> Option<&str>;

    fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }
    /// The object changed since it was read.
    fn is_conflict(&self) -> bool {
        self.code() == Some(409) && self.reason() != Some("AlreadyExists")
    }
    fn is_already_exists(&self) -> bool {
        self.reason() == Some("AlreadyExists")
    }
    fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }
    /// The revision asked for is no longer known.
    fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }
}

impl ErrorExt for kube::Error {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Api(status) => Some(status.code),
            _ => None,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Api(status) => Some(&status.reason),
            _ => None,
        }
    }
}
