//! CertificateSigningRequests: approves those of kubelets, signs what is approved, clears away what is old.

pub(crate) mod approve;
pub(crate) mod clean;
mod request;
pub(crate) mod sign;

use crate::kinds::certificates::{CertificateSigningRequest, CertificateSigningRequestCondition};

pub(super) const APISERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

fn condition<'a>(csr: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    csr.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn is_issued(csr: &CertificateSigningRequest) -> bool {
    csr.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}
