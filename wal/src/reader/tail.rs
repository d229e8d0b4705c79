//! A reader of a log that another process may be writing: it looks at the files again and again, and writes, syncs,
//! locks and creates nothing.
//!
//! How far it may show, the log itself says: each frame, each segment's header and the anchor carry what was durable when
//! they were written (`docs/format/wal.md`, "Following"). Frames ahead of the reader are looked at for that alone.
//!
//! Files move under it. A segment used again has another salt and other positions, so its frames are none of those that
//! the reader looks for; one that is gone was reclaimed, or cut off. What of the two, the path from the newest header
//! backward says, and the anchor, which is written before a file is used again and before a cut is done. So the anchor is
//! read again behind each record that was found, before that is shown.
//!
//! - **W11** A reader of files shows no record that ends behind what a durable LSN on the disk covers, and none that was
//!   cut off before it was found.

use super::WalReader;
use crate::Lsn;
use crate::anchor;
use crate::error::{Error, Result};
use crate::follow::{SleepsOn, Stopper};
use crate::frame::{self, Flags};
use crate::log::WalOptions;
use crate::record;
use crate::runtime::{OsRuntime, Runtime};
use crate::scan::{FrameReader, SegmentUse};
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::walk::corruption;
use files::{Files, Survey};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod files;

/// Times between two looks at an idle log: from the first, doubled, up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// How often what does not fit together is looked at again before it is believed.
const LOOKS_MAX: u32 = 12;

/// What a reader of another process's log knows of it, and of its own way through it.
#[derive(Debug)]
pub(super) struct Tail {
    files: Files,
    /// Where showing was to begin.
    begun: Lsn,
    /// A record that was found and not shown, because the log has moved meanwhile.
    unshown: Option<Lsn>,
    pause: Duration,
    failures: u32,
}

impl Tail {
    /// Whether the log has moved since its path was looked up.
    pub(super) fn has_moved(&mut self) -> Result<bool> {
        self.files.has_moved()
    }
}

impl WalReader {
    /// Follows a log that another process may be writing, without opening it for writing: records from `from` on, as
    /// soon as something on the disk says that they are durable. Nothing is written, synced, locked or created.
    ///
    /// Nobody wakes a reader in another process: it looks every 1 to 20 ms ([`Runtime::wait`]). The last records that a
    /// writer acknowledged are shown when it writes again, or falls idle for some 2 ms and seals its log; those of a group
    /// that goes over several segments perhaps before it acknowledges them, when a segment's header proves them. The end of the
    /// log is no end: the writer may come back. Nor does the reader keep anything from being reclaimed: one that is too
    /// slow gets [`Error::Reclaimed`].
    ///
    /// ```
    /// # let dir = std::env::temp_dir().join(format!("seawall-tail-doc-{}", std::process::id()));
    /// use seawall_wal::{Lsn, Next, Wal, WalReader};
    /// use std::time::Duration;
    /// let wal = Wal::options().segment_bytes(1 << 20).open(&dir)?;
    /// let mut follower = WalReader::follow(&dir, Lsn::ZERO)?; // perhaps in another process
    /// wal.commit(b"seen")?;
    /// assert!(matches!(follower.next_timeout(Duration::from_secs(60))?, Next::Record(r) if r.payload == b"seen"));
    /// # wal.close()?;
    /// # std::fs::remove_dir_all(dir).unwrap();
    /// # Ok::<(), seawall_wal::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Reclaimed`] if the log begins behind `from` (which may be zero: from its beginning);
    /// [`Error::Truncated`] if `from` was cut off; [`Error::Corruption`], [`Error::FormatVersion`], [`Error::Io`], with
    /// `NotFound` for a directory without a log.
    pub fn follow(dir: impl AsRef<Path>, from: Lsn) -> Result<WalReader> {
        WalReader::follow_with(dir, from, &WalOptions::default())
    }

