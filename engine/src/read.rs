//! How a snapshot reads: what it pins, how deltas and tree are merged, both ways, and what of it a transaction notes.

pub(crate) mod cursor;
pub(crate) mod held;
pub(crate) mod scan;
pub(crate) mod track;
pub(crate) mod value;
pub(crate) mod view;
