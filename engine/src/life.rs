//! The life of a store: opening, checkpoints, closing, verifying.

pub(crate) mod checkpoint;
pub(crate) mod close;
mod compressions;
#[cfg(not(seawall_shuttle))]
mod epoch;
pub(crate) mod following;
pub(crate) mod image;
pub(crate) mod open;
pub(crate) mod pace;
mod redone;
pub(crate) mod rewind;
pub(crate) mod rewindable;
pub(crate) mod slots;
mod spill;
pub(crate) mod throttle;
pub(crate) mod verify;
