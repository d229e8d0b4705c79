//! Several durable writes in flight from *one* thread, by `io_uring`.
//!
//! The disk seam has no face yet by which a thread submits several operations and collects their ends; once it has,
//! [`measure`] is the one place to use it: the command calls it for every size and depth, and prints and judges what
//! it returns beside the rows of threads ([`Way::Ring`](super::device::Way::Ring)).

use super::device::{Row, Target};
use crate::command::{Outcome, Ui};
use std::time::Duration;

/// Overwrites of `bytes` each, `depth` of them in flight, for `length`. `None` where the ring cannot be had: then
/// there is no row.
pub(super) fn measure(
    _: &Ui,
    _: &Target,
    _bytes: u64,
    _depth: u32,
    _length: Duration,
) -> Option<Outcome<Row>> {
    None
}
