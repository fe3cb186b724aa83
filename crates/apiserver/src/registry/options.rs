//! Options of requests: revisions, dry run, list limits and continue tokens, field validation.

use api::{
    kind::Part,
    status::{About, FieldError, Status},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use store::Revision;

use crate::pipeline::{call::Call, query::Query};

/// A `resourceVersion` parameter: `None` when unset; 0 is "any".
pub(crate) fn revision(text: Option<&str>) -> Result<Option<Revision>, Status> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
        }),
    }
}

/// `?dryRun=All`.
pub(crate) fn dry_run(query: &Query, options_kind: &str) -> Result<bool, Status> {
    check_dry_run(query.all("dryRun"), options_kind)
}

/// Whether these `dryRun` values ask for one; anything but `All` is an error.
pub(crate) fn check_dry_run<'a>(values: impl Iterator<Item = &'a str>, options_kind: &str) -> Result<bool, Status> {
    let mut dry = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value != "All" {
            let about = About { group: "meta.k8s.io", resource: options_kind, name: "" };
            return Err(Status::invalid(about, vec![FieldError::not_supported("dryRun", vec![value], &["All"])]));
        }
        dry = true;
    }
    Ok(dry)
}

/// What is done about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// `?fieldValidation`; upstream's default is `Warn`.
pub(crate) fn field_validation(call: &Call, options_kind: &str) -> Result<FieldValidation, Status> {
    match call.query.text("fieldValidation") {
        None | Some("Warn") => Ok(FieldValidation::Warn),
        Some("Ignore") => Ok(FieldValidation::Ignore),
        Some("Strict") => Ok(FieldValidation::Strict),
        Some(other) => {
            let about = About { group: "meta.k8s.io", resource: options_kind, name: "" };
            let error = FieldError::not_supported("fieldValidation", other, &["Ignore", "Strict", "Warn"]);
            Err(Status::invalid(about, vec![error]))
        }
    }
}

/// How a list is to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListOptions {
    /// At exactly this revision; `None`: the newest.
    pub(crate) exact: Option<Revision>,
    /// The answer must not be older.
    pub(crate) not_older_than: Option<Revision>,
    /// 0: all.
    pub(crate) limit: usize,
    /// The key to start from, when the list continues another.
    pub(crate) start: Option<String>,
}

/// The token by which a client asks for the rest of a list: `meta.k8s.io/v1` form of upstream.
#[derive(Serialize, Deserialize)]
struct ContinueToken {
    #[serde(rename = "v")]
    api_version: String,
    #[serde(rename = "rv")]
    revision: i64,
    /// Relative to the listed prefix.
    start: String,
}

/// Encodes a token that goes on with the key `start`, at `revision`.
pub(crate) fn continue_token(prefix: &str, start: &str, revision: Revision) -> String {
    token(prefix, start, i64::try_from(revision).unwrap_or(i64::MAX))
}

/// The token for going on after the revision of the first one was compacted: at the newest revision, which may miss
/// or repeat what changed meanwhile.
pub(crate) fn inconsistent_token(prefix: &str, start: &str) -> String {
    token(prefix, start, -1)
}