    /// Like [`follow`](WalReader::follow), on the options' disk and runtime.
    ///
    /// # Errors
    /// Like `follow`.
    pub fn follow_with(dir: impl AsRef<Path>, from: Lsn, options: &WalOptions) -> Result<WalReader> {
        let dir = dir.as_ref();
        let mut options = options.clone().read_only(true);
        options.settle_disk(dir)?;
        let disk = options.disk_or_default();
        crate::open::refuse_network(&*disk, dir, &options)?;
        let runtime: Arc<dyn Runtime> = options.runtime.clone().unwrap_or_else(|| OsRuntime::new());
        let files = Files::open(dir, &options, &runtime)?;
        let from = if from == Lsn::ZERO { files.anchor.first } else { from };
        let frames = FrameReader::new(&disk, dir, files.geometry, true)?;
        let sleeps_on = SleepsOn::Word(runtime, Arc::new(AtomicU32::new(0)));
        let stopper = Stopper { stop: Arc::new(AtomicBool::new(false)), sleeps_on };
        let mut reader = WalReader::over(frames, dir, from, stopper);
        reader.tail = Some(Tail { files, begun: from, unshown: None, pause: PAUSE_MIN, failures: 0 });
        reader.survey()?;
        reader.look_ahead()?;
        reader.seek()?;
        Ok(reader)
    }

    /// How far records may be shown, as far as the reader knows now. For one that follows, what it has shown grows to
    /// this, and then it looks again.
    pub fn limit(&self) -> Lsn {
        self.limit
    }

    /// Looks up the path, and whether the reader's place is on it.
    fn survey(&mut self) -> Result<()> {
        for look in 0.. {
            let Some(tail) = &mut self.tail else { return Ok(()) };
            let found = match tail.files.look() {
                Err(error) if look < LOOKS_MAX && may_pass(&error) => None,
                found => found?,
            };
            let first = tail.files.anchor.first;
            if let Some(survey) = found {
                self.check_place(&survey, first)?;
                self.path = survey.path;
                return Ok(());
            }
            if look >= LOOKS_MAX {
                let file = self.dir.join(anchor::FILE_NAME);
                return Err(corruption(&file, 0, None, "the log's files do not fit together"));
            }
            tail.files.wait(PAUSE_MIN);
        }
        Ok(())
    }

    /// The reader's place must not be before the log's beginning, nor behind a cut.
    fn check_place(&mut self, survey: &Survey, first: Lsn) -> Result<()> {
        if self.shown < first && self.behind_seals(survey) < first {
            return Err(Error::Reclaimed { lsn: self.shown, first });
        }
        let shown = self.shown;
        let has_shown = self.tail.as_ref().is_some_and(|tail| shown > tail.begun);
        // From the log's beginning there is nothing else to begin with, wherever that lies. What was shown and then cut off
        // is told, also if the log begins behind that by now.
        match survey.gaps.iter().find(|(from, to)| *from < shown && shown < *to) {
            Some((at, _)) if shown > first || has_shown => Err(Error::Truncated { at: *at }),
            _ => Ok(()),
        }
    }

    /// Where the next record is to stand: behind what was shown, and behind seals.
    fn behind_seals(&mut self, survey: &Survey) -> Lsn {
        if let Some(next) = self.tail.as_ref().and_then(|tail| tail.unshown) {
            return next.max(self.shown);
        }
        if self.unit_at < self.unit.len() {
            return self.shown;
        }
        let mut at = self.at;
        if let Some(segment) = self.path.get(self.index).copied() {
            at = self.skip_seals(&segment, at);
        }
        if let Some(oldest) = survey.path.first()
            && self.geometry.start(oldest.number) >= at
            && survey.before.is_some_and(|(end, last)| end <= at || last <= self.shown)
        {
            at = self.skip_seals(oldest, self.geometry.first_frame(oldest.number));
        }
        at.plus(frame::HEADER_BYTES as u64).max(self.shown)
    }

    fn skip_seals(&mut self, segment: &SegmentUse, mut at: Lsn) -> Lsn {
        while let Ok(Some(header)) = self.frames.header_at(segment, at) {
            if header.flags != Flags::SEAL {
                break;
            }
            at = at.plus(header.padded_bytes() as u64);
        }
        at
    }

