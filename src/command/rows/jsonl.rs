//! One JSON object a line.

use super::{LINE_BYTES_MAX, Next, Shape, Source, checked};
use crate::command::escape::Codec;
use crate::command::{Failure, Outcome};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

pub(super) struct Jsonl {
    input: Box<dyn BufRead>,
    shape: Shape,
    line: u64,
    buffer: Vec<u8>,
}

impl Jsonl {
    pub(super) fn new(input: Box<dyn BufRead>, shape: Shape) -> Jsonl {
        Jsonl { input, shape, line: 0, buffer: Vec::new() }
    }
}

impl Source for Jsonl {
    fn next(&mut self) -> Outcome<Next> {
        loop {
            let read = read_line(&mut *self.input, &mut self.buffer, LINE_BYTES_MAX);
            let read = read.map_err(|error| Failure::error(format!("reading the file: {error}")))?;
            self.line += 1;
            match read {
                Line::End => return Ok(Next::End),
                Line::TooLong => {
                    let why = format!("longer than {LINE_BYTES_MAX} bytes");
                    return Ok(Next::Bad { line: self.line, why });
                }
                Line::Whole => {}
            }
            let text = self.buffer.trim_ascii();
            // Spreadsheets and some editors begin a file with a byte order mark.
            let text = if self.line == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) } else { text };
            if !text.is_empty() {
                return Ok(checked(self.line, row(text, &self.shape)));
            }
        }
    }
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

fn row(text: &[u8], shape: &Shape) -> Result<(Vec<u8>, Vec<u8>), String> {
    let fields: Fields<'_> =
        serde_json::from_slice(text).map_err(|error| format!("not a JSON object: {error}"))?;
    let Some(key) = &shape.key else { return own_row(&fields, shape) };
    let value = match &shape.value {
        Some(name) => plain(field(&fields, name)?),
        None => text.to_vec(),
    };
    Ok((plain(field(&fields, key)?), value))
}

/// What `dump` writes: exactly a key and a value, both strings.
fn own_row(fields: &Fields<'_>, shape: &Shape) -> Result<(Vec<u8>, Vec<u8>), String> {
    let value_field = shape.value.as_deref().unwrap_or("value");
    if let (None, Some(name)) = (&shape.value, fields.keys().find(|name| *name != "key" && *name != "value"))
    {
        return Err(format!("an unknown field `{name}`; with --key-field NAME the whole line is the value"));
    }
    // A value field that was named is data of others.
    let value_codec = if shape.value.is_some() { Codec::Raw } else { shape.codec };
    Ok((text_of(fields, "key", shape.codec)?, text_of(fields, value_field, value_codec)?))
}

fn text_of(fields: &Fields<'_>, name: &str, codec: Codec) -> Result<Vec<u8>, String> {
    let raw = field(fields, name)?;
    let text: String = serde_json::from_str(raw.get()).map_err(|_| {
        format!("`{name}` is not a string; --key-field and --value-field take other fields as they are")
    })?;
    codec.decode(text.as_bytes()).map_err(|why| format!("`{name}`: {why}"))
}

fn field<'a>(fields: &Fields<'a>, name: &str) -> Result<&'a RawValue, String> {
    fields.get(name).copied().ok_or_else(|| format!("no field `{name}`"))
}

/// A string's own bytes; anything else as it stands in the file.
fn plain(raw: &RawValue) -> Vec<u8> {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => text.into_bytes(),
        Err(_) => raw.get().as_bytes().to_vec(),
    }
}

pub(super) fn write(out: &mut impl Write, key: &str, value: &str) -> io::Result<()> {
    out.write_all(b"{\"key\":")?;
    serde_json::to_writer(&mut *out, key)?;
    out.write_all(b",\"value\":")?;
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"}\n")
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads a line into `buffer`, or passes over one that is longer than `bytes_max`.
fn read_line(input: &mut dyn BufRead, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<Line> {
    buffer.clear();
    let (mut any, mut too_long) = (false, false);
    loop {
        let available = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if available.is_empty() {
            break;
        }
        any = true;
        let end = available.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(available.len(), |end| end + 1);
        too_long |= buffer.len() + used > bytes_max;
        if too_long {
            buffer.clear();
        } else {
            buffer.extend_from_slice(available.get(..used).unwrap_or_default());
        }
        input.consume(used);
        if end.is_some() {
            break;
        }
    }
    Ok(match (any, too_long) {
        (false, _) => Line::End,
        (true, true) => Line::TooLong,
        (true, false) => Line::Whole,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_line_over_the_limit_is_passed_over() {
        let mut input: &[u8] = b"ab\nabcdefgh\nc";
        let mut buffer = Vec::new();
        let mut read = || match read_line(&mut input, &mut buffer, 4).unwrap() {
            Line::Whole => format!("{:?}", buffer.escape_ascii().to_string()),
            Line::TooLong => "too long".to_owned(),
            Line::End => "end".to_owned(),
        };
        assert_eq!([read(), read(), read(), read()], [r#""ab\\n""#, "too long", r#""c""#, "end"]);
    }

    #[test]
    fn numbers_keep_their_text() {
        let raw: Fields<'_> = serde_json::from_str(r#"{"n":1.000000000000000000001,"s":"a\"b"}"#).unwrap();
        assert_eq!(plain(raw["n"]), b"1.000000000000000000001");
        assert_eq!(plain(raw["s"]), b"a\"b");
    }
}
