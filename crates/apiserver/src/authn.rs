//! Who sends a request: an ordered table of ways to tell, from the connection's certificate and the bearer token.
//!
//! A credential that is there and wrong is 401, whatever else the request carries; a request without any is
//! `system:anonymous` where that is allowed.

pub(crate) mod bootstrap_token;
pub(crate) mod certificate;
pub(crate) mod impersonate;
pub(crate) mod jwks;
pub(crate) mod service_account;
pub(crate) mod signing;
pub(crate) mod static_token;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use api::status::Status;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use self::{service_account::Tokens, static_token::StaticTokens};
use crate::{
    config::Config,
    server::{Error, Server},
    user::{AUTHENTICATED, User, UserInfo},
};

/// A verified token is not verified again for this long (as upstream).
const REMEMBER: Duration = Duration::from_secs(10);
const REMEMBERED_MAX: usize = 8192;

/// What the connection itself proves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// The verified client certificate, DER.
    pub(crate) certificate: Option<Arc<[u8]>>,
    pub(crate) address: Option<std::net::SocketAddr>,
    /// The certificate's user, worked out once per connection.
    pub(crate) user: Option<User>,
}

pub(crate) struct Authenticator {
    anonymous: Option<User>,
    static_tokens: StaticTokens,
    tokens: Option<Tokens>,
    bootstrap_tokens: bool,
    remembered: Mutex<HashMap<[u8; 32], (User, Instant)>>,
}

impl Authenticator {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            anonymous: config.anonymous.then(|| Arc::new(UserInfo::anonymous())),
            static_tokens: StaticTokens::new(&config.tokens),
            tokens: config.service_accounts.as_ref().map(Tokens::new).transpose()?,
            bootstrap_tokens: config.bootstrap_tokens,
            remembered: Mutex::default(),
        })
    }

    /// Service-account tokens, where the server issues them.
    pub(crate) fn tokens(&self) -> Option<&Tokens> {
        self.tokens.as_ref()
    }

    /// The user of a request. Takes the token out of the headers, so that no later step can leak it.
    pub(crate) async fn authenticate(
        &self,
        server: &Arc<Server>,
        peer: &Peer,
        headers: &mut HeaderMap,
    ) -> Result<User, Status> {
        if let Some(user) = &peer.user {
            headers.remove(header::AUTHORIZATION);
            return Ok(user.clone());
        }
        if let Some(token) = take_token(headers) {
            return self.token_user(server, &token, &[]).await.map(|(user, _)| user).ok_or_else(Status::unauthorized);
        }
        self.anonymous.clone().ok_or_else(Status::unauthorized)
    }

    /// The user of a token and the audiences it was meant for, of the ones asked about (empty: the API itself).
    pub(crate) async fn token_user(
        &self,
        server: &Arc<Server>,
        token: &str,
        audiences: &[String],
    ) -> Option<(User, Vec<String>)> {
        if let Some(user) = self.static_tokens.find(token) {
            return Some((user, Vec::new()));
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if audiences.is_empty()
            && let Some((user, since)) = self.remembered.lock().get(&digest)
            && since.elapsed() < REMEMBER
        {
            return Some((user.clone(), Vec::new()));
        }
        let found = self.verify(server, token, audiences).await?;
        if audiences.is_empty() {
            let mut remembered = self.remembered.lock();
            if remembered.len() >= REMEMBERED_MAX {
                remembered.retain(|_, (_, since)| since.elapsed() < REMEMBER);
            }
            if remembered.len() < REMEMBERED_MAX {
                remembered.insert(digest, (found.0.clone(), Instant::now()));
            }
        }
        Some(found)
    }

    async fn verify(&self, server: &Arc<Server>, token: &str, audiences: &[String]) -> Option<(User, Vec<String>)> {
        if let Some(tokens) = &self.tokens
            && tokens.claims_ours(token)
        {
            return match tokens.verify(server, token, audiences).await {
                Ok((user, matched)) => Some((Arc::new(user), matched)),
                Err(why) => {
                    tracing::debug!(%why, "refused a service account token");
                    None
                }
            };
        }
        if self.bootstrap_tokens {
            return bootstrap_token::find(server, token).await.map(|user| (Arc::new(user), Vec::new()));
        }
        None
    }
}

/// The bearer token of a request; a WebSocket client may send it as a subprotocol.
fn take_token(headers: &mut HeaderMap) -> Option<String> {
    if let Some(value) = headers.remove(header::AUTHORIZATION) {
        let text = value.to_str().ok()?;
        let (scheme, token) = text.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_string());
    }
    websocket_token(headers)
}

const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

fn websocket_token(headers: &mut HeaderMap) -> Option<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.to_string();
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        offered.split(',').map(str::trim).partition(|protocol| protocol.starts_with(WEBSOCKET_TOKEN));
    let [token] = tokens[..] else { return None };
    let decoded = URL_SAFE_NO_PAD.decode(token[WEBSOCKET_TOKEN.len()..].trim_end_matches('=')).ok()?;
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others.join(", ").parse().ok()?);
    String::from_utf8(decoded).ok()
}

/// Adds the group of all who proved who they are.
pub(crate) fn authenticated(mut user: UserInfo) -> UserInfo {
    if !user.in_group(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}
