//! The interleavings of the commit path, explored by [shuttle](https://docs.rs/shuttle): threads are tasks, and at
//! each lock, atomic, wait and wake a scheduler chooses who goes on.
//!
//! ```text
//! RUSTFLAGS='--cfg seawall_shuttle' cargo test -p seawall-wal -p seawall-engine --lib --target-dir target/shuttle shuttle_tests
//! ```
//!
//! What is explored is the order of things under sequential consistency: lost wake-ups, marks that go up too early,
//! two leaders at a time, calls left out or made twice. Weaker orders of memory are not: the few places that rest on a
//! store being seen before a load (a sleeper counts itself, then looks; a waker changes, then counts) use `SeqCst`.
//!
//! Timers would hide a lost wake-up, so [`ShuttleRuntime`](crate::runtime::ShuttleRuntime) lets only those waits time out
//! whose purpose is to gather: a tender's. Whoever sleeps for a mark, or without a limit, is woken or the test
//! deadlocks. Each ordering that matters is also gotten wrong on purpose, and the test must notice: see `mistakes`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod commit;
mod failure;
mod follow;
mod harness;
mod latch;
mod log;
mod mistakes;

use crate::exploration::{explore, find};
