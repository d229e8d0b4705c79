//! Closing, and going on after a full disk.

use crate::db::{Core, Handle};
use crate::sync::Ordering;
use crate::{Error, Result};
use seawall_wal::callbacks;
use std::sync::Arc;

/// A store that has no more than this unfolded is folded when it closes, so that it opens at once.
const FOLD_ON_CLOSE_BYTES_MAX: u64 = 8 << 20;

impl Handle {
    /// Closes for all clones.
    pub(crate) fn close(&self) -> Result<()> {
        let core = self.core();
        if core.is_closed.swap(true, Ordering::AcqRel) {
            return Err(Error::Closed);
        }
        core.sequencer.close();
        self.stop_threads();
        let finished = if core.options.read_only { Ok(()) } else { core.finish() };
        let finished = finished.and(if core.options.read_only { Ok(()) } else { core.slots.write() });
        let closed = core.log.close();
        core.note_failure();
        core.options.events.end();
        finished.and(closed)
    }

    fn stop_threads(&self) {
        let core = self.core();
        core.fold.stop(&*core.runtime);
        core.patience.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        // All of them, whatever became of one.
        let panicked = threads.into_iter().filter_map(|thread| thread.join().then_some(())).count();
        if panicked > 0 {
            core.poison(&Error::BadInput("the checkpoint thread panicked".into()));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if callbacks::is_inside() {
            // This thread may lead the log, or make the checkpoint: closing waits for that, elsewhere.
            let closing = Handle::new(Arc::clone(self.core()));
            *closing.threads.lock() = std::mem::take(&mut *self.threads.lock());
            let _ = self.core().runtime.spawn("seawall-close", Box::new(move || drop(closing)));
            return;
        }
        if std::thread::panicking() {
            // What a panic leaves behind is never recorded as a clean end: recovery looks at the log as after a
            // crash.
            let core = self.core();
            core.is_closed.store(true, Ordering::Release);
            core.sequencer.close();
            self.stop_threads();
            core.options.events.end();
            return;
        }
        // Nobody is there to be told: whoever wants to know calls `close`.
        let _ = self.close();
    }
}

impl Core {
    /// Everything that has its place becomes durable and visible, and goes into the data file if that is quick.
    fn finish(&self) -> Result<()> {
        let _alone = self.fold.latch.lock();
        if let Some(cause) = self.sequencer.failure() {
            return Err(Error::Poisoned(cause));
        }
        if !self.is_replica() {
            self.log.sync().inspect_err(|error| self.poison(error))?;
            self.sequencer.advance();
            // What replicas do not have in time stays in the log.
            self.sequencer.wait_for_replicas();
            self.sequencer.give_up_waiting();
        }
        if self.sequencer.is_held_up() || self.sequencer.fenced().is_some() {
            return Ok(());
        }
        let bytes = self.reads.delta_bytes();
        if bytes == 0 || bytes > FOLD_ON_CLOSE_BYTES_MAX {
            return Ok(());
        }
        // Where there are runs this is one more, unless there are so many that taking them in may rewrite the tree.
        if self.reads.view().root.has_many_runs() {
            return Ok(());
        }
        match self.checkpoint_alone() {
            // The log has it all.
            Ok(_) | Err(Error::NoSpace | Error::Unacknowledged { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// After `NoSpace`: looks for room, and sets waiting checkpoints going again. If the log itself had found none, it goes
    /// on first, and what had its place with it.
    pub(crate) fn resume(&self) -> Result<()> {
        if let Some(cause) = self.sequencer.failure().filter(|_| !self.sequencer.lacks_room()) {
            return Err(Error::Poisoned(cause));
        }
        if self.is_replica() {
            // Its log takes up again what is shipped, when there is room.
            self.fold.request(&*self.runtime);
            return Ok(());
        }
        let resumed = self.log.resume();
        if self.sequencer.lacks_room() && self.log_is_sound() {
            self.fold.has_told_failure.store(false, Ordering::Release);
            self.sequencer.resume();
        }
        if let Err(Error::Poisoned(cause)) = self.log.make_room(0) {
            // It failed in another way, or again; what was told of that was not heard.
            self.sequencer.fail(cause);
        }
        resumed?;
        if self.options.background {
            self.fold.request(&*self.runtime);
        }
        Ok(())
    }
}
