//! The synchronisation primitives of the commit path, in one place, so that `--cfg seawall_shuttle` can swap in
//! shuttle's and explore its interleavings. The tree's locks on its space and on what is mapped are among them; where one is
//! held across nothing that a scheduler could see, it is an ordinary one.

#[cfg(not(seawall_shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock};

#[cfg(not(seawall_shuttle))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(seawall_shuttle)]
pub(crate) use seawall_wal::sync::{Mutex, RwLock};

#[cfg(seawall_shuttle)]
pub(crate) use shuttle::sync::MutexGuard;

#[cfg(seawall_shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Shuttle's atomics are all sequentially consistent.
#[cfg(seawall_shuttle)]
pub(crate) fn fence(_: Ordering) {}
