//! How a snapshot reads: what it pins, and how deltas and tree are merged, both ways.

pub(crate) mod cursor;
pub(crate) mod held;
pub(crate) mod scan;
pub(crate) mod view;
