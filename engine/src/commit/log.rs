//! The log as the engine sees it: a place in an order, and word when it holds.
//!
//! The engine commits through [`CommitLog`], not through the log crate itself: a log on this disk now, one that is
//! shipped or agreed upon with others later, so that there is never a second log to sync.

use crate::commit::gate::Ack;
use crate::sync::{AtomicU64, Ordering};
use crate::{Error, Result};
use seawall_wal::{Durability, Kind, Lsn, Pin, Placed, RecordRef, Recovery, Retainer, Wal, WalStats};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A record's place in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The record's first byte.
    pub(crate) lsn: Lsn,
    /// The position after the record.
    pub(crate) end: Lsn,
    /// How far replicas must have come with it.
    pub(crate) ack: Ack,
    token: Token,
}

#[derive(Clone, Copy, Debug)]
enum Token {
    Local(Placed),
    /// It was in the log when that was opened.
    Recovered,
    #[cfg(test)]
    Mock,
}

impl Place {
    /// Of what the log held when it was opened.
    pub(crate) fn recovered(lsn: Lsn, end: Lsn, ack: Ack) -> Place {
        Place { lsn, end, ack, token: Token::Recovered }
    }

    pub(crate) fn is_recovered(&self) -> bool {
        matches!(self.token, Token::Recovered)
    }

    #[cfg(test)]
    pub(crate) fn mock(lsn: Lsn, end: Lsn) -> Place {
        Place { lsn, end, ack: Ack::Local, token: Token::Mock }
    }
}

/// What became of a record that had its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It, and all before it, have come as far as each asked for.
    Reached,
    /// Not within the time given.
    TimedOut,
    /// The log took back every record in this range; all of them are still invisible, and stay so. Whoever hears of
    /// it late must not take back what was placed since.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a log of one store never takes back; one with others may")
    )]
    Withdrawn { from: Lsn, to: Lsn },
}

/// What a log says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// More records are reached than before.
    Moved,
    /// It took back every record in this range; all of them are still invisible, and stay so.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a log of one store never takes back; one with others may")
    )]
    Withdrawn { from: Lsn, to: Lsn },
    /// It has failed: what is not reached has an unknown outcome.
    Failed,
}

/// Called after every change, before anybody who waits for it is woken, by the thread that made it. Must not block.
pub(crate) type OnNews = Box<dyn Fn(News) + Send + Sync>;

