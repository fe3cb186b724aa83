//! Deletes requests that have served their purpose: decided or failed ones after an hour, undecided ones after a day,
//! and those whose certificate has expired.
//!
//! Reads: CertificateSigningRequest.  Writes: deletes CertificateSigningRequest.

use std::sync::Arc;

use client::Key;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{condition, is_issued};
use crate::{
    context::Scope,
    driver::{self, Driver},
    kinds::certificates::CertificateSigningRequest,
    meta::{Meta, until},
};

const DECIDED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let requests = driver.watch::<CertificateSigningRequest>(driver::wake);
    let scope = Arc::new(scope);
    vec![driver.run(1, move |key| {
        let (scope, requests) = (scope.clone(), requests.clone());
        async move {
            let Some(csr) = requests.get(&key) else { return Ok(None) };
            let Some(left) = until(end(&csr), scope.now()) else {
                scope.writer.delete::<CertificateSigningRequest>(&key, Some(csr.uid())).await?;
                return Ok(None);
            };
            Ok(Some(left))
        }
    })]
}

/// When the request is of no more use.
fn end(csr: &CertificateSigningRequest) -> Timestamp {
    let since = |kind: &str| {
        let condition = condition(csr, kind)?;
        let at = condition.last_update_time.as_ref().or(condition.last_transition_time.as_ref());
        Some(at.map_or_else(|| csr.created(), |t| t.0))
    };
    let decided = ["Denied", "Failed", "Approved"].into_iter().filter_map(since).min();
    let by_age = decided.map_or_else(|| csr.created() + PENDING, |at| at + DECIDED);
    match expiry(csr).filter(|_| is_issued(csr)) {
        Some(expired) => by_age.min(expired),
        None => by_age,
    }
}

fn expiry(csr: &CertificateSigningRequest) -> Option<Timestamp> {
    let bytes = &csr.status.as_ref()?.certificate.as_ref()?.0;
    let (_, pem) = x509_parser::pem::parse_x509_pem(bytes).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}
