//! Who calls the node's server, and may they.
//!
//! Who: a client certificate of the cluster's CA, or a bearer token that the API vouches for. May they: members of a
//! trusted group always; all others if the API says so of the `nodes` subresource behind the path. Answers of the API
//! are kept for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use client::Client;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::say;
use crate::config::Config;

/// How long answers are kept.
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
const TOKENS: Duration = Duration::from_secs(120);
/// Entries kept at most; beyond it, all are asked for again.
const ENTRIES: usize = 1024;

/// A user as certificate or token names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct User {
    name: String,
    groups: Vec<String>,
}

/// What a connection proves of its other end.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer(Option<User>);

impl Peer {
    /// The certificate has been verified against the client CA already.
    pub(super) fn from_certificate(der: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self(None) };
        let subject = certificate.subject();
        let name = subject.iter_common_name().find_map(|name| name.as_str().ok().map(str::to_owned));
        let groups = subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned));
        Self(name.map(|name| User { name, groups: groups.collect() }))
    }
}

/// What of a request decides whether it may pass.
pub(super) struct Call {
    verb: &'static str,
    subresource: &'static str,
    token: Option<String>,
}

impl Call {
    pub(super) fn of(request: &Request) -> Self {
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        Self {
            verb: verb(request.method()),
            subresource: subresource(request.uri().path()),
            token: header.and_then(|value| value.strip_prefix("Bearer ")).map(|token| token.trim().to_owned()),
        }
    }
}

/// Answers with the time until which they count.
struct Kept<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn get(&self, key: &K) -> Option<V> {
        let entries = self.0.lock();
        entries.get(key).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, life: Duration) {
        let mut entries = self.0.lock();
        if entries.len() >= ENTRIES {
            entries.clear();
        }
        entries.insert(key, (value, Instant::now() + life));
    }
}

pub(super) struct Access {
    client: Client,
    node: String,
    trusted: Vec<String>,
    tokens: Kept<String, Option<User>>,
    decisions: Kept<(User, &'static str, &'static str), bool>,
}

impl Access {
    pub(super) fn new(client: Client, config: Config) -> Self {
        Self {
            client,
            node: config.node_name,
            trusted: config.trusted_groups,
            tokens: Kept::new(),
            decisions: Kept::new(),
        }
    }

    /// The error is the answer to send.
    pub(super) async fn check(&self, peer: &Peer, call: &Call) -> Result<(), Response> {
        let user = match &peer.0 {
            Some(user) => user.clone(),
            None => self.by_token(call.token.as_deref()).await?,
        };
        if user.groups.iter().any(|group| self.trusted.contains(group)) {
            return Ok(());
        }
        if user.name == ANONYMOUS {
            return Err(say(StatusCode::UNAUTHORIZED, "Unauthorized"));
        }
        let (verb, subresource) = (call.verb, call.subresource);
        // A narrow right first; `nodes/proxy` is the right to everything.
        if self.allowed(&user, verb, subresource).await? || self.allowed(&user, verb, "proxy").await? {
            return Ok(());
        }
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource} proxy])",
            user.name
        );
        Err(say(StatusCode::FORBIDDEN, message))
    }

    async fn by_token(&self, token: Option<&str>) -> Result<User, Response> {
        let Some(token) = token else {
            return Ok(User { name: ANONYMOUS.to_owned(), groups: vec!["system:unauthenticated".to_owned()] });
        };
        let unauthorized = || say(StatusCode::UNAUTHORIZED, "Unauthorized");
        if let Some(known) = self.tokens.get(&token.to_owned()) {
            return known.ok_or_else(unauthorized);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..Default::default() },
            ..Default::default()
        };
        let answer = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| say(StatusCode::INTERNAL_SERVER_ERROR, crate::chain(&error)))?;
        let status = answer.status.unwrap_or_default();
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true))
            .map(|user| User { name: user.username.unwrap_or_default(), groups: user.groups.unwrap_or_default() });
        self.tokens.put(token.to_owned(), user.clone(), TOKENS);
        user.ok_or_else(unauthorized)
    }

    async fn allowed(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, Response> {
        let key = (user.clone(), verb, subresource);
        if let Some(known) = self.decisions.get(&key) {
            return Ok(known);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = Api::<SubjectAccessReview>::all(self.client.clone()).create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| say(StatusCode::INTERNAL_SERVER_ERROR, crate::chain(&error)))?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.decisions.put(key, allowed, if allowed { ALLOWED } else { DENIED });
        Ok(allowed)
    }
}

const ANONYMOUS: &str = "system:anonymous";

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// The subresource of `nodes` that a path stands for.
fn subresource(path: &str) -> &'static str {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        "checkpoint" => "checkpoint",
        "healthz" => "healthz",
        "configz" => "configz",
        "pods" | "runningpods" => "pods",
        _ => "proxy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_to_rights() {
        for (path, expect) in [
            ("/metrics/cadvisor", "metrics"),
            ("/stats/summary", "stats"),
            ("/logs/", "log"),
            ("/pods", "pods"),
            ("/exec/n/p/c", "proxy"),
            ("/", "proxy"),
        ] {
            assert_eq!(subresource(path), expect, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_age() {
        let kept: Kept<u32, bool> = Kept::new();
        kept.put(1, true, Duration::from_secs(10));
        assert_eq!(kept.get(&1), Some(true));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(kept.get(&1), None);
    }
}
