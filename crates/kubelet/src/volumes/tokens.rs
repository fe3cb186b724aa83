//! Service-account tokens bound to a pod, asked for once and renewed before they expire.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;

use super::{Context, Error};
use crate::pod::PodExt;

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) text: String,
    /// When a new one should be asked for: at 80 % of its life, or after a day.
    pub(super) renew: Timestamp,
}

/// Tokens of one pod by audience and lifetime.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<(String, i64), Token>>);

impl Tokens {
    pub(super) async fn get(
        &self,
        context: &Context<'_>,
        wanted: &core::ServiceAccountTokenProjection,
    ) -> Result<Token, Error> {
        let seconds = wanted.expiration_seconds.unwrap_or(3600);
        let key = (wanted.audience.clone().unwrap_or_default(), seconds);
        let known = self.0.lock().get(&key).cloned();
        if let Some(token) = known.as_ref().filter(|token| token.renew > context.now) {
            return Ok(token.clone());
        }
        let token = request(context, &key.0, seconds).await?;
        self.0.lock().insert(key, token.clone());
        Ok(token)
    }
}

async fn request(context: &Context<'_>, audience: &str, seconds: i64) -> Result<Token, Error> {
    let pod = context.pod;
    let account = pod.specification().service_account_name.as_deref().unwrap_or("default");
    let body = authentication::TokenRequest {
        spec: Some(authentication::TokenRequestSpec {
            audiences: (!audience.is_empty()).then(|| vec![audience.to_owned()]),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(authentication::BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name().to_owned()),
                uid: Some(pod.uid().to_owned()),
            }),
        }),
        ..Default::default()
    };
    let api: Api<core::ServiceAccount> = Api::namespaced(context.client.clone(), pod.namespace());
    let answer = api.create_token_request(account, &PostParams::default(), &body).await;
    let failed = |source| Error::Api { what: format!("fetch token for service account {account}"), source };
    let answer = answer.map_err(|source| failed(Box::new(source)))?;
    let status = answer.status.unwrap_or_default();
    let none = || Error::Refused(format!("the API gave no token for service account {account}"));
    let text = status.token.filter(|token| !token.is_empty()).ok_or_else(none)?;
    let expires = status.expiration_timestamp.ok_or_else(none)?.0;
    let life = expires.duration_since(context.now);
    let renew = (life * 4 / 5).min(SignedDuration::from_hours(24));
    Ok(Token { text, renew: context.now.checked_add(renew).unwrap_or(context.now) })
}
