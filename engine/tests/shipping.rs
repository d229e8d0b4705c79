//! A store that ships its log, and one that gets it: what waits for whom, what is shown, and who takes over.
#![cfg(not(seawall_shuttle))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test fails by panicking, and has threads and a clock of its own"
)]

#[path = "shipping/acks.rs"]
mod acks;
#[path = "shipping/fences.rs"]
mod fences;
#[path = "shipping/live.rs"]
mod live;
#[path = "shipping/promotion.rs"]
mod promotion;
#[path = "shipping/replicas.rs"]
mod replicas;
#[path = "shipping/world.rs"]
mod world;
