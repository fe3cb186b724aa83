//! Deletes bootstrap tokens that have expired.
//!
//! Reads: Secret (type `bootstrap.kubernetes.io/token` in `kube-system`).  Writes: deletes Secret.

use std::sync::Arc;

use client::Key;
use jiff::Timestamp;
use tokio::task::JoinHandle;

use crate::{
    context::Scope,
    driver::{self, Driver},
    kinds::core::Secret,
    meta::{Meta, until},
};

pub(crate) const TYPE: &str = "bootstrap.kubernetes.io/token";

/// A text field of a token Secret.
pub(crate) fn field<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(name)?.0).ok()
}

/// When the token expires; one that cannot be read has expired.
pub(crate) fn expiry(secret: &Secret) -> Option<Timestamp> {
    let text = field(secret, "expiration").filter(|t| !t.is_empty())?;
    Some(text.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let fields = format!("type={TYPE},metadata.namespace=kube-system");
    let secrets = scope.context.informers.select::<Secret>(&fields, "");
    driver.wait_for(&secrets);
    secrets.on_change({
        let queue = driver.queue();
        move |change| driver::wake(change, &queue)
    });
    let scope = Arc::new(scope);
    vec![driver.run(1, move |key| {
        let (scope, secrets) = (scope.clone(), secrets.clone());
        async move {
            let Some(secret) = secrets.get(&key).filter(|s| !s.is_deleting()) else { return Ok(None) };
            let Some(expiry) = expiry(&secret) else { return Ok(None) };
            if let Some(left) = until(expiry, scope.now()) {
                return Ok(Some(left));
            }
            scope.writer.delete::<Secret>(&key, Some(secret.uid())).await.map(|()| None)
        }
    })]
}
