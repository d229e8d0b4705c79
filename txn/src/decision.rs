//! The seam to where a node remembers: decisions, promises and votes of acceptors, and which incarnation it is in.

use crate::error::Result;
use crate::participant::Reply;
use crate::record::{Durable, Record};

/// Where a node's records are kept that are no branch's: [`Store`](crate::Store) is one, over a store of its own or the one
/// that holds its branches.
///
/// Records are durable in the order in which they are handed over. What is kept of them is what [`Durable`] says.
pub trait DecisionLog: Send + Sync {
    /// Begins an incarnation: one more than any before, and durable before this returns. With it comes what is kept.
    ///
    /// # Errors
    /// What the device says; a record that cannot be read is an error, never skipped.
    fn start(&self) -> Result<(u64, Durable)>;

    /// Writes records. `forced` ones are answered by `Durable`; the others by `Written`, when whoever reads would find them.
    /// Several records are one write, in which those that are not forced ride along.
    fn append(&self, records: &[Record], forced: bool, reply: Reply);

    /// Makes durable what was written. Answered by `Durable`.
    fn flush(&self, reply: Reply);
}
