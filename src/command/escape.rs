//! Bytes as text, reversibly.
//!
//! The escaped form is printable ASCII: `\n`, `\r`, `\t`, `\\`, and `\xNN` for every other byte outside `' '..='~'`.
//! Reading is more lenient than writing: any text stands for its own UTF-8 bytes, and `\'`, `\"`, `\0` are
//! understood. A backslash before anything else is an error, never a guess.

use std::fmt::Write as _;

/// How bytes are printed and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Escaped,
    Hex,
    /// The text's own bytes: for files of others, where a backslash is a backslash.
    Raw,
}

impl Codec {
    /// Bytes as text. `Raw` has no text for bytes that are not UTF-8 and writes escapes instead.
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Codec::Escaped | Codec::Raw => escape(bytes),
            Codec::Hex => hex(bytes),
        }
    }

    /// Text as bytes, or what is wrong with it.
    pub(crate) fn decode(self, text: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Codec::Escaped => unescape(text),
            Codec::Hex => unhex(text),
            Codec::Raw => Ok(text.to_vec()),
        }
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 8);
    for &byte in bytes {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(quoted @ (b'\\' | b'\'' | b'"')) => quoted,
            Some(b'x') => match (rest.next().and_then(digit), rest.next().and_then(digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err("\\x wants two hexadecimal digits".to_owned()),
            },
            Some(other) => {
                let shown = escape(&[other]);
                return Err(format!("\\{shown} is no escape; a backslash itself is written \\\\"));
            }
            None => return Err("a lone backslash at the end; a backslash itself is written \\\\".to_owned()),
        });
    }
    Ok(bytes)
}

fn unhex(text: &[u8]) -> Result<Vec<u8>, String> {
    let (pairs, odd) = text.as_chunks::<2>();
    if !odd.is_empty() {
        return Err("hexadecimal wants an even number of digits".to_owned());
    }
    let byte = |&[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    pairs.iter().map(byte).collect::<Option<_>>().ok_or_else(|| "not hexadecimal".to_owned())
}

fn digit(character: u8) -> Option<u8> {
    // A hexadecimal digit is below 16.
    char::from(character).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for codec in [Codec::Escaped, Codec::Hex] {
            let text = codec.encode(&all);
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
            assert_eq!(codec.decode(text.as_bytes()), Ok(all.clone()));
        }
    }

    #[test]
    fn what_people_type_is_understood_or_refused() {
        assert_eq!(unescape("naïve".as_bytes()), Ok("naïve".as_bytes().to_vec()));
        assert_eq!(unescape(br#"\0\"\'\x7F"#), Ok(vec![0, b'"', b'\'', 0x7f]));
        for wrong in [r"\", r"\q", r"\x", r"\x1", r"\xg0", "\\\u{e9}"] {
            assert!(unescape(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(unhex(b"abc").is_err());
        assert!(unhex(b"zz").is_err());
        assert_eq!(unhex(b""), Ok(vec![]));
    }
}
