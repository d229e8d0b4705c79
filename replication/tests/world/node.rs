//! A node's log and its device.

use super::primary::PrimaryNode;
use bytes::Bytes;
use seawall_replication::message::Piece;
use seawall_replication::ship::{Replica, replica};
use seawall_replication::timeline::{History, Tail};
use seawall_wal::Lsn;
use std::collections::VecDeque;

/// Bytes of a segment, of which a frame may leave the rest empty.
pub(crate) const SEGMENT: u64 = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) after: Lsn,
    pub(crate) at: Lsn,
    pub(crate) end: Lsn,
    pub(crate) epoch: u64,
    pub(crate) id: u64,
    /// Whether a record ends in it.
    pub(crate) whole: bool,
}

impl Frame {
    pub(crate) const BYTES: u64 = 32;

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![7; (self.end.0 - self.at.0) as usize];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[16] = u8::from(self.whole);
        bytes
    }

    pub(crate) fn piece(frames: &[Frame]) -> Piece {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        Piece::plain(frames[0].after, frames[0].at, Bytes::from(bytes))
    }

    pub(crate) fn of_piece(piece: &Piece) -> Vec<Frame> {
        let bytes = piece.unpacked().unwrap();
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let mut after = piece.after;
        let frame = |(index, bytes): (usize, &[u8])| {
            let at = piece.at.plus(index as u64 * Frame::BYTES);
            let end = at.plus(Frame::BYTES);
            let frame = Frame {
                after,
                at,
                end,
                id: number(&bytes[..8]),
                epoch: number(&bytes[8..16]),
                whole: bytes[16] == 1,
            };
            after = end;
            frame
        };
        bytes.chunks(Frame::BYTES as usize).enumerate().map(frame).collect()
    }
}

/// What a node was asked for by its machine, in order, and what came of it.
pub(crate) struct Job<E, I> {
    pub(crate) effect: E,
    pub(crate) answer: Option<I>,
}

pub(crate) enum Role {
    Primary(Box<PrimaryNode>),
    Replica(Box<Replica>),
    Down { was_primary: bool },
}

pub(crate) struct Node {
    pub(crate) id: usize,
    pub(crate) log: Vec<Frame>,
    /// So many of them are on the device.
    pub(crate) synced: usize,
    pub(crate) promised: u64,
    pub(crate) history: History,
    pub(crate) role: Role,
    pub(crate) applied: Lsn,
    pub(crate) shown: Lsn,
    pub(crate) jobs: VecDeque<Job<replica::Effect, replica::Input>>,
    pub(crate) link: Option<u64>,
}

impl Node {
    pub(crate) fn new(id: usize, history: History) -> Node {
        Node {
            id,
            log: Vec::new(),
            synced: 0,
            promised: history.epoch(),
            history,
            role: Role::Down { was_primary: false },
            applied: Lsn::ZERO,
            shown: Lsn::ZERO,
            jobs: VecDeque::new(),
            link: None,
        }
    }

    pub(crate) fn end(&self) -> Lsn {
        whole_end(&self.log)
    }

    pub(crate) fn place(&self) -> Lsn {
        self.log.last().map_or(Lsn::ZERO, |frame| frame.end)
    }

    pub(crate) fn durable(&self) -> Lsn {
        whole_end(&self.log[..self.synced])
    }

    pub(crate) fn seen(&self) -> Lsn {
        match &self.role {
            Role::Primary(primary) => primary.visible,
            _ => self.applied.min(self.shown),
        }
    }

    pub(crate) fn tail(&self) -> Tail {
        let last = self.log.last();
        let epoch = last.map_or(0, |frame| frame.epoch);
        let checksum = last.map_or(0, |frame| frame.id as u32);
        Tail { epoch, place: self.place(), whole_end: self.end(), checksum }
    }

    pub(crate) fn own(&self) -> replica::Own {
        replica::Own {
            tail: self.tail(),
            history: self.history.clone(),
            promised: self.promised,
            durable: self.durable(),
            applied: self.applied,
            visible: self.seen(),
        }
    }

    /// Power is lost: of what was not on the device, so many frames got there by chance; a replica does not believe those.
    pub(crate) fn lose(&mut self, by_chance: usize) {
        let is_replica = !matches!(self.role, Role::Primary(_));
        let kept = if is_replica { self.synced } else { (self.synced + by_chance).min(self.log.len()) };
        self.log.truncate(kept);
        while self.log.last().is_some_and(|frame| !frame.whole) {
            self.log.pop();
        }
        self.synced = self.log.len();
        self.jobs.clear();
        self.applied = Lsn::ZERO;
        self.shown = Lsn::ZERO;
        self.role = Role::Down { was_primary: !is_replica };
    }

    /// Cut back to a place.
    pub(crate) fn rewind(&mut self, to: Lsn) {
        self.log.retain(|frame| frame.end <= to);
        while self.log.last().is_some_and(|frame| !frame.whole) {
            self.log.pop();
        }
        self.synced = self.log.len();
        let end = self.end();
        self.applied = self.applied.min(end);
        self.shown = Lsn::ZERO;
    }

    pub(crate) fn describe(&self) -> String {
        let role = match &self.role {
            Role::Primary(primary) => format!("primary of {}, shows {}", primary.epoch(), primary.visible),
            Role::Replica(machine) => format!("replica {:?}, {:?}", machine.state(), machine.marks()),
            Role::Down { .. } => "down".to_owned(),
        };
        format!("{}: {} of {} frames, end {}, {role}", self.id, self.synced, self.log.len(), self.end())
    }
}

pub(crate) fn whole_end(log: &[Frame]) -> Lsn {
    log.iter().rev().find(|frame| frame.whole).map_or(Lsn::ZERO, |frame| frame.end)
}
