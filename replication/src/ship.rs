//! Shipping the log: a machine a session on the primary's side, a machine a replica on the other. No I/O, no clock.
//!
//! Each has one method, `step(now, input) -> effects`, and [`wake_at`](Primary::wake_at), when it wants to be stepped without
//! an input. Whoever drives a machine owes it this:
//!
//! - effects are carried out in their order; those that say so are answered, each once, by an input;
//! - messages of a connection may be lost, repeated, delayed and reordered; those of another connection are not handed in;
//! - a crash forgets the machine, and a new one begins with what the log has on its device.
//!
//! ```text
//! replica                                              primary
//! Dial, Connected ── Hello: where my log ends ────►    fenced? foreign? diverged? gone?        R4, R9
//! Promise, Promised ◄── Welcome: epochs, resume ──     pins the log there
//! ── Marks: durable so far, room for so much ─────►    Read, Pieces                            R3
//! Accept ◄──────────── Piece ──────────────────────    as far as there is room                 R8
//! Sync, Synced ── Marks ──────────────────────────►    Acked: commits that wait go on          R1, R2
//! Apply, Show ◄─────── Heartbeat: visible ─────────                                            R5
//! ```

pub mod primary;
pub mod replica;

pub use primary::Primary;
pub use replica::Replica;
