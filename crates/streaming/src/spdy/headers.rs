//! Name/value blocks: compressed with one zlib stream for all blocks of a direction, primed with the dictionary of the
//! specification (SPDY/3, section 2.6.10.1).
//!
//! ```text
//! zlib( count:u32 { name_length:u32 name value_length:u32 value }* )     names lower case; all numbers big-endian
//! ```

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::Error;

static DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

/// A block is refused when it inflates beyond this many bytes.
const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// Header names (lower case) with their values, in wire order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, which must be lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Result<Self, Error> {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(DICTIONARY).map_err(|error| broken(&error.to_string()))?;
        Ok(Self(compress))
    }

    pub(super) fn block(&mut self, headers: &Headers) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&(headers.0.len() as u32).to_be_bytes());
        for text in headers.0.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            let status = self
                .0
                .compress_vec(&plain[done..], &mut out, FlushCompress::Sync)
                .map_err(|error| broken(&error.to_string()))?;
            let all_in = (self.0.total_in() - start) as usize == plain.len();
            // A sync flush is complete once the output was not filled to the brim.
            if all_in && out.len() < out.capacity() && status != Status::StreamEnd {
                return Ok(out);
            }
            out.reserve(256);
        }
    }
}

pub(super) struct Inflater(Decompress);

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub(super) fn block(&mut self, packed: &[u8]) -> Result<Headers, Error> {
        let mut plain = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            let done = (self.0.total_in() - start) as usize;
            match self.0.decompress_vec(&packed[done..], &mut plain, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|error| broken(&error.to_string()))?;
                    continue;
                }
                Err(error) => return Err(broken(&error.to_string())),
            }
            if (self.0.total_in() - start) as usize == packed.len() && plain.len() < plain.capacity() {
                return parse(&plain);
            }
            if plain.len() > BLOCK_BYTES_MAX {
                return Err(broken("header block too large"));
            }
            if plain.len() == plain.capacity() {
                plain.reserve(1024);
            } else if (self.0.total_in() - start) as usize == done {
                return Err(broken("header block ends early"));
            }
        }
    }
}

fn parse(plain: &[u8]) -> Result<Headers, Error> {
    let mut rest = plain;
    let count = number(&mut rest)?;
    let mut headers = Headers::default();
    for _ in 0..count {
        let name = text(&mut rest)?.to_ascii_lowercase();
        let values = text(&mut rest)?;
        for value in values.split('\0') {
            headers.0.push((name.clone(), value.to_string()));
        }
    }
    Ok(headers)
}

fn number(rest: &mut &[u8]) -> Result<u32, Error> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(|| broken("header block ends early"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn text(rest: &mut &[u8]) -> Result<String, Error> {
    let length = number(rest)? as usize;
    let (head, tail) = rest.split_at_checked(length).ok_or_else(|| broken("header block ends early"))?;
    *rest = tail;
    String::from_utf8(head.to_vec()).map_err(|_| broken("header is not UTF-8"))
}

fn broken(why: &str) -> Error {
    Error::Protocol { protocol: "SPDY/3.1", why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_one_connection_round_trip_in_order() {
        let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::new());
        for round in 0..50 {
            let headers = Headers(vec![("streamtype".into(), "stdin".into()), ("port".into(), "8".repeat(round * 40))]);
            let packed = deflater.block(&headers).unwrap();
            assert_eq!(inflater.block(&packed).unwrap(), headers, "round {round}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for garbage in [&b"garbage"[..], b"", &[0x78, 0xbb], &[0xff; 100]] {
            assert!(Inflater::new().block(garbage).is_err(), "{garbage:?}");
        }
    }
}
