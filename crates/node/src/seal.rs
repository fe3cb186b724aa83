//! Secrets on disk: sealed with AES-256-GCM under a key of the data directory.
//!
//! ```text
//! sealed value = "nvs1" nonce:12 ciphertext tag:16         the store's key is authenticated with it
//! ```
//!
//! The first key seals; all keys open, so that a new one can be put in front of an old one.

use std::borrow::Cow;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use store::embedded::Transformer;

const MAGIC: &[u8] = b"nvs1";
/// What is sealed.
const PREFIX: &str = "/registry/core/secrets/";

/// Seals what is secret on its way to disk.
pub(crate) struct Sealer {
    keys: Vec<RandomizedNonceKey>,
}

impl Sealer {
    /// `keys`: newest first, at least one.
    pub(crate) fn new(keys: &[[u8; 32]]) -> anyhow::Result<Self> {
        let keys: Result<Vec<_>, _> = keys.iter().map(|key| RandomizedNonceKey::new(&AES_256_GCM, key)).collect();
        let keys = keys.map_err(|_| anyhow::anyhow!("the encryption key is not usable"))?;
        anyhow::ensure!(!keys.is_empty(), "sealing needs a key");
        Ok(Self { keys })
    }
}

impl Transformer for Sealer {
    fn seal<'a>(&self, key: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
        if !key.starts_with(PREFIX) {
            return Cow::Borrowed(value);
        }
        let mut text = value.to_vec();
        let nonce = match self.keys[0].seal_in_place_append_tag(Aad::from(key.as_bytes()), &mut text) {
            Ok(nonce) => nonce,
            // AES-GCM refuses only messages of more than 64 GiB; a request body holds a few MiB.
            Err(_) => unreachable!("sealing {} bytes", value.len()),
        };
        Cow::Owned([MAGIC, nonce.as_ref(), &text].concat())
    }

    fn open<'a>(&self, key: &str, sealed: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        // Values from before sealing are JSON: they begin with a brace.
        let Some(rest) = sealed.strip_prefix(MAGIC) else { return Ok(Cow::Borrowed(sealed)) };
        let Some((nonce, text)) = rest.split_first_chunk::<NONCE_LEN>() else {
            return Err("the value is cut short".into());
        };
        for candidate in &self.keys {
            let mut text = text.to_vec();
            let opened = candidate.open_in_place(Nonce::from(nonce), Aad::from(key.as_bytes()), &mut text);
            if let Ok(plain) = opened {
                let length = plain.len();
                text.truncate(length);
                return Ok(Cow::Owned(text));
            }
        }
        Err("no key of this data directory opens it; restore tls/encryption.key".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/registry/core/secrets/a/b";

    #[test]
    fn secrets_are_unreadable_and_come_back() {
        let sealer = Sealer::new(&[[1; 32]]).unwrap();
        let sealed = sealer.seal(KEY, b"{\"password\"").into_owned();
        assert!(!sealed.windows(8).any(|part| part == b"password"));
        assert_eq!(sealer.open(KEY, &sealed).unwrap().as_ref(), b"{\"password\"");
        assert!(sealer.open("/registry/core/secrets/a/c", &sealed).is_err(), "moved to another key");
        assert_eq!(sealer.seal("/registry/core/pods/a/b", b"{}").as_ref(), b"{}");
    }

    #[test]
    fn an_old_key_still_opens() {
        let old = Sealer::new(&[[1; 32]]).unwrap();
        let sealed = old.seal(KEY, b"{}").into_owned();
        assert!(Sealer::new(&[[2; 32], [1; 32]]).unwrap().open(KEY, &sealed).is_ok());
        assert!(Sealer::new(&[[2; 32]]).unwrap().open(KEY, &sealed).unwrap_err().contains("encryption.key"));
    }
}
