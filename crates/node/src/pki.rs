//! Certificates and keys of a cluster: made once, kept under `DATA/tls`, renewed long before they end.
//!
//! ```text
//! server-ca   signs what listens: serving-apiserver, serving-kubelet
//! client-ca   signs who calls: client-admin, client-apiserver (to kubelets), client-kubelet, CSRs
//! proxy-ca    signs client-aggregator (request-header authentication towards aggregated API servers)
//! service-account.key   signs service-account tokens (ES256)
//! ```
//!
//! Invariants: private keys are mode 0600; a file is replaced by rename, so that a reader sees an old or a new one; a
//! leaf is issued anew when a third of its life is left, when its names change, or when its authority did.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

const AUTHORITY_LIFE: Duration = Duration::days(3650);
const LEAF_LIFE: Duration = Duration::days(365);
/// Clocks of other machines may be this far behind.
const SKEW: Duration = Duration::minutes(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot make certificate {name}")]
    Certificate { name: String, source: rcgen::Error },
    #[error("{} is not usable: {why}", path.display())]
    Unusable { path: PathBuf, why: String },
}

/// A certificate with its private key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What a leaf certificate is for.
#[derive(Clone, Debug, Default)]
pub struct Leaf {
    /// User name of a client, or a readable name of a server.
    pub common_name: String,
    /// Group of a client; one, because the library writes one of each part of a name.
    pub organization: Option<String>,
    /// DNS names and IP addresses of a server; empty for a client.
    pub names: Vec<String>,
}

/// A certificate authority on disk.
pub struct Authority {
    directory: PathBuf,
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// Loads `NAME.crt` and `NAME.key` from `directory`, or makes them.
    pub fn open(directory: &Path, name: &str) -> Result<Self, Error> {
        let (certificate_path, key_path) = paths(directory, name);
        if certificate_path.exists() && key_path.exists() {
            let certificate = read(&certificate_path)?;
            let key = read(&key_path)?;
            return Ok(Self { directory: directory.to_path_buf(), certificate, key });
        }
        let fail = |source| Error::Certificate { name: name.to_string(), source };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now - SKEW;
        params.not_after = now + AUTHORITY_LIFE;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("navarch-{name}@{}", now.unix_timestamp()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(fail)?.pem();
        let key = key.serialize_pem();
        write(&key_path, &key, 0o600)?;
        write(&certificate_path, &certificate, 0o644)?;
        Ok(Self { directory: directory.to_path_buf(), certificate, key })
    }

    /// The leaf `NAME`, kept or issued anew. The private key stays when only the certificate is renewed.
    pub fn leaf(&self, name: &str, leaf: &Leaf) -> Result<Pair, Error> {
        let (certificate_path, key_path) = paths(&self.directory, name);
        let old_key = key_path.exists().then(|| read(&key_path)).transpose()?;
        if let (Some(key), true) = (&old_key, certificate_path.exists()) {
            let certificate = read(&certificate_path)?;
            if self.still_good(&certificate, leaf) {
                return Ok(Pair { certificate, key: key.clone() });
            }
        }
        let fail = |source| Error::Certificate { name: name.to_string(), source };
        let key = match old_key.as_deref().map(KeyPair::from_pem) {
            Some(Ok(key)) => key,
            _ => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?,
        };
        let authority_key = KeyPair::from_pem(&self.key).map_err(fail)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, authority_key).map_err(fail)?;
        let mut params = CertificateParams::new(leaf.names.clone()).map_err(fail)?;
        let now = OffsetDateTime::now_utc();
        params.not_before = now - SKEW;
        params.not_after = now + LEAF_LIFE;
        let serial: [u8; 16] = rand::random();
        params.serial_number = Some(SerialNumber::from_slice(&[&[serial[0] & 0x7f], &serial[1..]].concat()));
        params.distinguished_name = DistinguishedName::new();
        if let Some(organization) = &leaf.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![if leaf.names.is_empty() {
            ExtendedKeyUsagePurpose::ClientAuth
        } else {
            ExtendedKeyUsagePurpose::ServerAuth
        }];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).map_err(fail)?.pem();
        let key = key.serialize_pem();
        write(&key_path, &key, 0o600)?;
        write(&certificate_path, &certificate, 0o644)?;
        Ok(Pair { certificate, key })
    }

    /// Signed by this authority, for these names, and with more than a third of its life left.
    fn still_good(&self, certificate: &str, leaf: &Leaf) -> bool {
        let (Ok((_, ours)), Ok((_, theirs))) = (
            x509_parser::pem::parse_x509_pem(self.certificate.as_bytes()),
            x509_parser::pem::parse_x509_pem(certificate.as_bytes()),
        ) else {
            return false;
        };
        let (Ok(ours), Ok(theirs)) = (ours.parse_x509(), theirs.parse_x509()) else { return false };
        let left = theirs.validity().not_after.timestamp() - OffsetDateTime::now_utc().unix_timestamp();
        let common_name =
            theirs.subject().iter_common_name().next().and_then(|name| name.as_str().ok().map(str::to_string));
        let organization =
            theirs.subject().iter_organization().next().and_then(|name| name.as_str().ok().map(str::to_string));
        let mut names = alternative_names(&theirs);
        let mut wanted_names = leaf.names.clone();
        names.sort();
        wanted_names.sort();
        wanted_names.dedup();
        theirs.verify_signature(Some(ours.public_key())).is_ok()
            && left > LEAF_LIFE.whole_seconds() / 3
            && common_name.as_deref() == Some(leaf.common_name.as_str())
            && organization == leaf.organization
            && names == wanted_names
    }
}

