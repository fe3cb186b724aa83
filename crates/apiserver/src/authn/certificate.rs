//! Client certificates: the common name is the user, the organizations are the groups.

use base64::{Engine, engine::general_purpose::STANDARD};
use x509_parser::prelude::{FromDer, X509Certificate};

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

/// DER of a PEM block's base64 text; used where certificates travel in JSON.
pub(crate) fn from_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).ok()
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
