//! Texts about malformed input, in the words of Go's decoders.

use serde_json::error::Category;

/// Bytes of a body that an error quotes.
const QUOTED: usize = 30;

/// The beginning of a body for an error: text when it looks like JSON, hexadecimal otherwise.
pub(super) fn summary(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(QUOTED)];
    let more = if bytes.len() > QUOTED { " ..." } else { "" };
    match bytes.first() {
        None => "<empty>".to_string(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => head.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

/// What Go says of a JSON error.
pub(super) fn go(error: &serde_json::Error, bytes: &[u8]) -> String {
    if error.classify() == Category::Eof {
        return "unexpected end of JSON input".into();
    }
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let context = match text {
        "expected value" => "looking for beginning of value",
        "key must be a string" | "trailing comma" => "looking for beginning of object key string",
        "expected `:`" => "after object key",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        "trailing characters" => "after top-level value",
        "expected ident" => "in literal",
        "invalid escape" => "in string escape code",
        "invalid number" => "in numeric literal",
        text if text.starts_with("control character") => "in string literal",
        text => return text.to_string(),
    };
    match offender(error, bytes) {
        Some(byte @ 0x20..0x7f) => format!("invalid character {:?} {context}", char::from(byte)),
        Some(b'\n') => format!("invalid character '\\n' {context}"),
        Some(byte) => format!("invalid character '\\x{byte:02x}' {context}"),
        None => text.to_string(),
    }
}

fn offender(error: &serde_json::Error, bytes: &[u8]) -> Option<u8> {
    let line = bytes.split_inclusive(|byte| *byte == b'\n').nth(error.line().checked_sub(1)?)?;
    line.get(error.column().saturating_sub(1)).copied()
}

/// The place of the first byte that padded standard base64 does not allow.
pub(super) fn bad_base64(text: &str) -> Option<usize> {
    // Go's decoder skips line breaks.
    let bytes = text.bytes().enumerate().filter(|(_, byte)| !matches!(byte, b'\n' | b'\r'));
    let (mut count, mut padding) = (0, 0);
    for (at, byte) in bytes {
        match byte {
            b'=' if count % 4 >= 2 && padding < 2 => padding += 1,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => {}
            _ => return Some(at),
        }
        count += 1;
    }
    (count % 4 != 0).then_some(text.len())
}
