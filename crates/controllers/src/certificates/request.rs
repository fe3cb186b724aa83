//! What a request asks for, and whether its signer may grant it.

use rcgen::{CertificateSigningRequestParams, SanType};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::{APISERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY};
use crate::kinds::certificates::CertificateSigningRequest;

const DIGITAL_SIGNATURE: &str = "digital signature";
const KEY_ENCIPHERMENT: &str = "key encipherment";

/// The subject of a request and the parameters to sign.
pub(super) struct Request {
    pub(super) common_name: String,
    organizations: Vec<String>,
    pub(super) params: CertificateSigningRequestParams,
}

/// Reads the PEM of a request and checks that it is signed by its own key.
pub(super) fn parse(csr: &CertificateSigningRequest) -> Result<Request, String> {
    let text = std::str::from_utf8(&csr.spec.request.0).map_err(|_| "the request is not PEM".to_owned())?;
    let params =
        CertificateSigningRequestParams::from_pem(text).map_err(|why| format!("unable to parse csr: {why}"))?;
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|why| format!("unable to parse csr: {why}"))?;
    let (_, parsed) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|why| format!("unable to parse csr: {why}"))?;
    let subject = &parsed.certification_request_info.subject;
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().unwrap_or_default().to_owned();
    Ok(Request {
        common_name: subject.iter_common_name().next().map(text).unwrap_or_default(),
        organizations: subject.iter_organization().map(text).collect(),
        params,
    })
}

/// Why the signer refuses, if it does.
pub(super) fn refusal(csr: &CertificateSigningRequest, request: &Request) -> Option<String> {
    let usages: Vec<&str> = csr.spec.usages.iter().flatten().map(String::as_str).collect();
    let sans = &request.params.params.subject_alt_names;
    let node = || {
        if request.organizations != ["system:nodes"] {
            return Some("subject organization is not system:nodes".to_owned());
        }
        (!request.common_name.starts_with("system:node:"))
            .then(|| "subject common name does not begin with system:node:".to_owned())
    };
    // A certificate holds one organization here; more would be lost silently.
    if request.organizations.len() > 1 {
        return Some("requests with more than one organization cannot be signed".to_owned());
    }
    match csr.spec.signer_name.as_str() {
        KUBELET_CLIENT => node()
            .or_else(|| (!sans.is_empty()).then(|| "subject alternative names are not allowed".to_owned()))
            .or_else(|| wrong_usages(&usages, "client auth")),
        KUBELET_SERVING => node()
            .or_else(|| {
                let named = |s: &SanType| matches!(s, SanType::DnsName(_) | SanType::IpAddress(_));
                if sans.is_empty() {
                    return Some("DNS or IP subjectAltName is required".to_owned());
                }
                (!sans.iter().all(named)).then(|| "only DNS and IP subjectAltNames are allowed".to_owned())
            })
            .or_else(|| wrong_usages(&usages, "server auth")),
        APISERVER_CLIENT => wrong_usages(&usages, "client auth"),
        LEGACY => None,
        other => Some(format!("unrecognized signer {other}")),
    }
}

fn wrong_usages(usages: &[&str], needed: &str) -> Option<String> {
    let allowed = [DIGITAL_SIGNATURE, KEY_ENCIPHERMENT, needed];
    if let Some(other) = usages.iter().find(|u| !allowed.contains(u)) {
        return Some(format!("usage \"{other}\" is not allowed"));
    }
    (!usages.contains(&needed)).then(|| format!("usage \"{needed}\" is required"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use serde_json::{from_value, json};

    use super::*;

    fn csr(signer: &str, name: &str, organization: &str, sans: &[&str], usages: &[&str]) -> CertificateSigningRequest {
        let sans: Vec<String> = sans.iter().map(|s| (*s).to_owned()).collect();
        let mut params = CertificateParams::new(sans).expect("params");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let key = KeyPair::generate().expect("key");
        let pem = params.serialize_request(&key).expect("request").pem().expect("pem");
        let mut csr: CertificateSigningRequest =
            from_value(json!({"metadata": {}, "spec": {"request": "", "signerName": signer, "usages": usages}}))
                .expect("csr");
        csr.spec.request = k8s_openapi::ByteString(pem.into_bytes());
        csr
    }

    #[test]
    fn rules_of_signers() {
        let client = ["digital signature", "client auth"];
        let server = ["digital signature", "server auth"];
        let cases = [
            (csr(KUBELET_CLIENT, "system:node:a", "system:nodes", &[], &client), true),
            (csr(KUBELET_CLIENT, "a", "system:nodes", &[], &client), false),
            (csr(KUBELET_CLIENT, "system:node:a", "system:masters", &[], &client), false),
            (csr(KUBELET_CLIENT, "system:node:a", "system:nodes", &["a"], &client), false),
            (csr(KUBELET_CLIENT, "system:node:a", "system:nodes", &[], &server), false),
            (csr(KUBELET_SERVING, "system:node:a", "system:nodes", &["a"], &server), true),
            (csr(KUBELET_SERVING, "system:node:a", "system:nodes", &[], &server), false),
            (csr(APISERVER_CLIENT, "jane", "dev", &[], &client), true),
            (csr(APISERVER_CLIENT, "jane", "dev", &[], &["digital signature"]), false),
            (csr("example.com/other", "jane", "dev", &[], &client), false),
        ];
        for (csr, granted) in cases {
            let request = parse(&csr).expect("request");
            assert_eq!(refusal(&csr, &request).is_none(), granted, "{} {}", csr.spec.signer_name, request.common_name);
        }
    }
}
