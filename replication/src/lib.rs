//! The log of a store, shipped: replicas hold the same bytes at the same positions, and apply them to a store of their own.
//!
//! ```text
//! primary's Db ─► Wal::ship ─► [ship::Primary] ═ pieces, heartbeats ═► [ship::Replica] ─► Wal::accept, sync ─► apply ─► readers
//!       ▲                            ▲                                       │
//!       └─ commits that wait ◄─ [ack::Table] ◄════ marks: received, durable, applied
//! ```
//!
//! The machines of [`ship`] do no I/O: input in, effects out. What they promise stands in [`invariants`]. [`timeline`] says
//! which log continues which, [`message`] has the bytes (`docs/format/wire.md`), [`ack`] counts acknowledgements, [`phi`] and
//! [`decide`] advise when a primary seems dead, and [`balance`] spreads reads.
//!
//! Modules, from the bottom up: bytes, [`timeline`], [`message`], [`ack`], [`phi`], [`decide`], [`balance`], [`ship`] (pure).

mod bytes;

pub mod ack;
pub mod balance;
pub mod decide;
#[doc(hidden)]
pub mod fuzzing;
pub mod invariants;
pub mod message;
#[doc(hidden)]
pub mod mutation;
#[cfg(feature = "net")]
pub mod net;
pub mod node;
pub mod phi;
pub mod ship;
pub mod timeline;

pub use bytes::Malformed;
