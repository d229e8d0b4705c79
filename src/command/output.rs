//! Standard output in three formats: a table for people, JSON as one document, JSON a line.

use super::{Failure, Outcome};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, BufWriter, Stdout, Write};

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
}

/// A cell: its name in JSON, what JSON shows. Tables show strings bare and the rest as JSON does.
pub(crate) type Cell = (&'static str, Value);

/// Buffered standard output. Nothing is sure to have been written until [`finish`](Out::finish).
#[derive(Debug)]
pub(crate) struct Out {
    format: Format,
    sink: BufWriter<Stdout>,
}

impl Out {
    pub(crate) fn new(format: Format) -> Out {
        Out { format, sink: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Outcome {
        self.sink.write_all(bytes).map_err(|error| Failure::output(&error))
    }

    /// One object: a name and its value a line in a table.
    pub(crate) fn object(&mut self, cells: &[Cell]) -> Outcome {
        match self.format {
            Format::Table => {
                let width = cells.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                for (name, value) in cells {
                    let label = name.replace('_', " ");
                    self.raw(format!("{label:width$}  {}\n", plain(value)).as_bytes())?;
                }
                Ok(())
            }
            _ => self.value(&Object(cells)),
        }
    }

    /// Anything that serialises, as JSON.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Outcome {
        let text = match self.format {
            Format::Jsonl => serde_json::to_vec(value),
            _ => serde_json::to_vec_pretty(value),
        };
        let mut text = text.map_err(|error| Failure::error(format!("writing JSON: {error}")))?;
        text.push(b'\n');
        self.raw(&text)
    }

    /// Begins a list of objects.
    pub(crate) fn list(self, style: Style) -> List {
        List { out: self, style, count: 0 }
    }

    /// Hands over what there is so far. Fails if nobody reads any more.
    pub(crate) fn flush(&mut self) -> Outcome {
        self.sink.flush().map_err(|error| Failure::output(&error))?;
        if is_reader_gone() {
            return Err(Failure::output(&io::ErrorKind::BrokenPipe.into()));
        }
        Ok(())
    }

    /// Hands everything to the reader.
    pub(crate) fn finish(mut self) -> Outcome {
        self.sink.flush().map_err(|error| Failure::output(&error))
    }
}

/// Whether standard output is a pipe whose reader has gone: writing would tell, but there may be nothing to write.
fn is_reader_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&at_once)).is_ok() && asked.iter().any(|fd| fd.revents().contains(PollFlags::ERR))
}

/// How a list looks as a table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// Cells separated by tabs, no heading: for data that goes on to other tools.
    Tabs,
    /// A heading, and cells padded to at least these widths.
    Columns(&'static [usize]),
}

/// A list of objects, printed as it comes: no length is too long.
#[derive(Debug)]
pub(crate) struct List {
    out: Out,
    style: Style,
    count: u64,
}

impl List {
    pub(crate) fn push(&mut self, cells: &[Cell]) -> Outcome {
        let first = self.count == 0;
        self.count += 1;
        match self.out.format {
            Format::Table => {
                if let (true, Style::Columns(_)) = (first, self.style) {
                    let names = cells.iter().map(|(name, _)| name.replace('_', " ").to_uppercase()).collect();
                    self.line(names)?;
                }
                self.line(cells.iter().map(|(_, value)| plain(value)).collect())
            }
            Format::Json => {
                self.out.raw(if first { b"[\n  " } else { b",\n  " })?;
                self.json(cells)
            }
            Format::Jsonl => {
                self.json(cells)?;
                self.out.raw(b"\n")
            }
        }
    }

    /// Hands over what there is so far. Fails if nobody reads any more.
    pub(crate) fn flush(&mut self) -> Outcome {
        self.out.flush()
    }

    pub(crate) fn finish(mut self) -> Outcome {
        if self.out.format == Format::Json {
            self.out.raw(if self.count == 0 { b"[]\n" } else { b"\n]\n" })?;
        }
        self.out.finish()
    }

    fn json(&mut self, cells: &[Cell]) -> Outcome {
        let text = serde_json::to_vec(&Object(cells));
        self.out.raw(&text.map_err(|error| Failure::error(format!("writing JSON: {error}")))?)
    }

    fn line(&mut self, cells: Vec<String>) -> Outcome {
        let mut line = match self.style {
            Style::Tabs => cells.join("\t"),
            Style::Columns(widths) => {
                let widths = widths.iter().copied().chain(std::iter::repeat(0));
                let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
                padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
            }
        };
        line.push('\n');
        self.out.raw(line.as_bytes())
    }
}

/// Cells as a JSON object, in their order.
struct Object<'a>(&'a [Cell]);

impl Serialize for Object<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Rows below a heading, the first column to the left, the others to the right.
pub(crate) fn aligned(head: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let lines = || std::iter::once(&heading).chain(rows);
    let cell = |line: &[String], column: usize| line.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> =
        (0..head.len()).map(|column| lines().map(|line| cell(line, column)).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines() {
        let padded = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let padded = padded.collect::<Vec<_>>().join("  ");
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [vec!["a".to_owned(), "12,345".to_owned()], vec!["a long name".to_owned(), "µs".to_owned()]];
        let text = aligned(&["NAME", "N"], &rows);
        assert_eq!(text, "NAME              N\na            12,345\na long name      µs\n");
        assert_eq!(aligned(&["NAME", "N"], &[vec!["a".to_owned()]]), "NAME  N\na\n");
    }
}
