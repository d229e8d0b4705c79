//! The interleavings of the sequencer, of freezing and of folding, explored by [shuttle](https://docs.rs/shuttle):
//! threads are tasks, and at each lock, atomic, wait and wake a scheduler chooses who goes on.
//!
//! ```text
//! RUSTFLAGS='--cfg seawall_shuttle' cargo test -p seawall-engine --lib --target-dir target/shuttle shuttle_tests
//! ```
//!
//! Below stands a log that does nothing but move its marks, from a thread of its own ([`harness`]); above, the same
//! code as in production, but for the delta's skip list, for which a sorted map behind a lock stands in. Every ordering
//! that matters is also gotten wrong on purpose, and must be noticed: see [`mistakes`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod commits;
mod folds;
mod harness;
mod isolation;
mod locks;
mod mistakes;
mod outcomes;
mod store;

use seawall_wal::exploration::{explore, find};