fn alternative_names(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_string()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

/// When a PEM certificate should be renewed: two thirds into its life.
pub fn renew_at(certificate: &str) -> Option<OffsetDateTime> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&pem.contents).ok()?;
    let (from, to) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    OffsetDateTime::from_unix_timestamp(from + (to - from) / 3 * 2).ok()
}

/// The key that signs service-account tokens: PKCS#8 PEM of an ECDSA P-256 key, made on first use.
pub fn signing_key(directory: &Path, name: &str) -> Result<String, Error> {
    let (_, path) = paths(directory, name);
    if path.exists() {
        return read(&path);
    }
    let fail = |source| Error::Certificate { name: name.to_string(), source };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?.serialize_pem();
    write(&path, &key, 0o600)?;
    Ok(key)
}

/// 32 random bytes, kept as hexadecimal text; made on first use.
pub fn secret(path: &Path) -> Result<[u8; 32], Error> {
    if path.exists() {
        let text = read(path)?;
        let text = text.trim();
        let digits = (text.len() == 64 && text.is_ascii()).then(|| {
            (0..32).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16)).collect::<Result<Vec<u8>, _>>()
        });
        let bytes = digits.and_then(Result::ok).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        return bytes.ok_or_else(|| Error::Unusable {
            path: path.to_path_buf(),
            why: "it must hold 64 hexadecimal digits; restore it from a backup".into(),
        });
    }
    let bytes: [u8; 32] = rand::random();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write(path, &text, 0o600)?;
    Ok(bytes)
}

fn paths(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")))
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { action: "read", path: path.to_path_buf(), source })
}

/// Writes a whole file or none of it.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let fail = |action| move |source| Error::File { action, path: path.to_path_buf(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail("create the directory of"))?;
    }
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary); // left by a crash, perhaps with another mode
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(fail("create"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail("write"))?;
    fs::rename(&temporary, path).map_err(fail("replace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_kept_until_its_names_or_its_authority_change() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path(), "server-ca").unwrap();
        let leaf = Leaf {
            common_name: "apiserver".into(),
            organization: Some("group".into()),
            names: vec!["localhost".into(), "127.0.0.1".into(), "::1".into()],
        };
        let first = authority.leaf("serving", &leaf).unwrap();
        let again = Authority::open(directory.path(), "server-ca").unwrap().leaf("serving", &leaf).unwrap();
        assert_eq!(first.certificate, again.certificate);

        let more = Leaf { names: [leaf.names.clone(), vec!["example.test".into()]].concat(), ..leaf.clone() };
        let renamed = authority.leaf("serving", &more).unwrap();
        assert_ne!(first.certificate, renamed.certificate);
        assert_eq!(first.key, renamed.key);

        fs::remove_file(directory.path().join("server-ca.crt")).unwrap();
        let other = Authority::open(directory.path(), "server-ca").unwrap();
        assert_ne!(other.leaf("serving", &more).unwrap().certificate, renamed.certificate);
    }

    #[test]
    fn keys_are_private_and_renewal_is_due_before_the_end() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        signing_key(directory.path(), "service-account").unwrap();
        let mode = fs::metadata(directory.path().join("service-account.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let authority = Authority::open(directory.path(), "client-ca").unwrap();
        let pair = authority.leaf("admin", &Leaf { common_name: "admin".into(), ..Leaf::default() }).unwrap();
        let due = renew_at(&pair.certificate).unwrap() - OffsetDateTime::now_utc();
        assert!(due > Duration::days(240) && due < Duration::days(245), "{due}");
    }
}
