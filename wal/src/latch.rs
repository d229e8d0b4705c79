//! A lock that may be held across I/O: it blocks through the [`Runtime`], so that simulation sees who waits.

use crate::runtime::Runtime;
use crate::sync::{AtomicU32, Ordering};
use std::sync::Arc;

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// A lock for long work: one checkpoint, one creation of a segment at a time.
#[derive(Debug)]
pub struct Latch {
    word: AtomicU32,
    runtime: Arc<dyn Runtime>,
    /// The exploration of interleavings must find that nobody is woken.
    #[cfg(seawall_shuttle)]
    pub(crate) frees_silently: bool,
}

/// Frees the latch when dropped.
#[derive(Debug)]
#[must_use = "the latch is free again when this is dropped"]
pub struct LatchGuard<'a>(&'a Latch);

impl Latch {
    /// A free latch.
    pub fn new(runtime: Arc<dyn Runtime>) -> Latch {
        Latch {
            word: AtomicU32::new(FREE),
            runtime,
            #[cfg(seawall_shuttle)]
            frees_silently: false,
        }
    }

    /// Waits for the latch.
    pub fn lock(&self) -> LatchGuard<'_> {
        if self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
                self.runtime.wait(&self.word, CONTENDED, None);
            }
        }
        LatchGuard(self)
    }

    /// Takes the latch if it is free.
    pub fn try_lock(&self) -> Option<LatchGuard<'_>> {
        let taken = self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed);
        taken.is_ok().then(|| LatchGuard(self))
    }
}

impl Drop for LatchGuard<'_> {
    fn drop(&mut self) {
        #[cfg(seawall_shuttle)]
        if self.0.frees_silently {
            self.0.word.store(FREE, Ordering::Release);
            return;
        }
        if self.0.word.swap(FREE, Ordering::Release) == CONTENDED {
            self.0.runtime.wake_one(&self.0.word);
        }
    }
}
