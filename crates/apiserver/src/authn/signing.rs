//! Keys that sign service-account tokens, and their public halves as JSON web keys.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, jwk::Jwk};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{config::Pem, server::Error};

/// A key pair with the id by which tokens name it.
pub(crate) struct Key {
    /// base64url of the SHA-256 of the public key (SubjectPublicKeyInfo DER), as upstream.
    pub(crate) id: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) encoding: EncodingKey,
    pub(crate) decoding: DecodingKey,
    jwk: Value,
}

impl Key {
    pub(crate) fn load(pem: &Pem) -> Result<Self, Error> {
        let what = "service account signing key";
        let bytes = pem.load().map_err(|source| Error::Read { what, source })?;
        let fail = |why: String| Error::Material { what, why };
        let text = std::str::from_utf8(&bytes).map_err(|error| fail(error.to_string()))?;
        let pair = KeyPair::from_pem(text).map_err(|error| fail(error.to_string()))?;
        let rsa = pair.algorithm() == &rcgen::PKCS_RSA_SHA256;
        let public = pair.public_key_pem();
        let (algorithm, encoding, decoding) = if rsa {
            (Algorithm::RS256, EncodingKey::from_rsa_pem(&bytes), DecodingKey::from_rsa_pem(public.as_bytes()))
        } else if pair.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256 {
            (Algorithm::ES256, EncodingKey::from_ec_pem(&bytes), DecodingKey::from_ec_pem(public.as_bytes()))
        } else {
            return Err(fail("neither RSA nor ECDSA P-256".into()));
        };
        let encoding = encoding.map_err(|error| fail(error.to_string()))?;
        let decoding = decoding.map_err(|error| fail(error.to_string()))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info()));
        let jwk = Jwk::from_encoding_key(&encoding, algorithm).map_err(|error| fail(error.to_string()))?;
        let mut jwk = serde_json::to_value(jwk).map_err(|error| fail(error.to_string()))?;
        jwk["kid"] = id.clone().into();
        jwk["use"] = "sig".into();
        jwk["alg"] = json!(if rsa { "RS256" } else { "ES256" });
        Ok(Self { id, algorithm, encoding, decoding, jwk })
    }

    /// The public key, as `/openid/v1/jwks` shows it.
    pub(crate) fn jwk(&self) -> &Value {
        &self.jwk
    }
}
