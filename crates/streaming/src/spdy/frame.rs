//! SPDY frames, as bytes.
//!
//! ```text
//! control: 1|version:15=3  type:16       flags:8 length:24  payload
//! data:    0|stream:31                   flags:8 length:24  payload          flag 1: FIN, the sender is done
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::Error;

/// A frame longer than this is refused; Kubernetes clients send at most 32 KiB.
const FRAME_BYTES_MAX: usize = 1 << 20;
const FIN: u8 = 1;
const VERSION: u16 = 3;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// `block` is still compressed.
    SynStream {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    SynReply {
        stream: u32,
        block: Bytes,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Data {
        stream: u32,
        fin: bool,
        bytes: Bytes,
    },
    /// A control frame that nothing here depends on (SETTINGS, HEADERS, WINDOW_UPDATE, unknown).
    Other,
}

/// Takes one whole frame off `buffer`, if it is there.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, Error> {
    let Some(head) = buffer.first_chunk::<8>() else {
        return Ok(None);
    };
    let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let flags = head[4];
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(broken(format!("a frame of {length} bytes")));
    }
    if buffer.len() < 8 + length {
        buffer.reserve(8 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(8);
    let mut payload = buffer.split_to(length).freeze();
    if first & 0x8000_0000 == 0 {
        return Ok(Some(Frame::Data { stream: first, fin: flags & FIN != 0, bytes: payload }));
    }
    let version = (first >> 16) as u16 & 0x7fff;
    if version != VERSION {
        return Err(broken(format!("version {version}")));
    }
    let mut word = |name: &str| {
        if payload.len() < 4 { Err(broken(format!("short {name} frame"))) } else { Ok(payload.get_u32() & 0x7fff_ffff) }
    };
    let frame = match first & 0xffff {
        1 => {
            let stream = word("SYN_STREAM")?;
            word("SYN_STREAM")?;
            if payload.len() < 2 {
                return Err(broken("short SYN_STREAM frame".into()));
            }
            payload.advance(2);
            Frame::SynStream { stream, fin: flags & FIN != 0, block: payload }
        }
        2 => Frame::SynReply { stream: word("SYN_REPLY")?, block: payload },
        3 => Frame::Reset { stream: word("RST_STREAM")? },
        6 => {
            if payload.len() < 4 {
                return Err(broken("short PING frame".into()));
            }
            Frame::Ping { id: payload.get_u32() }
        }
        7 => Frame::GoAway,
        _ => Frame::Other,
    };
    Ok(Some(frame))
}

/// The bytes of a frame.
pub(super) fn put(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    match frame {
        Frame::SynStream { stream, fin, block } => {
            control(&mut out, 1, u8::from(*fin), 10 + block.len());
            out.put_u32(*stream);
            out.put_u32(0);
            out.put_u16(0);
            out.put_slice(block);
        }
        Frame::SynReply { stream, block } => {
            control(&mut out, 2, 0, 4 + block.len());
            out.put_u32(*stream);
            out.put_slice(block);
        }
        Frame::Reset { stream } => {
            control(&mut out, 3, 0, 8);
            out.put_u32(*stream);
            out.put_u32(5); // CANCEL
        }
        Frame::Ping { id } => {
            control(&mut out, 6, 0, 4);
            out.put_u32(*id);
        }
        Frame::GoAway => {
            control(&mut out, 7, 0, 8);
            out.put_u32(0);
            out.put_u32(0);
        }
        Frame::Data { stream, fin, bytes } => {
            out.reserve(8 + bytes.len());
            out.put_u32(*stream);
            out.put_u32(u32::from(u8::from(*fin)) << 24 | bytes.len() as u32);
            out.put_slice(bytes);
        }
        Frame::Other => {}
    }
    out.freeze()
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

pub(super) fn broken(why: String) -> Error {
    Error::Protocol { protocol: "SPDY/3.1", why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_byte_by_byte() {
        let frames = [
            Frame::SynStream { stream: 1, fin: true, block: Bytes::from_static(b"block") },
            Frame::SynReply { stream: 1, block: Bytes::new() },
            Frame::Reset { stream: 3 },
            Frame::Ping { id: 9 },
            Frame::GoAway,
            Frame::Data { stream: 5, fin: false, bytes: Bytes::from_static(b"hello") },
            Frame::Data { stream: 5, fin: true, bytes: Bytes::new() },
        ];
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for byte in frames.iter().flat_map(|frame| put(frame).to_vec()) {
            buffer.put_u8(byte);
            seen.extend(take(&mut buffer).unwrap());
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn oversized_and_short_frames_are_refused() {
        for bytes in
            [&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..], &[0x80, 2, 0, 1, 0, 0, 0, 0], &[0x80, 3, 0, 1, 0, 0, 0, 1, 0]]
        {
            assert!(take(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
    }
}
