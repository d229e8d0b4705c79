//! A flight recorder: the last minutes' events, written out when something fails.
//!
//! ```text
//! events of a store ─┐                       ┌ a failure: the store poisoned or fenced, a replica that needs a hand
//! events of links ───┼─► ring, bounded ──────┤ a signal, a panic: whoever calls `dump`
//! notes ─────────────┘  by time and number   └─► DIR/NAME-flight-TIME-REASON.jsonl, of which the last few are kept
//! ```

use super::event_name;
use crate::wal::disk::{Disk, OsDisk, crashsafe};
use crate::wal::{OsRuntime, Runtime};
use crate::{Event, EventListener};
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

#[cfg(feature = "replication")]
mod links;

/// How a [`FlightRecorder`] records.
#[derive(Clone)]
#[non_exhaustive]
pub struct FlightOptions {
    /// Where dumps are written.
    pub dir: PathBuf,
    /// What their names begin with.
    pub name: String,
    /// Events older than this are forgotten. Default: 10 minutes.
    pub age_max: Duration,
    /// Of more events the oldest are forgotten. Default: 4,096.
    pub events_max: usize,
    /// Of more dumps of this name the oldest are removed. Default: 16.
    pub files_max: usize,
    /// Where the directory is.
    pub disk: Arc<dyn Disk>,
    /// The clock.
    pub runtime: Arc<dyn Runtime>,
}

impl FlightOptions {
    /// As usual, into this directory, by this name.
    pub fn new(dir: impl Into<PathBuf>, name: impl Into<String>) -> FlightOptions {
        FlightOptions {
            dir: dir.into(),
            name: name.into(),
            age_max: Duration::from_secs(600),
            events_max: 4096,
            files_max: 16,
            disk: OsDisk::new(),
            runtime: OsRuntime::new(),
        }
    }
}

/// A field's value in a note.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// A number.
    Number(u64),
    /// A time, or a share.
    Fraction(f64),
    /// Words.
    Text(&'a str),
    /// Yes or no.
    Flag(bool),
}

/// Keeps the last minutes' events of a store, and of its links, in memory, and writes them out as a file when something fails: one
/// JSON object a line, the oldest first, each with its time in microseconds since 1970. It dumps by itself when the store is
/// poisoned or fenced, and when a replica needs a rewind, a new image, or a new disk; whenever else, by [`dump`](Self::dump).
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-flight-{}", std::process::id()));
/// # std::fs::create_dir_all(&dir).unwrap();
/// use seawall::observe::{Field, FlightOptions, FlightRecorder};
///
/// let recorder = FlightRecorder::new(FlightOptions::new(&dir, "db"));
/// let db = seawall::Db::builder(dir.join("db")).events(recorder.clone()).open()?;
/// recorder.note("deployed", &[("version", Field::Text("1.2"))]);
/// let file = recorder.dump("asked-for").unwrap();
/// assert!(std::fs::read_to_string(file).unwrap().contains("\"event\":\"deployed\",\"version\":\"1.2\"}\n"));
/// # drop(db);
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall::Error>(())
/// ```
pub struct FlightRecorder {
    options: FlightOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each with its time.
    lines: VecDeque<(u64, String)>,
    forgotten: u64,
    dumps: u64,
    last: Option<PathBuf>,
    error: Option<String>,
}

