//! Keeping a way back, while others follow the log.
//!
//! A primary that dies may have log that its successor has not. To follow that one it has to go back to before where they
//! part (`rewind`), and as the data file knows no undo, it can only go back to a state that one of its two superblocks has.
//! So as long as somebody follows:
//!
//! - L5: the older superblock stays until the newer one's checkpoint is at or below the *rewind floor*, the lowest
//!   position that any of those who were heard of lately has on its device. Whoever takes over is one of them, and the log
//!   parts behind where it stands: one of the two superblocks is always old enough.
//! - L6: the log is kept from the older superblock's checkpoint on.
//!
//! ```text
//! older ≤ floor          newer ≤ floor: the older may go           floor: the slowest of those heard of
//!   ├──────────────────────────┼──────────────────────────────────────┼──────────► log
//! ```
//!
//! Checkpoints wait for that, but never at the price of memory, of log, or of room on the disk: then they go on, and an
//! event tells. A store that nobody follows, or of whose followers none was heard of lately, waits for nobody.

use crate::db::Core;
use crate::mutation::Mutation;
use crate::stats::Event;
use crate::{Error, Result};
use seawall_wal::Lsn;

impl Core {
    /// Whether a checkpoint may be made now: it replaces the older superblock (L5).
    pub(super) fn may_replace_older(&self) -> Result<bool> {
        if !self.slots.is_any() || self.repeat_if_due()? {
            return Ok(true);
        }
        if !self.is_pressed() {
            return Ok(false);
        }
        let newer = self.store.reaches().0.covered;
        let floor = self.slots.rewind_floor().unwrap_or(newer);
        self.tell(Event::RewindGivenUp { floor, checkpoint: newer });
        Ok(true)
    }

    /// Once the older superblock is of no more use, the newer one takes its place: what that replaced is then free. True if
    /// both are the same now.
    fn repeat_if_due(&self) -> Result<bool> {
        let (newer, older) = self.store.reaches();
        if older == newer {
            return Ok(true);
        }
        if !self.may_repeat(newer.covered) {
            return Ok(false);
        }
        let view = self.reads.view();
        let root = self.store.repeat(&view.root)?;
        // The deltas up to there have left the view with the checkpoint itself.
        self.reads.folded(Lsn::ZERO, root);
        drop(view);
        self.store.release_space(0)?;
        Ok(true)
    }

    /// Whether nobody needs what is older than a checkpoint that covers so much (L5).
    pub(super) fn may_repeat(&self, covered: Lsn) -> bool {
        let is_safe = |floor: Lsn| covered <= floor || self.options.has(Mutation::OverwriteOlder);
        self.slots.rewind_floor().is_none_or(is_safe)
    }

    /// Whether a checkpoint cannot wait for others.
    pub(super) fn is_pressed(&self) -> bool {
        let unfolded = self.reads.visible().0.saturating_sub(self.reads.deltas().folded.0);
        self.fold.takes_room_wanted()
            || self.is_short_of_memory()
            || unfolded >= self.options.log_bytes_max.saturating_mul(2)
    }

    /// Gives back what slots have kept, or an older superblock has, and nobody needs any more. For the thread that makes
    /// checkpoints: an idle store makes none.
    pub(super) fn release_for_others(&self) {
        if self.sequencer.check().is_err() || !self.slots.has_moved() {
            return;
        }
        let _alone = self.fold.latch.lock();
        let repeated = self.repeat_if_due();
        match repeated.and_then(|_| self.release_log(self.store.reaches().0.replay)) {
            Ok(()) | Err(Error::NoSpace) => {}
            Err(error) => self.poison(&error),
        }
    }
}
