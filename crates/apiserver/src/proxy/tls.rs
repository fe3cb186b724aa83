//! TLS towards backends.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{
    config::{Identity, KubeletAccess},
    serve,
    server::Error,
};

/// How a backend proves that it is the right one.
pub(crate) enum Trust<'a> {
    /// Its certificate is signed by one of these CAs (PEM).
    Ca(&'a [u8]),
    /// Not at all: for pods and Services behind `https:` proxies, as upstream.
    Anything,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A configuration with which backends are called. Files are read anew: what was renewed counts at once.
pub(crate) fn client(trust: Trust<'_>, identity: Option<&Identity>) -> Result<ClientConfig, Error> {
    let fail = |what: &'static str, why: String| Error::Material { what, why };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| fail("TLS configuration", error.to_string()))?;
    let builder = match trust {
        Trust::Ca(pem) => builder.with_root_certificates(serve::roots(pem)?),
        Trust::Anything => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider()))),
    };
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let read = |what, pem: &crate::config::Pem| pem.load().map_err(|source| Error::Read { what, source });
    let certificate = read("client certificate", &identity.certificate)?;
    let key = read("client key", &identity.key)?;
    let (chain, key) = serve::identity(&certificate, &key)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| fail("client certificate", error.to_string()))
}

/// The configuration for kubelets.
pub(crate) fn kubelet(access: &KubeletAccess) -> Result<ClientConfig, Error> {
    let ca = access.ca.load().map_err(|source| Error::Read { what: "kubelet CA", source })?;
    client(Trust::Ca(&ca), Some(&access.identity))
}

/// Takes every certificate, but still only from somebody who holds its key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
