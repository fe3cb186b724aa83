//! Encryption at rest, from the store's side: a hook for values on their way out of memory and back.

use std::borrow::Cow;

/// Changes values on their way to a backend's disk and back. Memory holds them plain.
pub trait Transformer: Send + Sync + 'static {
    /// What to write for `value`; borrowed when it stays as it is.
    fn seal<'a>(&self, key: &str, value: &'a [u8]) -> Cow<'a, [u8]>;
    /// Undoes [`Self::seal`]; the error says why that is impossible.
    fn open<'a>(&self, key: &str, sealed: &'a [u8]) -> Result<Cow<'a, [u8]>, String>;
}
