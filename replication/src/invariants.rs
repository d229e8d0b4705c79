//! What holds of the machines, always; asserted in them, and by the simulation after every step.
//!
//! - R1: of a replica, `visible ≤ applied ≤ durable ≤ received ≤ taken`: it says nothing else, and nothing else is believed.
//! - R2: a replica acknowledges as durable only what its log has said is on its device.
//! - R3: nothing of an epoch is accepted or acknowledged before the promise to follow no lower one is durable.
//! - R4: a replica follows no primary of a lower epoch than it has promised; the promise never falls. A primary that hears of
//!   a higher epoch is fenced before it answers.
//! - R5: what a replica may show is at most what its primary shows *and* what it has durably itself, and never falls. Both,
//!   for bytes that a later primary sends may stand where an earlier one, now gone, had shown others.
//! - R6: pieces reach a replica's log in the order of the primary's log, each once, without a gap.
//! - R7: a level of acknowledgement that was reached stays reached.
//! - R8: a primary believes of a replica only marks that do not fall within a session and do not pass what was sent to it; and it
//!   sends no more than the replica has room for, and one piece.
//! - R9: a primary ships only to a log that is a prefix of its own.
//! - R10: an acknowledgement counts only of a replica that has a record of the primary's own epoch. Of the most advanced of
//!   enough logs, by epoch first, it is then true that it has all that was acknowledged: without this, bytes of an old epoch
//!   that a new primary has spread could be counted, and then lost to a log of an epoch between (Raft's figure 8).
//! - R11: nobody stays with a replica that has no way to a primary and nothing new: replicas that follow each other part, for
//!   round a circle the distance grows beyond every chain's.

use crate::ack::{Level, Reached};
use crate::message::{Marks, Piece};
use seawall_wal::Lsn;

/// A replica's machine from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// What it would say of itself.
    pub marks: Marks,
    /// What its log has said is on the device.
    pub synced: Lsn,
    /// Its promise, as far as it is durable.
    pub promised: u64,
    /// The epoch of the primary that it follows, if it follows one now.
    pub following: Option<u64>,
    /// What it has allowed to be shown.
    pub shown: Lsn,
    /// What its primary shows, as far as it knows.
    pub shipped: Lsn,
    /// The place of the next piece that it hands to its log.
    pub next: Lsn,
}

/// A primary's session from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryView {
    /// What the replica has said of itself, as far as it is believed.
    pub marks: Marks,
    /// The place up to which it was sent pieces.
    pub sent: Lsn,
    /// The place up to which they were read.
    pub read: Lsn,
    /// The bytes of the last piece that was sent.
    pub last: u64,
}

/// What is wrong with a replica's machine, if anything.
pub fn replica(view: &ReplicaView) -> Result<(), &'static str> {
    check(view.marks.are_ordered(), "R1")?;
    check(view.marks.durable <= view.synced, "R2")?;
    check(view.following.is_none_or(|epoch| epoch <= view.promised), "R3")?;
    check(view.following.is_none_or(|epoch| epoch >= view.promised), "R4")?;
    check(view.shown <= view.synced, "R5")?;
    check(view.marks.taken <= view.next, "R6")
}

/// What is wrong with a step of it, if anything.
pub fn replica_step(old: &ReplicaView, new: &ReplicaView) -> Result<(), &'static str> {
    check(new.promised >= old.promised, "R4")?;
    check(new.shown >= old.shown, "R5")?;
    check(new.shown == old.shown || new.shown <= new.shipped, "R5")?;
    check(new.synced >= old.synced, "R2")?;
    replica(new)
}

/// What is wrong with a primary's session, if anything.
pub fn primary(view: &PrimaryView) -> Result<(), &'static str> {
    check(view.sent <= view.read, "R8")?;
    check(view.marks.are_ordered(), "R1")?;
    check(view.marks.taken <= view.sent, "R8")
}

/// What is wrong with a step of it, if anything.
pub fn primary_step(old: &PrimaryView, new: &PrimaryView) -> Result<(), &'static str> {
    let (before, after) = (&old.marks, &new.marks);
    let falls = after.received < before.received
        || after.durable < before.durable
        || after.applied < before.applied
        || after.visible < before.visible
        || after.taken < before.taken;
    check(!falls && new.sent >= old.sent && new.read >= old.read, "R8")?;
    primary(new)
}

fn check(holds: bool, which: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(which) }
}

pub(crate) fn assert_holds(found: Result<(), &'static str>) {
    debug_assert!(found.is_ok(), "{}", found.err().unwrap_or_default());
}

pub(crate) fn assert_reached(old: &Reached, new: &Reached) {
    debug_assert!(Level::ALL.iter().all(|&level| new.of(level) >= old.of(level)), "R7");
}

pub(crate) fn assert_next(next: Lsn, piece: &Piece) {
    debug_assert!(piece.after == next && piece.at >= next, "R6");
}
