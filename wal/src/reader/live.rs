//! A reader of an open log: how far it may show, what it waits for, and the pin that goes with it.

use super::WalReader;
use crate::Lsn;
use crate::error::Result;
use crate::follow::{Met, SleepsOn, Stopper};
use crate::log::Inner;
use crate::mutation::Mutation;
use crate::retention::Pin;
use crate::scan::{FrameReader, SegmentUse};
use crate::sync::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

/// What a reader of an open log holds.
#[derive(Debug)]
pub(super) struct Live {
    inner: Arc<Inner>,
    /// Keeps what was not yet read.
    pin: Pin,
    /// Waits for more, instead of ending at the limit.
    follows: bool,
    /// How many cuts of the log the reader knows of.
    pub(super) cuts: u64,
    /// What the reader was to show was cut off: told at its end.
    pub(super) cut_short: Option<Lsn>,
}

impl Live {
    fn new(inner: &Arc<Inner>, pin: Pin, follows: bool, cuts: u64) -> Live {
        Live { inner: inner.clone(), pin, follows, cuts, cut_short: None }
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The frame at `lsn`, if it was written a moment ago and is still in memory.
    pub(super) fn recent(&self, lsn: Lsn) -> Option<Arc<[u8]>> {
        if self.follows { self.inner.committer.followers.recent(lsn) } else { None }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.follows {
            self.inner.committer.followers.left();
        }
    }
}

impl WalReader {
    /// Reads from `from` to `limit`, all of it written.
    pub(crate) fn bounded(inner: &Arc<Inner>, pin: Pin, from: Lsn, limit: Lsn) -> Result<WalReader> {
        // What is durable is the same on the device and in the page cache; what is only written need not be.
        let from_device = limit <= inner.committer.durable();
        let cuts = inner.committer.cuts.count();
        let live = Live::new(inner, pin, false, cuts);
        WalReader::live(live, from, limit, from_device)
    }

    /// Reads from `from` on, whatever becomes durable.
    pub(crate) fn following(inner: &Arc<Inner>, pin: Pin, from: Lsn) -> Result<WalReader> {
        inner.committer.followers.joined();
        // Before the path and the limit.
        let cuts = inner.committer.cuts.count();
        let limit = inner.committer.durable();
        let live = Live::new(inner, pin, true, cuts);
        WalReader::live(live, from, limit, true)
    }

    fn live(live: Live, from: Lsn, limit: Lsn, from_device: bool) -> Result<WalReader> {
        let inner = live.inner.clone();
        let frames = FrameReader::new(&inner.disk, &inner.dir, inner.geometry, from_device)?;
        let stopper =
            Stopper { stop: Arc::new(AtomicBool::new(false)), sleeps_on: SleepsOn::Log(inner.clone()) };
        let mut reader = WalReader::over(frames, &inner.dir, from, stopper);
        // Asked for after the limit: a segment is known before anything in it is written.
        (reader.path, reader.at, reader.limit) = (inner.segments(), limit, limit);
        reader.judged_from = inner.recovery.start;
        reader.live = Some(live);
        reader.frames.read_until(limit);
        reader.seek()?;
        Ok(reader)
    }

    pub(super) fn follows(&self) -> bool {
        self.tail.is_some() || self.live.as_ref().is_some_and(|live| live.follows)
    }

    /// At the limit: waits until it moves. False if there is no more, or the time is over.
    pub(super) fn wait_for_more(&mut self) -> Result<bool> {
        if self.tail.is_some() {
            return self.wait_for_files();
        }
        let deadline = self.deadline;
        let Some(live) = self.live.as_ref().filter(|live| live.follows) else { return Ok(false) };
        if live.inner.mutation == Some(Mutation::FollowPastDurable)
            && live.inner.committer.written() > self.limit
        {
            self.limit = live.inner.committer.written();
            self.frames.read_until(self.limit);
            self.refresh();
            return Ok(true);
        }
        let met = live.inner.committer.follow(self.limit, live.cuts, &self.stopper.stop, deadline)?;
        self.timed_out = met == Met::TimedOut;
        let Met::Durable(durable) = met else { return Ok(false) };
        self.limit = durable;
        self.frames.read_until(durable);
        if self.path.last().is_none_or(|last| last.number < self.geometry.number(durable)) {
            self.refresh();
        }
        Ok(true)
    }

    /// Learns of segments begun since. True if there is one behind the reader's.
    pub(super) fn refresh(&mut self) -> bool {
        let Some(live) = &self.live else { return false };
        let Some(own) = self.path.get(self.index).copied() else {
            // A replica's log that held nothing: its first segment came since.
            self.path = live.inner.segments();
            let Some(first) = self.path.first() else { return false };
            (self.index, self.at) = (0, self.geometry.first_frame(first.number));
            return self.path.len() > 1;
        };
        let mut path: Vec<SegmentUse> =
            live.inner.segments().into_iter().filter(|segment| segment.number >= own.number).collect();
        if path.first().is_none_or(|segment| segment.number != own.number) {
            // The reader's pin keeps what it has still to read. A segment that is gone was read to its end.
            if self.geometry.number(self.at) == own.number && own.end.is_none_or(|end| self.at < end) {
                return false;
            }
            path.insert(0, own);
        }
        (self.path, self.index) = (path, 0);
        self.path.len() > 1
    }

    /// Whether the reader stands behind a segment's header that has given way to another since it was learnt of, as one
    /// without a frame does in a replica's log.
    pub(super) fn is_behind_given_up_header(&self, segment: &SegmentUse) -> bool {
        let Some(live) = self.live.as_ref().filter(|_| self.at == self.geometry.first_frame(segment.number))
        else {
            return false;
        };
        let segments = live.inner.segments();
        !segments.iter().any(|now| (now.number, now.salt) == (segment.number, segment.salt))
    }

    /// Goes on behind what was shown, with the segments that there are now.
    pub(super) fn go_on_behind_shown(&mut self) -> Result<()> {
        if let Some(live) = &self.live {
            self.path = live.inner.segments();
        }
        self.seek_again()
    }

    pub(super) fn now(&self) -> Duration {
        match &self.stopper.sleeps_on {
            SleepsOn::Log(inner) => inner.runtime.now(),
            SleepsOn::Word(runtime, _) => runtime.now(),
        }
    }

    /// The log may be reclaimed up to the reader's place.
    pub(super) fn advance_pin(&self) {
        if let Some(live) = &self.live {
            live.pin.advance_to(self.from.max(self.at));
        }
    }
}
