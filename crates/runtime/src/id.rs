//! Identifiers of sandboxes and containers.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// 128 random bits as 32 hex digits. From the operating system where it can be asked, which is everywhere it matters.
pub(crate) fn random() -> String {
    let mut bytes = [0; 16];
    // SAFETY: getrandom writes at most the given number of bytes into the array.
    let got = unsafe { nix::libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != bytes.len() as isize {
        for half in bytes.chunks_mut(8) {
            half.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
        }
    }
    crate::images::hex(&bytes)
}