fn token(prefix: &str, start: &str, revision: i64) -> String {
    let start = start.strip_prefix(prefix).unwrap_or(start).into();
    let token = ContinueToken { api_version: "meta.k8s.io/v1".into(), revision, start };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

impl ListOptions {
    /// Reads and checks the parameters of a list under `prefix`.
    pub(crate) fn parse(query: &Query, prefix: &str) -> Result<Self, Status> {
        let limit = query.number("limit")?.unwrap_or(0);
        let limit = usize::try_from(limit).unwrap_or(0);
        let given = query.text("resourceVersion");
        let matching = query.text("resourceVersionMatch");
        if let Some(token) = query.text("continue") {
            return Self::continued(token, given, matching, limit, prefix);
        }
        let given = revision(given)?;
        let forbidden = |why: &str| {
            let about = About { group: "meta.k8s.io", resource: "ListOptions", name: "" };
            Err(Status::invalid(about, vec![FieldError::forbidden("resourceVersionMatch", why)]))
        };
        let mut options = Self { limit, ..Self::default() };
        match (matching, given) {
            (None, Some(0) | None) => {}
            // A limited list at a revision is answered from exactly that revision.
            (None, Some(revision)) if limit > 0 => options.exact = Some(revision),
            (None | Some("NotOlderThan"), Some(revision)) => options.not_older_than = Some(revision),
            (Some("Exact"), Some(0)) => {
                return forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            (Some("Exact"), Some(revision)) => options.exact = Some(revision),
            (Some(_), None) if query.get("sendInitialEvents").is_none() => {
                return forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            (Some("NotOlderThan"), None) => {}
            (Some(other), _) => {
                let about = About { group: "meta.k8s.io", resource: "ListOptions", name: "" };
                let error = FieldError::not_supported("resourceVersionMatch", other, &["Exact", "NotOlderThan", ""]);
                return Err(Status::invalid(about, vec![error]));
            }
        }
        Ok(options)
    }

    fn continued(
        token: &str,
        given: Option<&str>,
        matching: Option<&str>,
        limit: usize,
        prefix: &str,
    ) -> Result<Self, Status> {
        if matching.is_some() {
            let about = About { group: "meta.k8s.io", resource: "ListOptions", name: "" };
            let why = "resourceVersionMatch is forbidden when continue is provided";
            return Err(Status::invalid(about, vec![FieldError::forbidden("resourceVersionMatch", why)]));
        }
        if given.is_some_and(|given| given != "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|error| invalid(&error.to_string()))?;
        let token: ContinueToken = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        if token.api_version != "meta.k8s.io/v1" {
            return Err(invalid(&format!("server does not recognize this encoded version {:?}", token.api_version)));
        }
        if token.start.is_empty() || token.start.split('/').any(|part| part == "..") {
            return Err(invalid("encoded start key empty or not relative to the listed resource"));
        }
        Ok(Self {
            // -1 stands for "go on at the newest revision", after the old one was compacted.
            exact: Revision::try_from(token.revision).ok().filter(|revision| *revision > 0),
            limit,
            start: Some(format!("{prefix}{}", token.start)),
            ..Self::default()
        })
    }
}

/// The part of an object that a write to `subresource` may change.
pub(crate) fn part(subresource: &str) -> Part {
    match subresource {
        "" => Part::Main,
        "status" => Part::Status,
        "resize" => Part::Other("resize"),
        "ephemeralcontainers" => Part::Other("ephemeralcontainers"),
        "approval" => Part::Other("approval"),
        "finalize" => Part::Other("finalize"),
        "binding" => Part::Other("binding"),
        _ => Part::Other("scale"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(query: &str) -> Result<ListOptions, u16> {
        ListOptions::parse(&Query::parse(Some(query)), "/registry/core/pods/").map_err(|status| status.code)
    }

    #[test]
    fn revisions_are_read_as_upstream_reads_them() {
        let empty = ListOptions::default();
        assert_eq!(parse(""), Ok(empty.clone()));
        assert_eq!(parse("resourceVersion=0"), Ok(empty.clone()));
        assert_eq!(parse("resourceVersion=5"), Ok(ListOptions { not_older_than: Some(5), ..empty.clone() }));
        assert_eq!(parse("resourceVersion=5&limit=2"), Ok(ListOptions { exact: Some(5), limit: 2, ..empty.clone() }));
        let exact = "resourceVersion=5&resourceVersionMatch=Exact";
        assert_eq!(parse(exact), Ok(ListOptions { exact: Some(5), ..empty }));
        assert_eq!(parse("resourceVersion=0&resourceVersionMatch=Exact"), Err(422));
        assert_eq!(parse("resourceVersionMatch=Exact"), Err(422));
        assert_eq!(parse("resourceVersion=5&resourceVersionMatch=Bogus"), Err(422));
        assert_eq!(parse("resourceVersion=x"), Err(400));
    }

    #[test]
    fn a_continue_token_resumes_behind_its_key() {
        let prefix = "/registry/core/pods/";
        let token = continue_token(prefix, "/registry/core/pods/a/b\0", 9);
        let options = parse(&format!("continue={token}&limit=3")).unwrap();
        assert_eq!(options.start.as_deref(), Some("/registry/core/pods/a/b\0"));
        assert_eq!((options.exact, options.limit), (Some(9), 3));
        assert_eq!(parse(&format!("continue={token}&resourceVersion=4")), Err(400));
        assert_eq!(parse("continue=%21%21"), Err(400));
        let newest = inconsistent_token(prefix, "/registry/core/pods/a/b\0");
        assert_eq!(parse(&format!("continue={newest}")).unwrap().exact, None);
    }
}
