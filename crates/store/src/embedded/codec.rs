//! Frames and records: the bytes of log segments and snapshots.
//!
//! ```text
//! file    magic (8 bytes)  frame*
//! frame   len u32 LE | CRC-32 of the payload, u32 LE | payload (len bytes, at least 1): one or more records
//! record  tag u8, then
//!   1 transaction  revision, operations, then for each
//!                    0 delete  key
//!                    1 put     key, lease (0: none), value
//!   2 lease        id, ttl in ms, remaining ms     (granted, kept alive, or alive in a snapshot)
//!   3 revoked      id
//!   4 begin        revision, last lease id given   (first record of a snapshot)
//!   5 entry        key, create revision, mod revision, lease (0: none), value
//!   6 end          number of entries               (last record of a snapshot)
//! numbers are LEB128 varints; keys and values are a length and that many bytes
//! ```
//!
//! One frame holds one batch of the commit thread, so that a batch is there or is not: a power cut may write the pages
//! of a batch in any order, and the checksum of the whole tells.

/// Log segments begin with this.
pub(super) const LOG_MAGIC: &[u8; 8] = b"NVLOG\0\0\x01";
/// Snapshots begin with this.
pub(super) const SNAPSHOT_MAGIC: &[u8; 8] = b"NVSNAP\0\x01";
/// Bytes in front of a frame's payload.
pub(super) const FRAME_HEAD: usize = 8;

const TXN: u8 = 1;
const LEASE: u8 = 2;
const REVOKED: u8 = 3;
const BEGIN: u8 = 4;
const ENTRY: u8 = 5;
const END: u8 = 6;

/// A decoded record that borrows from its frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Txn { revision: u64, ops: Vec<RecordOp<'a>> },
    Lease { id: i64, ttl_ms: u64, remaining_ms: u64 },
    Revoked { id: i64 },
    Begin { revision: u64, last_lease: i64 },
    Entry { key: &'a str, create_revision: u64, mod_revision: u64, lease: i64, value: &'a [u8] },
    End { entries: u64 },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordOp<'a> {
    Delete { key: &'a str },
    Put { key: &'a str, lease: i64, value: &'a [u8] },
}

/// Builds one frame in a buffer that can be used again.
#[derive(Default)]
pub(super) struct FrameWriter {
    bytes: Vec<u8>,
}

impl FrameWriter {
    /// Begins a new frame, keeping the allocation unless one huge frame made it grow.
    pub(super) fn start(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(1 << 18);
        self.bytes.extend_from_slice(&[0; FRAME_HEAD]);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() <= FRAME_HEAD
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole frame, header filled in.
    pub(super) fn finish(&mut self) -> &[u8] {
        let (head, payload) = self.bytes.split_at_mut(FRAME_HEAD);
        // The commit thread bounds a batch far below 4 GiB.
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        &self.bytes
    }

    pub(super) fn txn(&mut self, revision: u64, ops: usize) {
        self.bytes.push(TXN);
        self.number(revision);
        self.number(ops as u64);
    }

    pub(super) fn delete(&mut self, key: &str) {
        self.bytes.push(0);
        self.blob(key.as_bytes());
    }

    pub(super) fn put(&mut self, key: &str, lease: i64, value: &[u8]) {
        self.bytes.push(1);
        self.blob(key.as_bytes());
        self.number(lease as u64);
        self.blob(value);
    }

    pub(super) fn lease(&mut self, id: i64, ttl_ms: u64, remaining_ms: u64) {
        self.bytes.push(LEASE);
        self.number(id as u64);
        self.number(ttl_ms);
        self.number(remaining_ms);
    }

    pub(super) fn revoked(&mut self, id: i64) {
        self.bytes.push(REVOKED);
        self.number(id as u64);
    }

    pub(super) fn begin(&mut self, revision: u64, last_lease: i64) {
        self.bytes.push(BEGIN);
        self.number(revision);
        self.number(last_lease as u64);
    }

    pub(super) fn entry(&mut self, key: &str, create_revision: u64, mod_revision: u64, lease: i64, value: &[u8]) {
        self.bytes.push(ENTRY);
        self.blob(key.as_bytes());
        self.number(create_revision);
        self.number(mod_revision);
        self.number(lease as u64);
        self.blob(value);
    }

    pub(super) fn end(&mut self, entries: u64) {
        self.bytes.push(END);
        self.number(entries);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }
}

/// The frame at the start of `bytes`, as payload and total length; `None` when there is no whole, sound one.
pub(super) fn frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    let payload = rest.get(..len)?;
    let sound = len > 0 && crc32fast::hash(payload) == u32::from_le_bytes(*crc);
    sound.then_some((payload, FRAME_HEAD + len))
}

