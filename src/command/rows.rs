//! Rows in files: JSONL, CSV and TSV, in both directions.
//!
//! What `dump` writes, `load` reads back byte for byte: objects `{"key": …, "value": …}`, or columns `key,value`,
//! both with escapes. Files of others are taken as they are, a backslash being a backslash: when a field or column
//! is named, or when a table's columns are not just `key,value`.
//!
//! Memory is bounded: a line, or a quoted record of several lines, may have [`LINE_BYTES_MAX`] bytes.

use super::escape::Codec;
use super::{Failure, Outcome};
use clap::ValueEnum;
use std::io::{BufRead, Write};
use std::path::Path;

mod delimited;
mod jsonl;

/// The engine's limits, checked here so that a bad line can be named.
const KEY_BYTES_MAX: usize = 65_535;
pub(crate) const VALUE_BYTES_MAX: usize = 16 << 20;
/// The longest value, escaped: `\\xNN` in JSON has five characters for a byte. With its key, and room to spare.
const LINE_BYTES_MAX: usize = 84 << 20;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// One JSON object a line
    Jsonl,
    /// Comma-separated, with a heading
    Csv,
    /// Tab-separated, with a heading
    Tsv,
}

impl FileFormat {
    /// What a file's name says.
    pub(crate) fn of(path: &Path) -> Option<FileFormat> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" => Some(FileFormat::Jsonl),
            "csv" => Some(FileFormat::Csv),
            "tsv" | "tab" => Some(FileFormat::Tsv),
            _ => None,
        }
    }
}

/// How rows are taken out of a file.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) format: FileFormat,
    /// The field or column that holds the key.
    pub(crate) key: Option<String>,
    /// The field or column that holds the value; without it, all that there is.
    pub(crate) value: Option<String>,
    /// How `dump`'s own two columns are read.
    pub(crate) codec: Codec,
}

/// A row, or why there is none.
#[derive(Debug)]
pub(crate) enum Next {
    Row { key: Vec<u8>, value: Vec<u8> },
    Bad { line: u64, why: String },
    End,
}

/// Rows out of a file, one at a time.
pub(crate) trait Source {
    /// The next row. An error means that the file cannot be read on; a row that makes no sense is `Next::Bad`.
    fn next(&mut self) -> Outcome<Next>;
}

/// The rows of a file.
pub(crate) fn source(input: Box<dyn BufRead>, shape: Shape) -> Outcome<Box<dyn Source>> {
    Ok(match shape.format {
        FileFormat::Jsonl => Box::new(jsonl::Jsonl::new(input, shape)),
        FileFormat::Csv => Box::new(delimited::Delimited::open(input, b',', shape)?),
        FileFormat::Tsv => Box::new(delimited::Delimited::open(input, b'\t', shape)?),
    })
}

/// A row within the engine's limits, or `Next::Bad`.
fn checked(line: u64, row: Result<(Vec<u8>, Vec<u8>), String>) -> Next {
    match row {
        Err(why) => Next::Bad { line, why },
        Ok((key, _)) if key.len() > KEY_BYTES_MAX => {
            Next::Bad { line, why: format!("a key of {} bytes; the limit is {KEY_BYTES_MAX}", key.len()) }
        }
        Ok((_, value)) if value.len() > VALUE_BYTES_MAX => Next::Bad {
            line,
            why: format!("a value of {} bytes; the limit is {VALUE_BYTES_MAX}", value.len()),
        },
        Ok((key, value)) => Next::Row { key, value },
    }
}

/// Rows into a file.
pub(crate) struct Sink<W: Write> {
    out: W,
    format: FileFormat,
    codec: Codec,
}

impl<W: Write> Sink<W> {
    pub(crate) fn new(mut out: W, format: FileFormat, codec: Codec) -> Outcome<Sink<W>> {
        let heading = match format {
            FileFormat::Jsonl => "",
            FileFormat::Csv => "key,value\n",
            FileFormat::Tsv => "key\tvalue\n",
        };
        out.write_all(heading.as_bytes()).map_err(|error| Failure::output(&error))?;
        Ok(Sink { out, format, codec })
    }

    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Outcome {
        let (key, value) = (self.codec.encode(key), self.codec.encode(value));
        let written = match self.format {
            FileFormat::Jsonl => jsonl::write(&mut self.out, &key, &value),
            FileFormat::Csv => delimited::write(&mut self.out, b',', &key, &value),
            FileFormat::Tsv => delimited::write(&mut self.out, b'\t', &key, &value),
        };
        written.map_err(|error| Failure::output(&error))
    }

    pub(crate) fn finish(mut self) -> Outcome {
        self.out.flush().map_err(|error| Failure::output(&error))
    }
}
