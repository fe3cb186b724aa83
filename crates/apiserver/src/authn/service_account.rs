//! Service-account tokens: signed by the server, bound to the account and, where asked for, to a pod, secret or node.
//!
//! A token dies with what it is bound to: the objects it names are looked up, by uid, each time it is verified (results
//! are remembered for seconds by the caller).

use std::sync::Arc;

use api::status::Status;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::signing::Key;
use crate::{
    clock,
    config::ServiceAccountKeys,
    registry::{meta, read},
    server::{Error, Server},
    user::UserInfo,
};

/// Tolerance for clocks that disagree.
const LEEWAY_S: u64 = 10;
/// A token whose pod is going stays valid this long behind the pod's deletion time.
const POD_GRACE_S: i64 = 60;

/// Signs and verifies tokens.
pub(crate) struct Tokens {
    keys: Vec<Key>,
    issuers: Vec<String>,
    audiences: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(default)]
    pub(crate) aud: OneOrMany,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) iat: Option<i64>,
    #[serde(default)]
    pub(crate) iss: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jti: Option<String>,
    #[serde(default, rename = "kubernetes.io", skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<Bound>,
    /// Legacy tokens, which live in secrets, carry flat claims instead.
    #[serde(default, rename = "kubernetes.io/serviceaccount/namespace", skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_namespace: Option<String>,
    #[serde(default, rename = "kubernetes.io/serviceaccount/secret.name", skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_secret: Option<String>,
    #[serde(
        default,
        rename = "kubernetes.io/serviceaccount/service-account.name",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) legacy_name: Option<String>,
    #[serde(
        default,
        rename = "kubernetes.io/serviceaccount/service-account.uid",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) legacy_uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nbf: Option<i64>,
    #[serde(default)]
    pub(crate) sub: String,
}

/// `aud` is a list or a single string.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    Many(Vec<String>),
    One(String),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn list(&self) -> &[String] {
        match self {
            Self::Many(list) => list,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    pub(crate) serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

impl Tokens {
    pub(crate) fn new(config: &ServiceAccountKeys) -> Result<Self, Error> {
        let keys = config.keys.iter().map(Key::load).collect::<Result<Vec<_>, _>>()?;
        let what = "service account signing key";
        if keys.is_empty() || config.issuers.is_empty() {
            return Err(Error::Material { what, why: "at least one key and one issuer are needed".into() });
        }
        let audiences = if config.audiences.is_empty() { config.issuers.clone() } else { config.audiences.clone() };
        Ok(Self { keys, issuers: config.issuers.clone(), audiences })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuers[0]
    }

    /// Audiences of the API itself.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    pub(crate) fn algorithms(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> =
            self.keys.iter().map(|key| if key.algorithm == Algorithm::RS256 { "RS256" } else { "ES256" }).collect();
        names.dedup();
        names
    }

    pub(crate) fn jwks(&self) -> Vec<&Value> {
        self.keys.iter().map(Key::jwk).collect()
    }

    /// Signs claims with the first key.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, Status> {
        let key = &self.keys[0];
        let mut header = Header::new(key.algorithm);
        header.kid = Some(key.id.clone());
        header.typ = None;
        jsonwebtoken::encode(&header, claims, &key.encoding)
            .map_err(|error| Status::internal(format!("cannot sign a token: {error}")))
    }

    /// The token looks like one of ours: a JWT with one of our issuers (or a legacy one).
    pub(crate) fn claims_ours(&self, token: &str) -> bool {
        jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token)
            .is_ok_and(|claims| self.issuers.contains(&claims.iss) || claims.iss == LEGACY_ISSUER)
    }

    /// The account of a token and the audiences that matched.
    pub(crate) async fn verify(
        &self,
        server: &Arc<Server>,
        token: &str,
        audiences: &[String],
    ) -> Result<(UserInfo, Vec<String>), String> {
        let claims = self.decode(token)?;
        let wanted = if audiences.is_empty() { &self.audiences[..] } else { audiences };
        if claims.iss == LEGACY_ISSUER {
            let matched: Vec<String> = wanted.iter().filter(|one| self.audiences.contains(one)).cloned().collect();
            if matched.is_empty() {
                return Err("token audiences do not match".into());
            }
            return Ok((legacy_user(server, token, &claims).await?, matched));
        }
        let own = claims.aud.list();
        let matched: Vec<String> = wanted.iter().filter(|audience| own.contains(audience)).cloned().collect();
        if matched.is_empty() {
            return Err(format!("token audiences {own:?} are none of {wanted:?}"));
        }
        let bound = claims.bound.as_ref().ok_or("no kubernetes.io claim")?;
        let mut user = account(server, &bound.namespace, &bound.serviceaccount).await?;
        if let Some(secret) = &bound.secret {
            exists(server, "secrets", &bound.namespace, secret).await?;
        }
        if let Some(pod) = &bound.pod {
            exists(server, "pods", &bound.namespace, pod).await?;
            user.extra.insert("authentication.kubernetes.io/pod-name".into(), vec![pod.name.clone()]);
            user.extra.insert("authentication.kubernetes.io/pod-uid".into(), vec![pod.uid.clone()]);
        }
        if let Some(node) = &bound.node {
            if bound.pod.is_none() {
                exists(server, "nodes", "", node).await?;
            }
            user.extra.insert("authentication.kubernetes.io/node-name".into(), vec![node.name.clone()]);
            user.extra.insert("authentication.kubernetes.io/node-uid".into(), vec![node.uid.clone()]);
        }
        if let Some(id) = &claims.jti {
            user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
        }
        Ok((user, matched))
    }

    fn decode(&self, token: &str) -> Result<Claims, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        let candidates = self
            .keys
            .iter()
            .filter(|key| key.algorithm == header.alg && header.kid.as_ref().is_none_or(|id| *id == key.id));
        let mut why = "no key with the token's id".to_string();
        for key in candidates {
            let mut validation = Validation::new(key.algorithm);
            validation.validate_aud = false;
            validation.validate_nbf = true;
            validation.leeway = LEEWAY_S;
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation) {
                Ok(data) if data.claims.iss != LEGACY_ISSUER && data.claims.exp.is_none() => {
                    why = "token never expires".into();
                }
                Ok(data) => return Ok(data.claims),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }
}

