//! Approves requests for client certificates of kubelets, if the requestor may have one.
//!
//! Reads: CertificateSigningRequest.  Writes: SubjectAccessReview, CertificateSigningRequest/approval.

use std::sync::Arc;

use client::{Informer, Key};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use tokio::task::JoinHandle;

use super::{KUBELET_CLIENT, condition, is_issued, request};
use crate::{
    context::Scope,
    driver::{self, Driver, Outcome},
    kinds::certificates::{CertificateSigningRequest, CertificateSigningRequestCondition},
    meta::{self},
};

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let requests = driver.watch::<CertificateSigningRequest>(driver::wake);
    let scope = Arc::new(scope);
    vec![driver.run(1, move |key| {
        let (scope, requests) = (scope.clone(), requests.clone());
        async move { pass(&scope, &requests, key).await }
    })]
}

async fn pass(scope: &Scope, requests: &Informer<CertificateSigningRequest>, key: Key) -> Outcome {
    let Some(csr) = requests.get(&key) else { return Ok(None) };
    let decided = ["Approved", "Denied"].iter().any(|k| condition(&csr, k).is_some());
    if csr.spec.signer_name != KUBELET_CLIENT || decided || is_issued(&csr) {
        return Ok(None);
    }
    let Ok(request) = request::parse(&csr) else { return Ok(None) };
    if request::refusal(&csr, &request).is_some() {
        return Ok(None);
    }
    // A node may renew its own certificate with less than what it takes to get a first one for any node.
    let own = csr.spec.username.as_deref() == Some(&request.common_name);
    let rights = [
        (own, "selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
        (true, "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
    ];
    for (_, right, text) in rights.into_iter().filter(|(applies, ..)| *applies) {
        if !is_allowed(scope, &csr, right).await? {
            continue;
        }
        let mut next = CertificateSigningRequest::clone(&csr);
        let now = meta::time(scope.now());
        next.status.get_or_insert_default().conditions.get_or_insert_default().push(
            CertificateSigningRequestCondition {
                type_: "Approved".to_owned(),
                status: "True".to_owned(),
                reason: Some("AutoApproved".to_owned()),
                message: Some(text.to_owned()),
                last_update_time: Some(now.clone()),
                last_transition_time: Some(now),
            },
        );
        scope.writer.update_subresource("approval", &next).await?;
        return Ok(None);
    }
    Ok(None)
}

async fn is_allowed(scope: &Scope, csr: &CertificateSigningRequest, right: &str) -> Result<bool, crate::Error> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: csr.spec.username.clone(),
            uid: csr.spec.uid.clone(),
            groups: csr.spec.groups.clone(),
            extra: csr.spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                subresource: Some(right.to_owned()),
                verb: Some("create".to_owned()),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    Ok(scope.writer.create(&review).await?.status.is_some_and(|s| s.allowed))
}
