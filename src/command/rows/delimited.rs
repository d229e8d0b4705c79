//! Comma- and tab-separated tables, quoted as RFC 4180 has it, with a heading.

use super::{LINE_BYTES_MAX, Next, Shape, Source, checked};
use crate::command::escape::Codec;
use crate::command::{Failure, Outcome};
use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use std::cell::Cell;
use std::io::{self, BufRead, Read, Write};
use std::rc::Rc;

pub(super) struct Delimited {
    reader: Reader<Capped>,
    /// Bytes read since the last whole record.
    since_record: Rc<Cell<usize>>,
    columns: Vec<String>,
    key: usize,
    value: Option<usize>,
    codec: Codec,
    record: ByteRecord,
}

impl Delimited {
    pub(super) fn open(input: Box<dyn BufRead>, delimiter: u8, shape: Shape) -> Outcome<Delimited> {
        let since_record = Rc::new(Cell::new(0));
        let input = Capped { input, since_record: Rc::clone(&since_record) };
        let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(input);
        let heading =
            reader.headers().map_err(|error| Failure::error(format!("line 1, the heading: {error}")))?;
        let columns: Vec<String> = heading.iter().map(str::to_owned).collect();
        let find = |name: &String| {
            let found = columns.iter().position(|column| column == name);
            found.ok_or_else(|| {
                Failure::usage(format!("no column `{name}`; the heading has: {}", columns.join(", ")))
            })
        };
        let own = shape.key.is_none() && shape.value.is_none() && columns == ["key", "value"];
        let key = shape.key.as_ref().map(find).transpose()?.unwrap_or(0);
        let value = shape.value.as_ref().map(find).transpose()?;
        let (value, codec) = if own { (Some(1), shape.codec) } else { (value, Codec::Raw) };
        Ok(Delimited { reader, since_record, columns, key, value, codec, record: ByteRecord::new() })
    }

    fn row(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let cell = |column: usize| self.record.get(column).ok_or_else(|| "a column is missing".to_owned());
        let key = self.codec.decode(cell(self.key)?).map_err(|why| format!("key: {why}"))?;
        let value = match self.value {
            Some(column) => self.codec.decode(cell(column)?).map_err(|why| format!("value: {why}"))?,
            None => self.rest_as_json()?,
        };
        Ok((key, value))
    }

    /// All columns but the key's, as a compact JSON object in the heading's order.
    fn rest_as_json(&self) -> Result<Vec<u8>, String> {
        let mut object = vec![b'{'];
        for (column, (name, cell)) in self.columns.iter().zip(&self.record).enumerate() {
            if column == self.key {
                continue;
            }
            let text = std::str::from_utf8(cell)
                .map_err(|_| format!("column `{name}` is not UTF-8; --value-column takes one as it is"))?;
            if object.len() > 1 {
                object.push(b',');
            }
            let written = serde_json::to_writer(&mut object, name).and_then(|()| {
                object.push(b':');
                serde_json::to_writer(&mut object, text)
            });
            written.map_err(|error| error.to_string())?;
        }
        object.push(b'}');
        Ok(object)
    }
}

impl Source for Delimited {
    fn next(&mut self) -> Outcome<Next> {
        let start = self.reader.position().line();
        let read = self.reader.read_byte_record(&mut self.record);
        self.since_record.set(0);
        match read {
            Ok(false) => Ok(Next::End),
            Ok(true) => {
                let line = self.record.position().map_or(start, |position| position.line());
                Ok(checked(line, self.row()))
            }
            Err(error) => match error.kind() {
                ErrorKind::UnequalLengths { pos, expected_len, len } => Ok(Next::Bad {
                    line: pos.as_ref().map_or(start, |position| position.line()),
                    why: format!("{len} columns, where the heading has {expected_len}"),
                }),
                ErrorKind::Io(error) => Err(Failure::error(format!("line {start}: {error}"))),
                _ => Ok(Next::Bad { line: start, why: error.to_string() }),
            },
        }
    }
}

pub(super) fn write(out: &mut impl Write, delimiter: u8, key: &str, value: &str) -> io::Result<()> {
    quote(out, delimiter, key)?;
    out.write_all(&[delimiter])?;
    quote(out, delimiter, value)?;
    out.write_all(b"\n")
}

/// The escaped form has neither line ends nor tabs; commas and quotes are what is left to quote.
fn quote(out: &mut impl Write, delimiter: u8, text: &str) -> io::Result<()> {
    // An empty cell is quoted too: a line of nothing at all would not be a row.
    if !text.is_empty() && !text.bytes().any(|byte| byte == delimiter || byte == b'"') {
        return out.write_all(text.as_bytes());
    }
    write!(out, "\"{}\"", text.replace('"', "\"\""))
}

/// Ends a record that never ends: a quote left open would otherwise take the whole file into memory.
struct Capped {
    input: Box<dyn BufRead>,
    since_record: Rc<Cell<usize>>,
}

impl Read for Capped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_record.get() > LINE_BYTES_MAX {
            let why = format!("longer than {LINE_BYTES_MAX} bytes; is a quote left open?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let read = self.input.read(buffer)?;
        self.since_record.set(self.since_record.get() + read);
        Ok(read)
    }
}