/// Offset of the first sound frame in `bytes`, at any byte.
pub(super) fn find_frame(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|&at| frame(&bytes[at..]).is_some_and(|(payload, _)| Records(payload).all(|r| r.is_ok())))
}

/// A sound frame that holds something else than records.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The records of a frame's payload.
pub(super) struct Records<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.record().ok_or(Malformed);
        if record.is_err() {
            self.0 = &[];
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Option<Record<'a>> {
        Some(match self.byte()? {
            TXN => {
                let revision = self.number()?;
                let count = self.number()?;
                let mut ops = Vec::with_capacity(count.min(1024) as usize);
                for _ in 0..count {
                    ops.push(self.op()?);
                }
                Record::Txn { revision, ops }
            }
            LEASE => Record::Lease { id: self.signed()?, ttl_ms: self.number()?, remaining_ms: self.number()? },
            REVOKED => Record::Revoked { id: self.signed()? },
            BEGIN => Record::Begin { revision: self.number()?, last_lease: self.signed()? },
            ENTRY => Record::Entry {
                key: self.text()?,
                create_revision: self.number()?,
                mod_revision: self.number()?,
                lease: self.signed()?,
                value: self.blob()?,
            },
            END => Record::End { entries: self.number()? },
            _ => return None,
        })
    }

    fn op(&mut self) -> Option<RecordOp<'a>> {
        Some(match self.byte()? {
            0 => RecordOp::Delete { key: self.text()? },
            1 => RecordOp::Put { key: self.text()?, lease: self.signed()?, value: self.blob()? },
            _ => return None,
        })
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        i64::try_from(self.number()?).ok()
    }

    fn blob(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (blob, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(blob)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.blob()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = FrameWriter::default();
        writer.start();
        writer.txn(300, 2);
        writer.put("/a", 7, b"value");
        writer.delete("/b");
        writer.lease(7, 60_000, 59_000);
        writer.revoked(7);
        writer.begin(u64::MAX, 9);
        writer.entry("/a", 2, 300, 0, b"");
        writer.end(1);
        writer.finish().to_vec()
    }

    #[test]
    fn records_come_back_as_written() {
        let bytes = sample();
        let (payload, len) = frame(&bytes).unwrap();
        assert_eq!(len, bytes.len());
        let records: Vec<Record<'_>> = Records(payload).map(Result::unwrap).collect();
        assert_eq!(
            records,
            [
                Record::Txn {
                    revision: 300,
                    ops: vec![RecordOp::Put { key: "/a", lease: 7, value: b"value" }, RecordOp::Delete { key: "/b" }]
                },
                Record::Lease { id: 7, ttl_ms: 60_000, remaining_ms: 59_000 },
                Record::Revoked { id: 7 },
                Record::Begin { revision: u64::MAX, last_lease: 9 },
                Record::Entry { key: "/a", create_revision: 2, mod_revision: 300, lease: 0, value: b"" },
                Record::End { entries: 1 },
            ]
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = sample();
        for at in 0..bytes.len() {
            assert!(frame(&bytes[..at]).is_none(), "cut at {at}");
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(frame(&damaged).is_none(), "flipped at {at}");
        }
    }

    #[test]
    fn records_that_end_early_are_malformed() {
        let bytes = sample();
        let (payload, _) = frame(&bytes).unwrap();
        assert_eq!(Records(&payload[..8]).last(), Some(Err(Malformed)));
        assert_eq!(Records(&[99]).next(), Some(Err(Malformed)));
    }
}
