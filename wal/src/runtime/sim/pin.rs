//! All threads of a simulation on one processor: only one runs at a time, and waking a thread on another processor
//! costs many times as much (34 µs against 1 µs, measured on a virtual machine with two).

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Keeps the calling thread, and those that it starts, on the processor that it is on.
#[cfg(target_os = "linux")]
pub(super) struct Pin {
    before: CpuSet,
}

#[cfg(target_os = "linux")]
impl Pin {
    /// `None` where the system does not let it, which costs speed and nothing else.
    pub(super) fn here() -> Option<Pin> {
        let before = sched_getaffinity(None).ok()?;
        let mut one = CpuSet::new();
        one.set(sched_getcpu());
        sched_setaffinity(None, &one).ok()?;
        Some(Pin { before })
    }

    /// Sets the calling thread free again.
    pub(super) fn release(&self) {
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// Not done on this system.
#[cfg(not(target_os = "linux"))]
pub(super) struct Pin;

#[cfg(not(target_os = "linux"))]
impl Pin {
    pub(super) fn here() -> Option<Pin> {
        None
    }

    pub(super) fn release(&self) {}
}
