//! Encryption at rest: Secrets (and whatever else is listed) are sealed before they reach the disk.
//!
//! ```text
//! sealed value   "k8s:nv:aesgcm:v1:"  key id, 4 bytes   nonce, 12 bytes   ciphertext and tag
//! ```
//!
//! AES-256-GCM with a random nonce; the key of the datastore is authenticated beside the value, so that a sealed value
//! cannot be moved to another name. The first key seals, all keys open: a new key is put first, and the old one stays
//! until everything was written again.

use std::borrow::Cow;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, rand,
};
use store::embedded::Transformer;

const PREFIX: &[u8] = b"k8s:nv:aesgcm:v1:";
const ID_LEN: usize = 4;
/// Resources whose objects are sealed, as parts of their keys.
const SEALED: [&str; 1] = ["/registry/core/secrets/"];

/// Seals Secrets on their way to the store's disk.
pub struct Sealer {
    keys: Vec<([u8; ID_LEN], LessSafeKey)>,
}

/// A key of the wrong length, or none at all.
#[derive(Debug, thiserror::Error)]
#[error("encryption keys must be 32 bytes each, and at least one is needed")]
pub struct BadKey;

impl Sealer {
    /// A sealer whose first key seals.
    pub fn new(keys: &[[u8; 32]]) -> Result<Self, BadKey> {
        let load = |key: &[u8; 32]| {
            let digest = digest::digest(&digest::SHA256, key);
            let mut id = [0; ID_LEN];
            id.copy_from_slice(&digest.as_ref()[..ID_LEN]);
            UnboundKey::new(&AES_256_GCM, key).map(|key| (id, LessSafeKey::new(key))).map_err(|_| BadKey)
        };
        let keys = keys.iter().map(load).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(BadKey) } else { Ok(Self { keys }) }
    }
}

impl Transformer for Sealer {
    fn seal<'a>(&self, key: &str, value: &'a [u8]) -> Cow<'a, [u8]> {
        if !SEALED.iter().any(|prefix| key.starts_with(prefix)) {
            return Cow::Borrowed(value);
        }
        let (id, own) = &self.keys[0];
        let mut nonce = [0; NONCE_LEN];
        let mut body = value.to_vec();
        let sealed = rand::fill(&mut nonce).and_then(|()| {
            own.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key.as_bytes()), &mut body)
        });
        // Neither fails short of a broken machine; a secret must not reach the disk in the clear then.
        assert!(sealed.is_ok(), "the system's random numbers or AES-GCM failed");
        let mut out = Vec::with_capacity(PREFIX.len() + ID_LEN + NONCE_LEN + body.len());
        out.extend_from_slice(PREFIX);
        out.extend_from_slice(id);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&body);
        Cow::Owned(out)
    }

    fn open<'a>(&self, key: &str, sealed: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let Some(rest) = sealed.strip_prefix(PREFIX) else { return Ok(Cow::Borrowed(sealed)) };
        let (id, rest) = rest.split_at_checked(ID_LEN).ok_or("the sealed value is cut off")?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or("the sealed value is cut off")?;
        let (_, own) =
            self.keys.iter().find(|(own, _)| own == id).ok_or("it was sealed with a key that is not configured")?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| "the nonce is cut off")?;
        let mut body = body.to_vec();
        let plain = own
            .open_in_place(nonce, Aad::from(key.as_bytes()), &mut body)
            .map_err(|_| "the value was changed, or belongs to another key")?
            .len();
        body.truncate(plain);
        Ok(Cow::Owned(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/registry/core/secrets/a/b";

    #[test]
    fn secrets_are_sealed_and_opened() {
        let sealer = Sealer::new(&[[1; 32]]).unwrap();
        let sealed = sealer.seal(KEY, b"hush").into_owned();
        assert!(!sealed.windows(4).any(|window| window == b"hush"));
        assert_eq!(sealer.open(KEY, &sealed).unwrap(), b"hush".as_slice());
        assert!(sealer.open("/registry/core/secrets/a/other", &sealed).is_err(), "a sealed value stays where it is");
        assert_eq!(sealer.seal("/registry/core/configmaps/a/b", b"open"), b"open".as_slice());
    }

    #[test]
    fn keys_rotate() {
        let old = Sealer::new(&[[1; 32]]).unwrap().seal(KEY, b"hush").into_owned();
        let both = Sealer::new(&[[2; 32], [1; 32]]).unwrap();
        assert_eq!(both.open(KEY, &old).unwrap(), b"hush".as_slice());
        assert!(Sealer::new(&[[2; 32]]).unwrap().open(KEY, &old).is_err());
        assert_eq!(both.open(KEY, b"written before").unwrap(), b"written before".as_slice());
    }
}
