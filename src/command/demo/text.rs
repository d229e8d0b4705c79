//! A real text file as rows: line number → line.

use crate::command::rows::VALUE_BYTES_MAX;
use crate::command::{Failure, Outcome, Ui};
use seawall::{Db, WriteBatch};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

const KEYSPACE: &str = "text";
const BATCH_LINES: u64 = 1000;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Where a machine is likely to have some text.
const LIKELY: [&str; 2] = ["/usr/share/common-licenses/GPL-3", "/usr/share/dict/words"];

/// The text that is loaded.
pub(super) enum Input {
    File(PathBuf),
    /// Of a machine without any.
    Embedded(&'static [u8]),
}

impl Input {
    /// The file asked for, which must open; else the first likely one; else the embedded one.
    pub(super) fn choose(asked: Option<PathBuf>) -> Outcome<Input> {
        if let Some(path) = asked {
            File::open(&path).map_err(|error| Failure::file("opening", &path, &error))?;
            return Ok(Input::File(path));
        }
        let likely = LIKELY.iter().map(PathBuf::from).find(|path| path.is_file());
        Ok(likely.map_or(Input::Embedded(include_bytes!("../../../LICENSE-APACHE")), Input::File))
    }

    pub(super) fn name(&self) -> String {
        match self {
            Input::File(path) => path.display().to_string(),
            Input::Embedded(_) => "the Apache licence".to_owned(),
        }
    }

    fn open(&self) -> Outcome<Box<dyn BufRead>> {
        Ok(match self {
            Input::File(path) => {
                let file = File::open(path).map_err(|error| Failure::file("opening", path, &error))?;
                Box::new(BufReader::with_capacity(256 << 10, file))
            }
            Input::Embedded(bytes) => Box::new(*bytes),
        })
    }

    /// Calls `each` with the number and the bytes of every line, its end included.
    fn lines(&self, mut each: impl FnMut(u64, &[u8]) -> Outcome) -> Outcome<u64> {
        let mut reader = self.open()?;
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            let limit = VALUE_BYTES_MAX as u64 + 1;
            let read = reader.by_ref().take(limit).read_until(b'\n', &mut line);
            let read = read.map_err(|error| Failure::file("reading", Path::new(&self.name()), &error))?;
            if read == 0 {
                return Ok(number);
            }
            number += 1;
            if line.len() > VALUE_BYTES_MAX {
                let message =
                    format!("line {number} of {} is longer than {VALUE_BYTES_MAX} bytes", self.name());
                return Err(Failure::usage(message).hint("--input wants a text file"));
            }
            each(number, &line)?;
        }
    }
}

/// Loads the text in synced batches and reads it back. Returns how many lines it has.
pub(super) fn load(ui: &Ui, db: &Db, input: &Input) -> Outcome<u64> {
    let keyspace = db.keyspace(KEYSPACE)?;
    let mut batch = WriteBatch::new();
    let mut batch_bytes = 0;
    let rows = input.lines(|number, line| {
        batch.insert(&keyspace, number.to_be_bytes(), line);
        batch_bytes += line.len();
        if number % BATCH_LINES == 0 || batch_bytes > BATCH_BYTES_MAX {
            ui.check_interrupt()?;
            db.write(std::mem::take(&mut batch))?;
            batch_bytes = 0;
        }
        Ok(())
    })?;
    if !batch.is_empty() {
        db.write(batch)?;
    }
    match missing(ui, db, input, rows)? {
        0 => Ok(rows),
        wrong => {
            Err(Failure::error(format!("{wrong} of {rows} lines were not read back as they were written")))
        }
    }
}

/// How many lines are not in the store as they are in the file, and how many rows are there that should not be.
pub(super) fn missing(ui: &Ui, db: &Db, input: &Input, rows: u64) -> Outcome<u64> {
    let Some(keyspace) = db.open_keyspace(KEYSPACE)? else { return Ok(rows) };
    let mut stored = keyspace.range(..).fuse();
    let mut wrong = 0;
    input.lines(|number, line| {
        ui.check_interrupt()?;
        let same = match stored.next().transpose()? {
            Some((key, value)) => *key == number.to_be_bytes() && *value == *line,
            None => false,
        };
        wrong += u64::from(!same);
        Ok(())
    })?;
    for extra in stored {
        extra?;
        wrong += 1;
    }
    Ok(wrong)
}
