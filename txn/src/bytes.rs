//! Little-endian fields one after another. Reading is strict: nothing is believed before it has been held against what
//! is there, and what no encoder writes is an error.

#![warn(clippy::indexing_slicing)]

use crate::id::{Ballot, Group, NodeId, TxnId};
use std::fmt;

/// Why bytes are no message, and no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Where, in bytes from the start.
    pub at: usize,
    /// What was wrong.
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Malformed {}

pub(crate) type Result<T> = std::result::Result<T, Malformed>;

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub(crate) fn bad(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(bytes).ok_or(self.bad("a length beyond all bounds"))?;
        let taken = self.bytes.get(self.at..end).ok_or(self.bad("ends too early"))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.bad("neither 0 nor 1")),
        }
    }

    pub(crate) fn node(&mut self) -> Result<NodeId> {
        Ok(NodeId(self.u64()?))
    }

    pub(crate) fn txn(&mut self) -> Result<TxnId> {
        Ok(TxnId { coordinator: self.node()?, epoch: self.u64()?, sequence: self.u64()? })
    }

    pub(crate) fn ballot(&mut self) -> Result<Ballot> {
        let ballot =
            Ballot { round: self.u32()?, leader: self.node()?, epoch: self.u64()?, sequence: self.u64()? };
        if ballot.is_zero() && ballot != Ballot::ZERO {
            return Err(self.bad("ballot 0 has no leader"));
        }
        Ok(ballot)
    }

    /// A count of things that take at least `each` bytes.
    pub(crate) fn count(&mut self, max: usize, each: usize) -> Result<usize> {
        let count = usize::from(self.u16()?);
        if count > max {
            return Err(self.bad("more than are allowed"));
        }
        let left = self.bytes.len().saturating_sub(self.at);
        if count.saturating_mul(each) > left {
            return Err(self.bad("more than there is room for"));
        }
        Ok(count)
    }

    /// Nodes in ascending order, none twice.
    pub(crate) fn nodes(&mut self, max: usize) -> Result<Vec<NodeId>> {
        let count = self.count(max, 8)?;
        let nodes: Vec<NodeId> = (0..count).map(|_| self.node()).collect::<Result<_>>()?;
        if !nodes.is_sorted_by(|a, b| a < b) {
            return Err(self.bad("nodes not in ascending order"));
        }
        Ok(nodes)
    }

    pub(crate) fn group(&mut self) -> Result<Group> {
        let participants = self.nodes(Group::PARTICIPANTS_MAX)?;
        let acceptors = self.nodes(Group::ACCEPTORS_MAX)?;
        if !acceptors.is_empty() && acceptors.len().is_multiple_of(2) {
            return Err(self.bad("an even number of acceptors"));
        }
        Ok(Group { participants, acceptors })
    }

    pub(crate) fn end(&self) -> Result<()> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.bad("more bytes than belong here")) }
    }
}

/// The counterpart of [`Reader`]. Counts are within their limits: what is encoded was made by a machine that keeps them.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(crate) fn node(&mut self, node: NodeId) {
        self.u64(node.0);
    }

    pub(crate) fn txn(&mut self, txn: TxnId) {
        self.node(txn.coordinator);
        self.u64(txn.epoch);
        self.u64(txn.sequence);
    }

    pub(crate) fn ballot(&mut self, ballot: Ballot) {
        self.u32(ballot.round);
        self.node(ballot.leader);
        self.u64(ballot.epoch);
        self.u64(ballot.sequence);
    }

    pub(crate) fn count(&mut self, count: usize) {
        debug_assert!(count <= Group::PARTICIPANTS_MAX, "T9");
        self.u16(count as u16);
    }

    pub(crate) fn nodes(&mut self, nodes: &[NodeId]) {
        self.count(nodes.len());
        nodes.iter().for_each(|&node| self.node(node));
    }

    pub(crate) fn group(&mut self, group: &Group) {
        self.nodes(&group.participants);
        self.nodes(&group.acceptors);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
