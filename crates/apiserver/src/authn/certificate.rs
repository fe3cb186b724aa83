//! Client certificates: the common name is the user, the organizations are the groups.

use base64::{Engine, engine::general_purpose::STANDARD};
use x509_parser::{
    certification_request::X509CertificationRequest,
    prelude::{FromDer, X509Certificate},
};

use crate::user::UserInfo;

/// The user of a certificate that TLS has verified; `None` without a common name.
pub(crate) fn user(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_string();
    if name.is_empty() {
        return None;
    }
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_string).collect();
    let mut user = super::authenticated(UserInfo { name, groups, ..UserInfo::default() });
    let id = format!("X509SHA256={}", hex(&<sha2::Sha256 as sha2::Digest>::digest(der)));
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![id]);
    Some(user)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Organizations that a certificate request (base64 of its PEM) asks for; none when it cannot be read.
pub(crate) fn request_organizations(encoded: &str) -> Vec<String> {
    let read = || {
        let pem = STANDARD.decode(encoded).ok()?;
        let text = String::from_utf8(pem).ok()?;
        let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(body.trim()).ok()?;
        let (_, request) = X509CertificationRequest::from_der(&der).ok()?;
        let subject = &request.certification_request_info.subject;
        Some(subject.iter_organization().filter_map(|group| Some(group.as_str().ok()?.to_string())).collect())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn common_name_and_organizations_make_the_user() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let user = user(certificate.der()).unwrap();
        assert_eq!(user.name, "jane");
        assert_eq!(user.groups, ["dev", "system:authenticated"]);
    }

    #[test]
    fn garbage_is_nobody() {
        assert_eq!(user(b"not a certificate"), None);
    }
}
