//! The fuzz target of the row readers: JSONL, CSV and TSV out of arbitrary bytes. They are part of the command, so
//! the command's own files are taken in here, by the replaying test and by the fuzz target.

#[path = "../../src/command"]
pub(crate) mod command {
    #![allow(dead_code, unused_imports, clippy::disallowed_methods, clippy::disallowed_types)]
    pub(crate) mod escape;
    pub(crate) mod failure;
    pub(crate) mod rows;

    pub(crate) use failure::{Failure, Outcome};
}

use command::escape::Codec;
use command::rows::{self, FileFormat, Next, Shape, Sink};
use std::io::{BufReader, Cursor};

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// The first byte chooses format and shape; the rest is the file. Reading ends, and what was read as rows, written in
/// each format, reads back byte for byte.
pub(crate) fn loader(data: &[u8]) {
    let (how, file) = data.split_first().map_or((0, data), |(how, file)| (*how, file));
    let formats = [FileFormat::Jsonl, FileFormat::Csv, FileFormat::Tsv];
    let format = formats[usize::from(how) % 3];
    let name = |bit: u8, name: &str| (how & bit != 0).then(|| name.to_owned());
    let codec = if how & 64 == 0 { Codec::Escaped } else { Codec::Hex };
    let (rows, bad) = read(file, Shape { format, key: name(16, "k"), value: name(32, "v"), codec });
    assert!(rows.len() + bad <= file.len() + 1, "more rows than bytes");
    for (key, value) in &rows {
        // A CSV's row repeats its heading; nothing else grows by more than its escapes.
        assert!(key.len() <= 6 * file.len() && value.len() <= 16 * file.len() + 16);
    }
    for format in formats {
        for codec in [Codec::Escaped, Codec::Hex] {
            let again = read(&dump(&rows, format, codec), Shape { format, key: None, value: None, codec });
            assert_eq!(again, (rows.clone(), 0), "rows that do not come back: {format:?}, {codec:?}");
        }
    }
}

fn read(file: &[u8], shape: Shape) -> (Rows, usize) {
    let (mut rows, mut bad) = (Rows::new(), 0);
    // A small buffer, so that lines lie across its end.
    let input = BufReader::with_capacity(7, Cursor::new(file.to_vec()));
    let Ok(mut source) = rows::source(Box::new(input), shape) else { return (rows, bad) };
    loop {
        match source.next() {
            Ok(Next::Row { key, value }) => rows.push((key, value)),
            Ok(Next::Bad { why, .. }) => {
                assert!(!why.is_empty());
                bad += 1;
            }
            Ok(Next::End) | Err(_) => return (rows, bad),
        }
        assert!(rows.len() + bad <= file.len() + 1, "it does not end");
    }
}

fn dump(rows: &Rows, format: FileFormat, codec: Codec) -> Vec<u8> {
    let mut out = Vec::new();
    let Ok(mut sink) = Sink::new(&mut out, format, codec) else { return Vec::new() };
    for (key, value) in rows {
        assert!(sink.push(key, value).is_ok());
    }
    assert!(sink.finish().is_ok());
    out
}
