//! seawall's engine: keyspaces, snapshots and transactions over a copy-on-write B+tree that the log is folded into.

pub mod error;
mod tree;

pub use error::{Error, Result};