/// Issuer of tokens that live in secrets.
pub(crate) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

async fn legacy_user(server: &Arc<Server>, token: &str, claims: &Claims) -> Result<UserInfo, String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let missing = "a legacy token must name its account and secret";
    let namespace = claims.legacy_namespace.as_deref().ok_or(missing)?;
    let name = claims.legacy_name.as_deref().ok_or(missing)?;
    let uid = claims.legacy_uid.as_deref().ok_or(missing)?;
    let secret = claims.legacy_secret.as_deref().ok_or(missing)?;
    let found = read::by_name(server, "", "secrets", namespace, secret).await.map_err(|status| status.message)?;
    let found = found.filter(|secret| !meta::is_deleting(secret)).ok_or("the token's secret is gone")?;
    let stored = STANDARD.decode(found["data"]["token"].as_str().unwrap_or_default()).unwrap_or_default();
    if stored != token.as_bytes() {
        return Err("the token's secret holds another token".into());
    }
    account(server, namespace, &Reference { name: name.into(), uid: uid.into() }).await
}

async fn account(server: &Arc<Server>, namespace: &str, reference: &Reference) -> Result<UserInfo, String> {
    exists(server, "serviceaccounts", namespace, reference).await?;
    Ok(UserInfo::service_account(namespace, &reference.name, &reference.uid))
}

/// The object with that uid is there, and not long past its deletion.
async fn exists(server: &Arc<Server>, plural: &str, namespace: &str, reference: &Reference) -> Result<(), String> {
    let found = read::by_name(server, "", plural, namespace, &reference.name).await.map_err(|status| status.message)?;
    let object = found.ok_or_else(|| format!("{plural} {:?} is gone", reference.name))?;
    if meta::uid(&object) != reference.uid {
        return Err(format!("{plural} {:?} is another one by now", reference.name));
    }
    let deleted: Option<jiff::Timestamp> = meta::text(&object, "deletionTimestamp").parse().ok();
    if deleted.is_some_and(|at| at.as_second() + POD_GRACE_S < clock::unix()) {
        return Err(format!("{plural} {:?} was deleted", reference.name));
    }
    Ok(())
}
