//! How a commit is made: validate, take a place in the log, apply to the delta, wait, become visible.
//!
//! ```text
//! transaction ─► write set, read set ─► sequencer { validate · place in the log · pending }      short lock, no I/O
//!                                           └► delta.apply ─► applied ─► log reached ─► visible    outside the lock
//! ```

pub(crate) mod batch;
#[cfg(seawall_shuttle)]
pub(crate) mod explored;
pub(crate) mod gate;
pub(crate) mod locks;
pub(crate) mod log;
pub(crate) mod own;
pub(crate) mod patience;
pub(crate) mod pending;
pub(crate) mod prepared;
pub(crate) mod sequencer;
pub(crate) mod ticket;
pub(crate) mod transaction;
pub(crate) mod validate;