/// A total order of records, and when each is safe.
pub(crate) trait CommitLog: Send + Sync + 'static {
    /// Sees to it that a record of this size finds room. May wait and do I/O. `NoSpace` here means that nothing
    /// happened.
    fn make_room(&self, payload_bytes: usize) -> Result<()>;
    /// Takes the next place. No I/O. None: ask for room again.
    fn place(&self, payload: &[u8], durability: Durability) -> Result<Option<Place>>;
    /// Without a lock. Never of a record that was withdrawn.
    fn is_reached(&self, place: &Place) -> bool;
    fn wait_for(&self, place: &Place, timeout: Option<Duration>) -> Result<Outcome>;
    /// Sees to it that a record is written although nobody waits for it.
    fn drive(&self, place: &Place);
    /// From now on, until it is told otherwise as often, records that nobody waits for are not written one by one.
    fn hold(&self, yes: bool) {
        let _ = yes;
    }
    /// Once, before the first record.
    fn listen(&self, listener: OnNews);
    /// A position that every record so far is below and every later one is not, and where replay may begin. No I/O.
    fn barrier(&self) -> Result<Lsn>;
    /// Returns when all records so far are on the device, and the position up to which they are.
    fn sync(&self) -> Result<Lsn>;
    /// Returns when all below `lsn` is on the device.
    fn sync_to(&self, lsn: Lsn) -> Result<()>;
    /// The position that the next record cannot be below.
    fn next_lsn(&self) -> Lsn;
    /// Bytes kept.
    fn log_bytes(&self) -> u64;
    /// The owner no longer needs what is below `lsn`; gives back what nobody needs.
    fn release_before(&self, lsn: Lsn) -> Result<()>;
    /// Keeps the log from `lsn` on, for somebody named.
    fn pin(&self, who: &str, lsn: Lsn) -> Result<Pin> {
        Err(Error::BadInput(format!("this log keeps nothing from {lsn} on for {who}")))
    }
    fn retained(&self) -> Vec<Retainer>;
    fn stats(&self) -> WalStats;
    fn recovery(&self) -> &Recovery;
    /// Every record from `from` on, in order.
    fn replay(&self, from: Lsn, each: &mut dyn FnMut(RecordRef<'_>) -> Result<()>) -> Result<()>;
    /// Where its files are, for messages.
    fn dir(&self) -> &Path;
    /// After `NoSpace`: tries to make room again.
    fn resume(&self) -> Result<()>;
    /// Writes what is open, and ends.
    fn close(&self) -> Result<()>;
}

/// The log on this disk.
pub(crate) struct LocalLog {
    wal: Wal,
    /// None when opened read-only: nothing is ever reclaimed then.
    checkpoint: Option<Pin>,
    /// Where that stands: it never goes back.
    released: AtomicU64,
    dir: PathBuf,
}

impl LocalLog {
    /// The store needs the log from `from` on, where a checkpoint covers what is before.
    pub(crate) fn new(wal: Wal, dir: PathBuf, from: Lsn, read_only: bool) -> Result<LocalLog> {
        let checkpoint = if read_only { None } else { Some(wal.pin("checkpoint", from)?) };
        Ok(LocalLog { wal, checkpoint, released: AtomicU64::new(from.0), dir })
    }
}

fn local(place: &Place) -> Result<&Placed> {
    match &place.token {
        Token::Local(placed) => Ok(placed),
        Token::Recovered => Err(Error::BadInput("a place of an earlier life of the log".into())),
        #[cfg(test)]
        Token::Mock => Err(Error::BadInput("a place of another log".into())),
    }
}

impl CommitLog for LocalLog {
    fn make_room(&self, payload_bytes: usize) -> Result<()> {
        Ok(self.wal.make_room(payload_bytes)?)
    }

    fn place(&self, payload: &[u8], durability: Durability) -> Result<Option<Place>> {
        let placed = self.wal.place(Kind::TRANSACTION, 0, payload, durability)?;
        Ok(placed.map(|placed| Place {
            lsn: placed.lsn,
            end: placed.end,
            ack: Ack::Local,
            token: Token::Local(placed),
        }))
    }

    fn is_reached(&self, place: &Place) -> bool {
        local(place).is_ok_and(|placed| self.wal.is_reached(placed))
    }

    fn wait_for(&self, place: &Place, timeout: Option<Duration>) -> Result<Outcome> {
        let is_reached = self.wal.wait_for(local(place)?, timeout)?;
        Ok(if is_reached { Outcome::Reached } else { Outcome::TimedOut })
    }

    fn drive(&self, place: &Place) {
        if let Ok(placed) = local(place) {
            self.wal.drive(placed);
        }
    }

    fn hold(&self, yes: bool) {
        if yes { self.wal.hold_tickets() } else { self.wal.release_tickets() }
    }

    fn listen(&self, listener: OnNews) {
        self.wal.on_marks(Box::new(move |has_failed| {
            listener(if has_failed { News::Failed } else { News::Moved });
        }));
    }

    fn barrier(&self) -> Result<Lsn> {
        Ok(self.wal.barrier()?)
    }

    fn sync(&self) -> Result<Lsn> {
        Ok(self.wal.sync()?)
    }

    fn sync_to(&self, lsn: Lsn) -> Result<()> {
        Ok(self.wal.sync_to(lsn)?)
    }

    fn next_lsn(&self) -> Lsn {
        self.wal.next_lsn()
    }

    fn log_bytes(&self) -> u64 {
        self.wal.log_bytes()
    }

    fn release_before(&self, lsn: Lsn) -> Result<()> {
        if let Some(pin) = &self.checkpoint {
            let lsn = Lsn(lsn.0.max(self.released.fetch_max(lsn.0, Ordering::AcqRel)));
            pin.advance(lsn)?;
            self.wal.truncate_before(lsn)?;
        }
        Ok(())
    }

    fn pin(&self, who: &str, lsn: Lsn) -> Result<Pin> {
        Ok(self.wal.pin(who, lsn)?)
    }

    fn retained(&self) -> Vec<Retainer> {
        self.wal.retained()
    }

    fn stats(&self) -> WalStats {
        self.wal.stats()
    }

    fn recovery(&self) -> &Recovery {
        self.wal.recovery()
    }

    fn replay(&self, from: Lsn, each: &mut dyn FnMut(RecordRef<'_>) -> Result<()>) -> Result<()> {
        let mut reader = self.wal.read(from..)?;
        while let Some(record) = reader.next_record()? {
            each(record)?;
        }
        Ok(())
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn resume(&self) -> Result<()> {
        Ok(self.wal.resume()?)
    }

    fn close(&self) -> Result<()> {
        Ok(self.wal.clone().close()?)
    }
}
