//! Fills Secrets of type `kubernetes.io/service-account-token` with a token of the account they name, and removes
//! those whose account is gone.
//!
//! Reads: Secret (of this type), ServiceAccount.  Writes: Secret.
//! Such tokens do not expire; Pods get bound ones from the TokenRequest API instead.

use std::sync::Arc;

use client::{Informer, Key};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::ByteString;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    Error,
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::core::{Secret, ServiceAccount},
    meta::Meta,
};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const ISSUER: &str = "kubernetes/serviceaccount";

/// Index of token Secrets by `NAMESPACE/NAME` of their account.
const BY_ACCOUNT: &str = "account";

struct Loop {
    scope: Scope,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let secrets = scope.context.informers.select::<Secret>(&format!("type={TYPE}"), "");
    driver.wait_for(&secrets);
    secrets.add_index(BY_ACCOUNT, |secret| {
        let account = secret.annotation(ACCOUNT_NAME);
        account.map(|a| Key::new(secret.namespace(), a).to_string()).into_iter().collect()
    });
    secrets.on_change({
        let queue = driver.queue();
        move |change| driver::wake(change, &queue)
    });
    let accounts = driver.watch::<ServiceAccount>({
        let secrets = secrets.clone();
        move |change, queue| {
            let Some(account) = change.new.as_ref().or(change.old.as_ref()) else { return };
            let named = secrets.by_index(BY_ACCOUNT, &account.key().to_string());
            named.iter().for_each(|s| queue.add(s.key()));
        }
    });
    let this = Arc::new(Loop { scope, secrets, accounts });
    vec![driver.run(2, move |key| {
        let this = this.clone();
        async move { this.pass(key).await }
    })]
}

impl Loop {
    async fn pass(&self, key: Key) -> Outcome {
        let Some(secret) = self.secrets.get(&key).filter(|s| !s.is_deleting()) else { return Ok(None) };
        let Some(name) = secret.annotation(ACCOUNT_NAME) else { return Ok(None) };
        let account_key = Key::new(&*key.namespace, name);
        let account = match self.accounts.get(&account_key) {
            Some(account) => Some(ServiceAccount::clone(&account)),
            None => self.scope.writer.get::<ServiceAccount>(&account_key).await?,
        };
        let named_uid = secret.annotation(ACCOUNT_UID).unwrap_or_default();
        let Some(account) = account.filter(|a| named_uid.is_empty() || named_uid == a.uid()) else {
            self.scope.writer.delete::<Secret>(&key, Some(secret.uid())).await?;
            return Ok(None);
        };
        let Some(pem) = &self.scope.config().service_account_key_pem else { return Ok(None) };
        let mut next = Secret::clone(&secret);
        next.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.to_owned(), account.uid().to_owned());
        let data = next.data.get_or_insert_default();
        let ca = self.scope.config().cluster_ca_pem.clone().into_bytes();
        data.insert("ca.crt".to_owned(), ByteString(ca));
        data.insert("namespace".to_owned(), ByteString(key.namespace.clone().into_bytes()));
        if data.get("token").is_none_or(|t| t.0.is_empty()) {
            let token = token(pem, &account, &secret).map_err(|why| Error::Object { kind: "Secret", key, why })?;
            data.insert("token".to_owned(), ByteString(token.into_bytes()));
        }
        if next != *secret {
            self.scope.writer.update(&next).await?;
        }
        Ok(None)
    }
}

fn token(pem: &str, account: &ServiceAccount, secret: &Secret) -> Result<String, String> {
    let rsa = EncodingKey::from_rsa_pem(pem.as_bytes()).map(|key| (Algorithm::RS256, key));
    let (algorithm, key) = rsa
        .or_else(|_| EncodingKey::from_ec_pem(pem.as_bytes()).map(|key| (Algorithm::ES256, key)))
        .map_err(|why| format!("the service-account key can sign neither RS256 nor ES256: {why}"))?;
    let claims = json!({
        "iss": ISSUER,
        "sub": format!("system:serviceaccount:{}:{}", account.namespace(), account.name()),
        "kubernetes.io/serviceaccount/namespace": account.namespace(),
        "kubernetes.io/serviceaccount/secret.name": secret.name(),
        "kubernetes.io/serviceaccount/service-account.name": account.name(),
        "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
    });
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).map_err(|why| format!("cannot sign a token: {why}"))
}
