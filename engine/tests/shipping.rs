//! A store that ships its log, and one that gets it: what waits for whom, what is shown, and who takes over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "shipping/acks.rs"]
mod acks;
#[path = "shipping/fences.rs"]
mod fences;
#[path = "shipping/promotion.rs"]
mod promotion;
#[path = "shipping/replicas.rs"]
mod replicas;
#[path = "shipping/world.rs"]
mod world;
