//! A store that ships its log, and one that gets it: what waits for whom, what is shown, and who takes over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "shipping/acks.rs"]
mod acks;
