//! Signs approved requests of the built-in signers with the cluster's authority.
//!
//! Reads: CertificateSigningRequest.  Writes: CertificateSigningRequest/status.
//! A certificate is valid for a year or the shorter time asked for, from five minutes before it was made.

use std::{sync::Arc, time::Duration};

use client::{Informer, Key};
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::ByteString;
use rcgen::{ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::task::JoinHandle;

use super::{APISERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, condition, is_issued, request};
use crate::{
    Error,
    context::{Scope, SigningCa},
    driver::{self, Driver, Outcome},
    kinds::certificates::{CertificateSigningRequest, CertificateSigningRequestCondition},
    meta::{self, seconds},
};

const SIGNERS: [&str; 4] = [APISERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY];
const YEAR: i32 = 365 * 24 * 3600;
const BACKDATE: i64 = 5 * 60;

pub(crate) fn start(scope: Scope) -> Vec<JoinHandle<()>> {
    let mut driver = Driver::<Key>::new(&scope);
    let requests = driver.watch::<CertificateSigningRequest>(driver::wake);
    let scope = Arc::new(scope);
    vec![driver.run(2, move |key| {
        let (scope, requests) = (scope.clone(), requests.clone());
        async move { pass(&scope, &requests, key).await }
    })]
}

async fn pass(scope: &Scope, requests: &Informer<CertificateSigningRequest>, key: Key) -> Outcome {
    let Some(csr) = requests.get(&key) else { return Ok(None) };
    let ours = SIGNERS.contains(&csr.spec.signer_name.as_str());
    let waiting = condition(&csr, "Approved").is_some() && condition(&csr, "Failed").is_none() && !is_issued(&csr);
    let Some(authority) = scope.config().signing_ca.as_ref().filter(|_| ours && waiting) else { return Ok(None) };
    let mut next = CertificateSigningRequest::clone(&csr);
    let status = next.status.get_or_insert_default();
    let now = scope.now();
    let refused = match request::parse(&csr) {
        Ok(request) => match request::refusal(&csr, &request) {
            Some(why) => Some(why),
            None => {
                let pem = certify(authority, &csr, request, now).map_err(|why| Error::Object {
                    kind: "CertificateSigningRequest",
                    key,
                    why,
                })?;
                status.certificate = Some(ByteString(pem.into_bytes()));
                None
            }
        },
        Err(why) => Some(why),
    };
    if let Some(why) = refused {
        status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
            type_: "Failed".to_owned(),
            status: "True".to_owned(),
            reason: Some("SignerValidationFailure".to_owned()),
            message: Some(why),
            last_update_time: Some(meta::time(now)),
            last_transition_time: Some(meta::time(now)),
        });
    }
    scope.writer.update_status(&next).await.map(|_| None)
}

fn certify(
    authority: &SigningCa,
    csr: &CertificateSigningRequest,
    request: request::Request,
    now: Timestamp,
) -> Result<String, String> {
    let key = KeyPair::from_pem(&authority.key_pem).map_err(|why| format!("the signing key cannot be read: {why}"))?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem, key)
        .map_err(|why| format!("the signing certificate cannot be read: {why}"))?;
    let lifetime = csr.spec.expiration_seconds.unwrap_or(YEAR).clamp(600, YEAR);
    let begin = now - seconds(BACKDATE);
    let mut params = request.params;
    let certificate = &mut params.params;
    certificate.is_ca = IsCa::ExplicitNoCa;
    // The library's calendar knows days; the seconds of the day are added.
    let civil = begin.to_zoned(TimeZone::UTC).datetime();
    let month = u8::try_from(civil.month()).unwrap_or(1);
    let day = u8::try_from(civil.day()).unwrap_or(1);
    let of_day = u64::try_from(begin.as_second().rem_euclid(24 * 3600)).unwrap_or(0);
    certificate.not_before = rcgen::date_time_ymd(civil.year().into(), month, day) + Duration::from_secs(of_day);
    certificate.not_after = certificate.not_before + Duration::from_secs(u64::from(lifetime.unsigned_abs()));
    certificate.use_authority_key_identifier_extension = true;
    certificate.key_usages = Vec::new();
    certificate.extended_key_usages = Vec::new();
    for usage in csr.spec.usages.iter().flatten() {
        match usage.as_str() {
            "digital signature" | "signing" => certificate.key_usages.push(KeyUsagePurpose::DigitalSignature),
            "key encipherment" => certificate.key_usages.push(KeyUsagePurpose::KeyEncipherment),
            "data encipherment" => certificate.key_usages.push(KeyUsagePurpose::DataEncipherment),
            "key agreement" => certificate.key_usages.push(KeyUsagePurpose::KeyAgreement),
            "content commitment" => certificate.key_usages.push(KeyUsagePurpose::ContentCommitment),
            "client auth" => certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
            "server auth" => certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            "code signing" => certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning),
            "email protection" | "s/mime" => {
                certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::EmailProtection);
            }
            "timestamping" => certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::TimeStamping),
            "ocsp signing" => certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::OcspSigning),
            "any" => certificate.extended_key_usages.push(ExtendedKeyUsagePurpose::Any),
            other => return Err(format!("usage \"{other}\" cannot be put into a certificate here")),
        }
    }
    let signed = params.signed_by(&issuer).map_err(|why| format!("cannot sign: {why}"))?;
    Ok(signed.pem())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType};
    use serde_json::{from_value, json};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    #[test]
    fn a_certificate_carries_what_was_asked_for() {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = SigningCa {
            certificate_pem: params.self_signed(&key).expect("authority").pem(),
            key_pem: key.serialize_pem(),
        };
        let mut wanted = CertificateParams::new(Vec::new()).expect("params");
        wanted.distinguished_name.push(DnType::CommonName, "jane");
        let own = KeyPair::generate().expect("key");
        let pem = wanted.serialize_request(&own).expect("request").pem().expect("pem");
        let mut csr: CertificateSigningRequest = from_value(json!({"metadata": {}, "spec": {"request": "",
            "signerName": APISERVER_CLIENT, "usages": ["client auth"], "expirationSeconds": 3600}}))
        .expect("csr");
        csr.spec.request = ByteString(pem.into_bytes());
        let now: Timestamp = "2026-03-04T05:06:07Z".parse().expect("time");
        let signed = certify(&authority, &csr, request::parse(&csr).expect("request"), now).expect("certificate");
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).expect("pem");
        let (_, certificate) = X509Certificate::from_der(&pem.contents).expect("der");
        let validity = certificate.validity();
        assert_eq!(validity.not_before.timestamp(), now.as_second() - BACKDATE);
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 3600);
        assert!(certificate.subject().to_string().contains("jane"));
    }
}
