//! What a participant's branch of one of the coordinator's transactions is called: an XA name that says, wherever it is
//! found, whom to ask for the outcome. Pure.

#![warn(clippy::indexing_slicing)]

use crate::bytes::{Malformed, Reader, Result, Writer};
use crate::id::{Group, NodeId, TxnId};
use crate::message::Protocol;
use seawall_engine::{XID_PART_BYTES_MAX, Xid};
use std::sync::Arc;

/// The format of the coordinator's own transactions: "sw" and a version.
pub const XID_FORMAT: i32 = 0x7377_0001;

/// What a branch's name says.
///
/// ```
/// use seawall_txn::{BranchName, Group, NodeId, Protocol, TxnId};
/// use std::sync::Arc;
///
/// let group = Arc::new(Group { participants: vec![NodeId(4), NodeId(5)], acceptors: vec![] });
/// let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 9 };
/// let name = BranchName { txn, participant: NodeId(4), ends: Some((Protocol::TwoPhase, group)) };
/// let xid = name.to_xid()?;
/// assert_eq!(BranchName::of(&xid), Some(name));
/// assert_eq!(BranchName::of(&seawall_engine::Xid::new(1, "another's", "")?), None);
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchName {
    /// Of which transaction.
    pub txn: TxnId,
    /// At which participant.
    pub participant: NodeId,
    /// How the transaction ends, and who else is in it: in doubt, they may be asked. None if the name has no room for so many.
    pub ends: Option<(Protocol, Arc<Group>)>,
}

impl BranchName {
    /// The name; what has no room in it is left out.
    ///
    /// # Errors
    /// None but what [`Xid::new`] has: its limits are kept.
    //= docs/format/txn.md#transaction-ids
    pub fn to_xid(&self) -> seawall_engine::Result<Xid> {
        let mut gtrid = Writer::default();
        gtrid.txn(self.txn);
        let mut bqual = Writer::default();
        bqual.node(self.participant);
        let mut bqual = bqual.finish();
        if let Some((protocol, group)) = &self.ends {
            let ends = encode_ends(*protocol, group);
            if bqual.len() + ends.len() <= XID_PART_BYTES_MAX {
                bqual.extend_from_slice(&ends);
            }
        }
        Xid::new(XID_FORMAT, gtrid.finish(), bqual)
    }

    /// Whether the name says how the transaction ends, and who is in it.
    pub fn has_room(protocol: Protocol, group: &Group) -> bool {
        8 + encode_ends(protocol, group).len() <= XID_PART_BYTES_MAX
    }

    /// What a name says; none if it is not of this form.
    pub fn of(xid: &Xid) -> Option<BranchName> {
        if xid.format() != XID_FORMAT {
            return None;
        }
        let name = BranchName::decode(xid).ok()?;
        (name.to_xid().ok()? == *xid).then_some(name)
    }

    fn decode(xid: &Xid) -> Result<BranchName> {
        let (mut gtrid, mut bqual) = (Reader::new(xid.gtrid()), Reader::new(xid.bqual()));
        let txn = gtrid.txn()?;
        gtrid.end()?;
        let participant = bqual.node()?;
        let ends = if bqual.end().is_ok() { None } else { Some(decode_ends(&mut bqual)?) };
        bqual.end()?;
        Ok(BranchName { txn, participant, ends })
    }
}

fn encode_ends(protocol: Protocol, group: &Group) -> Vec<u8> {
    let mut out = Writer::default();
    protocol.encode(&mut out);
    for nodes in [&group.participants, &group.acceptors] {
        varint(&mut out, nodes.len() as u64);
        let mut before = 0;
        for node in nodes {
            // They ascend.
            varint(&mut out, node.0.wrapping_sub(before));
            before = node.0;
        }
    }
    out.finish()
}

fn decode_ends(reader: &mut Reader<'_>) -> Result<(Protocol, Arc<Group>)> {
    let protocol = Protocol::decode(reader)?;
    let mut lists = [Vec::new(), Vec::new()];
    for nodes in &mut lists {
        let count = read_varint(reader)?;
        if count > XID_PART_BYTES_MAX as u64 {
            return Err(reader.bad("more than there is room for"));
        }
        let mut before = 0_u64;
        for i in 0..count {
            let step = read_varint(reader)?;
            before = before.checked_add(step).ok_or(reader.bad("no node"))?;
            if i > 0 && step == 0 {
                return Err(reader.bad("nodes not in ascending order"));
            }
            nodes.push(NodeId(before));
        }
    }
    let [participants, acceptors] = lists;
    if !acceptors.is_empty() && acceptors.len().is_multiple_of(2) || acceptors.len() > Group::ACCEPTORS_MAX {
        return Err(reader.bad("no number of acceptors"));
    }
    Ok((protocol, Arc::new(Group { participants, acceptors })))
}

/// Seven bits a byte, the lowest first.
fn varint(out: &mut Writer, mut value: u64) {
    while value >= 0x80 {
        out.u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.u8(value as u8);
}

fn read_varint(reader: &mut Reader<'_>) -> std::result::Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(reader.bad("a number beyond all bounds"))
}