    /// Looks for what says how far may be shown. True if that is further than before.
    fn look_ahead(&mut self) -> Result<bool> {
        let Some(tail) = &mut self.tail else { return Ok(false) };
        tail.files.scan(&self.path)?;
        if tail.files.durable <= self.limit {
            return Ok(false);
        }
        self.limit = tail.files.durable;
        self.frames.forget();
        self.frames.read_until(self.limit);
        Ok(true)
    }

    /// One look at a log that the reader has shown all of. True if there is more.
    fn poll(&mut self) -> Result<bool> {
        let Some(tail) = &mut self.tail else { return Ok(false) };
        let last = self.path.last().map_or(0, |last| last.number);
        if tail.has_moved()? || tail.files.has_newer(last)? {
            self.survey()?;
            self.find_place();
        }
        self.look_ahead()
    }

    /// Where the reader stands on a new path: all that it has read is behind it.
    fn find_place(&mut self) {
        let before = self.path.iter().rposition(|segment| self.geometry.start(segment.number) < self.at);
        self.index = before.unwrap_or(0);
        let Some(segment) = self.path.get(self.index) else { return };
        let is_inside = self.geometry.number(Lsn(self.at.0.saturating_sub(1))) == segment.number;
        if before.is_none() {
            self.at = self.geometry.first_frame(segment.number);
        } else if !is_inside && let Some(next) = self.path.get(self.index + 1) {
            self.at = self.geometry.first_frame(next.number);
            self.index += 1;
        }
    }

    /// At the end of what may be shown: looks again until there is more. False if the reader was stopped, or its time is
    /// over.
    pub(super) fn wait_for_files(&mut self) -> Result<bool> {
        loop {
            let SleepsOn::Word(runtime, word) = self.stopper.sleeps_on.clone() else { return Ok(false) };
            let seen = word.load(Ordering::SeqCst);
            if self.stopper.is_stopped() {
                return Ok(false);
            }
            let polled = self.poll();
            let Some(tail) = &mut self.tail else { return Ok(false) };
            if matches!(polled, Ok(true)) {
                (tail.pause, tail.failures) = (PAUSE_MIN, 0);
                return Ok(true);
            }
            if let Err(error) = polled {
                tail.failures += 1;
                if tail.failures > LOOKS_MAX || !may_pass(&error) {
                    return Err(error);
                }
            }
            let left = self.deadline.map(|deadline| deadline.saturating_sub(runtime.now()));
            if left == Some(Duration::ZERO) {
                self.timed_out = true;
                return Ok(false);
            }
            runtime.wait(&word, seen, left.into_iter().chain([tail.pause]).min());
            tail.pause = (tail.pause * 2).min(PAUSE_MAX);
        }
    }

    /// After an error of reading files that may have moved: whether to look again.
    pub(super) fn may_look_again(&mut self, error: &Error) -> bool {
        let Some(tail) = &mut self.tail else { return false };
        tail.failures += 1;
        let again = tail.failures <= LOOKS_MAX && may_pass(error);
        if again {
            tail.files.wait(PAUSE_MIN);
        }
        again
    }

    /// What was found when the log had moved: nothing behind that was shown.
    pub(super) fn note_unshown(&mut self, found: &Result<Option<(usize, record::Header)>>) {
        let unshown = match found {
            Ok(Some((at, _))) => Some(self.lsn_of(*at)),
            Ok(None) => None,
            Err(_) => self.pieces.first().map(|(_, lsn)| *lsn),
        };
        if let Some(tail) = &mut self.tail {
            tail.unshown = unshown;
        }
    }

    pub(super) fn has_read(&mut self) {
        if let Some(tail) = &mut self.tail {
            (tail.pause, tail.failures) = (PAUSE_MIN, 0);
        }
    }

    /// The log has moved under the reader: goes on from what was shown, on the new path.
    pub(super) fn go_on_with_files(&mut self) -> Result<()> {
        self.survey()?;
        if let Some(tail) = &mut self.tail {
            tail.unshown = None;
        }
        self.look_ahead()?;
        self.seek_again()
    }
}

/// Whether an error can be due to files that are being moved.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Corruption { .. } => true,
        Error::Io { source, .. } => {
            matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}
