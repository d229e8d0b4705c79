//! What is kept of one link over all its sessions.

use super::moments::{Moments, Rate};
use super::{Direction, Link};
use crate::message::Marks;
use seawall_wal::Lsn;
use std::time::Duration;

/// One link: what its sessions have shown so far. Times are microseconds of the runtime's clock.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Book {
    /// Since when there is a connection, if there is one.
    connected_at: Option<u64>,
    heard_at: Option<u64>,
    sessions: u64,
    errors: u64,
    last_error: Option<String>,
    sent: Lsn,
    marks: Marks,
    bytes: u64,
    rate: Rate,
}

/// What the side that ships has, as far as is known here.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::node) struct Source {
    pub(in crate::node) durable: Lsn,
    pub(in crate::node) visible: Lsn,
}

/// When what the side that ships has became durable there.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Ages(Moments);

impl Ages {
    /// All below was durable there at that time, by the clock here.
    pub(in crate::node) fn note(&mut self, durable: Lsn, at: u64) {
        self.0.note(durable, at);
    }
}

impl Book {
    pub(in crate::node) fn is_connected(&self) -> bool {
        self.connected_at.is_some()
    }

    /// When it was heard of last.
    pub(in crate::node) fn heard_at(&self) -> Option<u64> {
        self.heard_at
    }

    /// A connection has come about.
    pub(in crate::node) fn begin(&mut self, now: u64) {
        (self.connected_at, self.heard_at) = (Some(now), Some(now));
        self.sessions += 1;
    }

    /// What there is after a step: the place up to which was sent, and the replica's marks.
    pub(in crate::node) fn moved(&mut self, sent: Lsn, marks: Marks, heard_at: Option<u64>) {
        (self.sent, self.marks) = (sent, marks);
        self.heard_at = self.heard_at.max(heard_at);
    }

    /// So many bytes of log went over it.
    pub(in crate::node) fn passed(&mut self, now: u64, bytes: u64) {
        if bytes > 0 {
            self.bytes += bytes;
            self.rate.add(now, bytes);
        }
    }

    /// The connection has ended.
    pub(in crate::node) fn end(&mut self, why: Option<&String>) {
        self.connected_at = None;
        if let Some(why) = why {
            self.failed(why);
        }
    }

    /// Something was met that should not be.
    pub(in crate::node) fn failed(&mut self, why: &str) {
        self.errors += 1;
        self.last_error = Some(why.to_owned());
    }

    /// As others are told.
    pub(in crate::node) fn link(
        &self,
        (name, direction): (&str, Direction),
        now: u64,
        source: Source,
        ages: &Ages,
    ) -> Link {
        let since = |at: Option<u64>| Duration::from_micros(at.map_or(0, |at| now.saturating_sub(at)));
        let marks = self.marks;
        // Behind the last record there may be padding, which is nothing that anybody lacks.
        let end = if marks.taken >= source.durable { marks.received } else { source.durable };
        let lag_bytes = end.0.saturating_sub(marks.applied.0);
        let missing_since = ages.0.missing_since(marks.applied).filter(|_| lag_bytes > 0);
        Link {
            name: name.to_owned(),
            direction,
            is_connected: self.is_connected(),
            connected_for: since(self.connected_at),
            silence: since(self.heard_at),
            sessions: self.sessions,
            errors: self.errors,
            last_error: self.last_error.clone(),
            sent: self.sent,
            marks,
            source_durable: source.durable,
            source_visible: source.visible,
            lag_bytes,
            lag: since(missing_since),
            bytes: self.bytes,
            bytes_per_s: self.rate.per_second(now),
            part: None,
            retained: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn marks(received: u64, applied: u64, taken: u64) -> Marks {
        let (received, applied) = (Lsn(received), Lsn(applied));
        let visible = applied;
        Marks { received, durable: received, applied, visible, taken: Lsn(taken), credit: 1 }
    }

    #[test]
    fn one_that_has_all_there_is_lags_by_nothing_whatever_its_age() {
        let (mut book, mut ages) = (Book::default(), Ages::default());
        // The end of what is durable lies behind the last record: padding.
        ages.note(Lsn(4096), SECOND);
        book.begin(SECOND);
        book.moved(Lsn(4096), marks(4000, 4000, 4096), Some(SECOND));
        let source = Source { durable: Lsn(4096), visible: Lsn(4096) };
        let link = book.link(("a", Direction::Out), 100 * SECOND, source, &ages);
        assert_eq!((link.lag_bytes, link.lag), (0, Duration::ZERO));
        assert_eq!((link.connected_for.as_secs(), link.silence.as_secs()), (99, 99));
    }

    #[test]
    fn a_lag_is_that_of_the_oldest_record_which_is_not_applied() {
        let (mut book, mut ages) = (Book::default(), Ages::default());
        ages.note(Lsn(4000), SECOND);
        ages.note(Lsn(9000), 5 * SECOND);
        book.begin(0);
        let source = Source { durable: Lsn(9000), visible: Lsn(9000) };
        let mut lag = |at: Marks| {
            book.moved(Lsn(12_288), at, Some(7 * SECOND));
            let link = book.link(("a", Direction::Out), 8 * SECOND, source, &ages);
            (link.lag_bytes, link.lag.as_secs())
        };
        assert_eq!(lag(marks(0, 0, 0)), (9000, 7));
        assert_eq!(lag(marks(4000, 4000, 4096)), (5000, 3), "it has the first");
        assert_eq!(lag(marks(9000, 4000, 12_288)), (5000, 3), "it has not applied the second");
        assert_eq!(lag(marks(9000, 9000, 12_288)), (0, 0));
    }

    #[test]
    fn sessions_errors_and_bytes_are_counted_over_all_connections() {
        let mut book = Book::default();
        book.failed("refused: Busy");
        book.begin(SECOND);
        book.passed(SECOND, 700);
        book.end(Some(&"the connection was lost".to_owned()));
        assert!(!book.is_connected());
        book.begin(3 * SECOND);
        book.passed(3 * SECOND, 300);
        book.end(None);
        let link = book.link(("a", Direction::In), 4 * SECOND, Source::default(), &Ages::default());
        assert_eq!((link.sessions, link.reconnects(), link.errors, link.bytes), (2, 1, 2, 1000));
        assert_eq!(link.last_error.as_deref(), Some("the connection was lost"));
        assert_eq!((link.is_connected, link.connected_for, link.bytes_per_s), (false, Duration::ZERO, 250));
    }
}
