//! One session's thread for what blocks: opening the log at a place, and reading it on.

use super::super::inbox::Inbox;
use super::session::Session;
use super::{Event, Shared};
use crate::message::{Name, Piece};
use crate::ship::primary::Opened;
use crate::timeline::Tail;
use bytes::Bytes;
use seawall_wal::{Error, Lsn, Shipped, Shipper, Wal};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// How long a read waits for something to become durable.
const READ: Duration = Duration::from_millis(200);
/// How often what is new is read at most, where no commit waits for a replica: a piece, and who carries it, for each of them would
/// cost more than they do.
const GATHER: Duration = Duration::from_millis(1);
/// Pieces that one read hands over.
const PIECES_MAX: usize = 8;

pub(super) enum Job {
    Open { slot: Option<Name>, tail: Tail },
    Read { from: Lsn, bytes_max: usize },
    Advance { durable: Lsn },
}

pub(super) struct Reader {
    shared: Arc<Shared>,
    jobs: Arc<Inbox<Job>>,
    session: Arc<Session>,
    shipper: Option<Shipper>,
    slot: Option<Name>,
    /// When the log was last read to its end.
    read_up_at: Option<Duration>,
}

impl Reader {
    pub(super) fn new(shared: &Arc<Shared>, jobs: &Arc<Inbox<Job>>, session: &Arc<Session>) -> Reader {
        Reader {
            shared: Arc::clone(shared),
            jobs: Arc::clone(jobs),
            session: Arc::clone(session),
            shipper: None,
            slot: None,
            read_up_at: None,
        }
    }

    pub(super) fn run(mut self) {
        while let Some(job) = self.jobs.take(None) {
            match job {
                Job::Open { slot, tail } => {
                    let opened = self.open(slot, tail);
                    self.session.post(Event::Opened(opened));
                }
                Job::Read { from, bytes_max } => self.read(from, bytes_max),
                Job::Advance { durable } => self.advance(durable),
            }
        }
    }

    fn open(&mut self, slot: Option<Name>, tail: Tail) -> Opened {
        let wal = self.shared.shipping().wal();
        if let Some(slot) = &slot {
            let Some(keeping) = self.shared.keeping() else { return Opened::SlotMissing };
            match keeping.keeps(slot.as_str(), tail.place) {
                Ok(true) => {}
                Ok(false) => return Opened::SlotMissing,
                // A full disk, say: it may be otherwise when it asks again.
                Err(_) => return Opened::Failed,
            }
        }
        self.slot = slot;
        let (opened, shipper) = open_log(wal, tail);
        self.shipper = shipper;
        opened
    }

    /// Lets something gather, where that keeps nobody waiting.
    fn gather(&mut self) {
        let runtime = self.shared.runtime();
        let left = self.read_up_at.take().map(|at| (at + GATHER).saturating_sub(runtime.now()));
        if let Some(left) = left.filter(|left| *left > Duration::ZERO && !self.shared.is_waited_for()) {
            runtime.wait(&AtomicU32::new(0), 0, Some(left));
        }
    }

    fn read(&mut self, from: Lsn, bytes_max: usize) {
        self.gather();
        let Some(shipper) = &mut self.shipper else { return };
        let mut pieces = Vec::new();
        let mut left = bytes_max;
        let mut after = from;
        loop {
            // The first is waited for.
            let found = match pieces.is_empty() {
                true => shipper.next_timeout(left, READ),
                false => {
                    shipper.next_piece(left).map(|piece| piece.map_or(Shipped::TimedOut, Shipped::Piece))
                }
            };
            match found {
                Ok(Shipped::Piece(piece)) => {
                    let (at, bytes) = (piece.at, Bytes::from(piece.bytes));
                    left = left.saturating_sub(bytes.len());
                    let piece = Piece::plain(after, at, bytes);
                    after = piece.end();
                    pieces.push(piece);
                }
                Ok(Shipped::TimedOut) => {
                    self.read_up_at = Some(self.shared.runtime().now());
                    break;
                }
                Ok(Shipped::Ended) | Err(_) => {
                    if pieces.is_empty() {
                        self.session.post(Event::Ended);
                        return;
                    }
                    break;
                }
            }
            if left == 0 || pieces.len() >= PIECES_MAX || self.jobs.is_closed() {
                break;
            }
        }
        self.session.post(Event::Pieces(pieces));
    }

    /// One that has lost its slot holds the log no longer by being connected: it comes back, and is told.
    fn advance(&mut self, durable: Lsn) {
        if let (Some(slot), Some(keeping)) = (&self.slot, self.shared.keeping())
            && !keeping.advance_slot(slot.as_str(), durable)
        {
            self.shipper = None;
            self.session.post(Event::Ended);
        }
    }
}

/// The log from where a replica's ends, if what is here goes on with what is there.
#[doc(hidden)]
pub fn open_log(wal: &Wal, tail: Tail) -> (Opened, Option<Shipper>) {
    let is_blank = tail.checksum == 0;
    // One that has nothing yet may begin with any segment that is far enough back; its own log sees to that.
    let from = if is_blank { tail.place.max(wal.first_place()) } else { tail.place };
    let shipper = match wal.ship(from) {
        Ok(shipper) => shipper,
        Err(Error::Reclaimed { first, .. }) => return (Opened::Gone { first }, None),
        // A replica that ships its log on may be behind the one that asks: nothing is to be cut for that.
        Err(Error::BadInput(_)) => return (Opened::Behind, None),
        Err(_) => return (Opened::Failed, None),
    };
    match wal.checksum_before(tail.place) {
        // Histories say that one is a prefix of the other, and bytes that it is not: something was done to one of them.
        Ok(Some(checksum)) if !is_blank && checksum != tail.checksum => {
            (Opened::Gone { first: wal.tail().place }, None)
        }
        // What it chains to may be gone: its own log holds the chain against what comes.
        Ok(_) => (Opened::Ready, Some(shipper)),
        Err(_) => (Opened::Failed, None),
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Nothing must leave a session waiting for an answer.
        self.session.post(Event::Ended);
    }
}
