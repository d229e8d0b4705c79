//! What must hold, checked in debug builds wherever it could stop holding.
//!
//! | | holds | because |
//! |---|---|---|
//! | E1 | pending commits stand in the order of their ends | places are taken under the sequencer's lock |
//! | E2 | visible never falls and never passes a commit that is not applied | only the queue's front is popped |
//! | E3 | a delta is frozen once and after that gets only commits reserved before | the swap is under that lock |
//! | E4 | checkpoint ≤ visible: what is not visible is never folded | a fold starts once visible ≥ C |
//! | E5 | the superblock names C only after the log is on the device up to C | `sync_to(C)` precedes the fold |
//! | E6 | log below C is released only after the superblock that names C is durable | the order in `checkpoint` |
//! | E7 | a replica shows nothing that its primary had not shown | only record ends up to the limit are revealed |

use crate::commit::pending::Pending;
use seawall_wal::Lsn;

/// E2, when visible moves over a pending commit.
pub(crate) fn visible_moves(before: Lsn, after: Lsn, over: &Pending) {
    debug_assert!(before <= after, "E2: visible fell from {before} to {after}");
    debug_assert!(over.is_applied(), "E2: visible passed a commit that is not applied");
    debug_assert!(over.lsn() <= over.end(), "E1");
}

/// E2 and E7, when a replica shows more.
pub(crate) fn replica_shows(before: Lsn, after: Lsn, limit: Option<Lsn>) {
    debug_assert!(before <= after, "E2: visible fell from {before} to {after}");
    debug_assert!(limit.is_none_or(|limit| after <= limit), "E7: {after} is shown, the limit is {limit:?}");
}

/// E4, before a checkpoint's superblock is written.
pub(crate) fn checkpoint_is_covered(checkpoint: Lsn, visible: Lsn) {
    debug_assert!(checkpoint <= visible, "E4: checkpoint {checkpoint} is ahead of visible {visible}");
}