impl FlightRecorder {
    /// Nothing has happened yet.
    pub fn new(options: FlightOptions) -> Arc<FlightRecorder> {
        Arc::new(FlightRecorder { options, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic has left is a line too few at worst.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Something happened that the recorder is not told of by others.
    pub fn note(&self, event: &str, fields: &[(&str, Field<'_>)]) {
        let at = self.options.runtime.wall_clock_us();
        let line = line(at, event, fields);
        let mut state = self.state();
        state.lines.push_back((at, line));
        let oldest = at.saturating_sub(u64::try_from(self.options.age_max.as_micros()).unwrap_or(u64::MAX));
        while state.lines.len() > self.options.events_max
            || state.lines.front().is_some_and(|(then, _)| *then < oldest)
        {
            state.lines.pop_front();
            state.forgotten += 1;
        }
    }

    /// Writes out what there is, and says where. The reason, in a word, becomes part of the name.
    ///
    /// # Errors
    /// What the disk says.
    pub fn dump(&self, reason: &str) -> io::Result<PathBuf> {
        self.dump_of(self.state(), reason, &[])
    }

    /// As [`dump`](Self::dump), from a panic's hook, with what the panic said. None if it was the recorder that panicked.
    pub fn dump_in_panic(&self, said: &str) -> Option<io::Result<PathBuf>> {
        let why = [("why", Field::Text(said))];
        match self.state.try_lock() {
            Ok(state) => Some(self.dump_of(state, "panic", &why)),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.dump_of(poisoned.into_inner(), "panic", &why)),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn dump_of(
        &self,
        mut state: MutexGuard<'_, State>,
        reason: &str,
        more: &[(&str, Field<'_>)],
    ) -> io::Result<PathBuf> {
        let at = self.options.runtime.wall_clock_us();
        let mut fields = vec![
            ("reason", Field::Text(reason)),
            ("pid", Field::Number(u64::from(std::process::id()))),
            ("events", Field::Number(state.lines.len() as u64)),
            ("forgotten", Field::Number(state.forgotten)),
        ];
        fields.extend_from_slice(more);
        let mut text: String = state.lines.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect();
        text += &line(at, "dump", &fields);
        text.push('\n');
        state.dumps += 1;
        let path = self.options.dir.join(self.file_name(at, state.dumps, reason));
        // Who has something to tell does not wait for a disk.
        drop(state);
        let written = crashsafe::write_new(&*self.options.disk, &path, text.as_bytes());
        let mut state = self.state();
        match &written {
            Ok(()) => state.last = Some(path.clone()),
            Err(error) => state.error = Some(format!("{}: {error}", path.display())),
        }
        drop(state);
        written?;
        // The new one is there: what cannot be removed stays, and is tried again next time.
        let _ = self.tidy();
        Ok(path)
    }

    /// Ascending with time, and two in one microsecond differ.
    fn file_name(&self, at: u64, dump: u64, reason: &str) -> String {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let reason: String = reason.chars().map(plain).take(40).collect();
        format!("{}{at:016}-{dump:03}-{reason}.jsonl", self.prefix())
    }

    fn prefix(&self) -> String {
        format!("{}-flight-", self.options.name)
    }

    fn tidy(&self) -> io::Result<()> {
        let (disk, dir, prefix) = (&self.options.disk, &self.options.dir, self.prefix());
        let is_ours = |name: &String| name.starts_with(&prefix) && name.ends_with(".jsonl");
        let mut names: Vec<String> = disk.list(dir)?.into_iter().filter(is_ours).collect();
        names.sort();
        let surplus = names.len().saturating_sub(self.options.files_max.max(1));
        names.iter().take(surplus).try_for_each(|name| disk.remove(&dir.join(name)))
    }

    /// The last dump, if there was one.
    pub fn last_dump(&self) -> Option<PathBuf> {
        self.state().last.clone()
    }

    /// Why the last dump that failed did, once.
    pub fn take_error(&self) -> Option<String> {
        self.state().error.take()
    }

    /// Where dumps are written.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Something has failed: what led there is written out. Who is told of the event has nothing to do about a disk that is full.
    fn failed(&self, reason: &str) {
        let _ = self.dump(reason);
    }
}

impl EventListener for FlightRecorder {
    fn event(&self, event: &Event) {
        let name = event_name(event);
        let number = |name, value| (name, Field::Number(value));
        let time = |took: &Duration| ("seconds", Field::Fraction(took.as_secs_f64()));
        match event {
            Event::CheckpointDone { lsn, took } => self.note(name, &[number("lsn", lsn.0), time(took)]),
            Event::WriteStall { took } | Event::SlowSync { took } => self.note(name, &[time(took)]),
            Event::SnapshotOld { age } => self.note(name, &[time(age)]),
            Event::PreparedOld { xid, age } => {
                self.note(name, &[("xid", Field::Text(&xid.to_string())), time(age)]);
            }
            Event::SlotLost { name: slot, bytes } => {
                self.note(name, &[("slot", Field::Text(slot)), number("bytes", *bytes)]);
            }
            Event::RewindGivenUp { floor, checkpoint } => {
                self.note(name, &[number("floor", floor.0), number("checkpoint", checkpoint.0)]);
            }
            Event::Poisoned { why } => self.note(name, &[("why", Field::Text(why))]),
            Event::NoSpace => self.note(name, &[]),
            Event::Degraded { on } => self.note(name, &[("on", Field::Flag(*on))]),
            Event::Fenced { epoch } | Event::Promoted { epoch } => {
                self.note(name, &[number("epoch", *epoch)]);
            }
            // What later versions tell of.
            other => self.note(name, &[("what", Field::Text(&format!("{other:?}")))]),
        }
        if matches!(event, Event::Poisoned { .. } | Event::Fenced { .. }) {
            self.failed(name);
        }
    }
}

impl fmt::Debug for FlightRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlightRecorder").field("dir", &self.options.dir).finish_non_exhaustive()
    }
}

/// One JSON object.
fn line(at: u64, event: &str, fields: &[(&str, Field<'_>)]) -> String {
    let mut line = format!("{{\"time_us\":{at},\"event\":");
    text(&mut line, event);
    for (name, value) in fields {
        line.push(',');
        text(&mut line, name);
        line.push(':');
        match value {
            Field::Number(value) => line += &value.to_string(),
            Field::Fraction(value) if value.is_finite() => line += &value.to_string(),
            Field::Fraction(_) => line += "null",
            Field::Flag(value) => line += &value.to_string(),
            Field::Text(value) => text(&mut line, value),
        }
    }
    line.push('}');
    line
}

fn text(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}
