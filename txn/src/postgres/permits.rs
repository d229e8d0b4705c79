//! At most so many branches at a time.

use seawall_wal::Runtime;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(super) struct Permits {
    runtime: Arc<dyn Runtime>,
    used: AtomicU32,
    max: u32,
}

/// One of them; given back when it is dropped.
pub(super) struct Permit(Arc<Permits>);

impl Permits {
    pub(super) fn new(runtime: &Arc<dyn Runtime>, max: usize) -> Arc<Permits> {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        Arc::new(Permits { runtime: Arc::clone(runtime), used: AtomicU32::new(0), max })
    }

    /// Waits for one; none if that took too long.
    pub(super) fn take(self: &Arc<Self>, limit: Duration) -> Option<Permit> {
        let until = self.runtime.now().saturating_add(limit);
        loop {
            let used = self.used.load(Ordering::SeqCst);
            if used >= self.max {
                let left = until.saturating_sub(self.runtime.now());
                if left.is_zero() {
                    return None;
                }
                self.runtime.wait(&self.used, used, Some(left));
            } else if self.used.compare_exchange(used, used + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return Some(Permit(Arc::clone(self)));
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::SeqCst);
        self.0.runtime.wake_one(&self.0.used);
    }
}
