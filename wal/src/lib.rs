//! seawall's write-ahead log, usable alone: many small commits into few large durable writes.
//!
//! ```
//! # let dir = std::env::temp_dir().join(format!("seawall-wal-lib-{}", std::process::id()));
//! use seawall_wal::Wal;
//! let wal = Wal::options().segment_bytes(1 << 20).open(&dir)?;
//! wal.commit(b"on the device when this returns")?;
//! wal.close()?;
//! # std::fs::remove_dir_all(dir).unwrap();
//! # Ok::<(), seawall_wal::Error>(())
//! ```
//!
//! A *record* is a logical unit: bytes, with a kind, a group and a time. A *frame* is the physical form of one batch
//! of records, checksummed as a whole. Frames stand in *segments*, files of one size that are filled with zeros ahead
//! of need and used again. An *LSN* is a byte position in the endless log. The *anchor* is the log's own small state.
//!
//! ```text
//! append ─► batch ─► frame ─► segment file          marks, exclusive ends:
//!   place    │  last arriver leads                   first ≤ durable ≤ written ≤ reserved
//!            └─► one durable write a group ─► one wake-up a group
//! ```
//!
//! Three layers: **pure** modules turn bytes into values and values into decisions ([`record`], [`frame`],
//! [`segment`], [`anchor`], [`recovery`]); **policy** gathers, writes, retains ([`Wal`]); the **seams** reach the
//! world ([`disk`], [`runtime`]). Nothing here knows of keys or transactions.
//!
//! What a crash may take, and what each check rests on, stands in `docs/failure-model.md`; the bytes in
//! `docs/format/wal.md`.

mod batch;
mod bytes;
#[doc(hidden)]
pub mod callbacks;
mod commit;
mod follow;
mod keeper;
mod log;
#[doc(hidden)]
pub mod mutation;
mod open;
mod options;
mod reader;
mod replica;
mod retention;
mod scan;
#[cfg(all(test, seawall_shuttle))]
mod shuttle_tests;
mod spares;
mod stats;
mod ticket;
mod walk;
mod writer;

pub mod anchor;
pub mod buf;
pub mod disk;
pub mod durability;
pub mod error;
#[cfg(seawall_shuttle)]
#[doc(hidden)]
pub mod exploration;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod latch;
pub mod lsn;
pub mod record;
pub mod recovery;
pub mod runtime;
pub mod segment;
pub mod ship;
pub mod slice;
pub mod sync;
pub mod timeline;

pub use buf::AlignedBuf;
pub use commit::Placed;
pub use disk::sim::Fault;
pub use disk::{Disk, DiskFile, OsDisk, SimDisk};
pub use durability::Durability;
pub use error::{Error, Result};
pub use follow::Stopper;
pub use log::{Io, Outcome, Recovery, Repair, Wal, WalOptions};
pub use lsn::Lsn;
#[doc(hidden)]
pub use open::anchor_of;
pub use reader::{Next, Record, RecordRef, WalReader};
pub use record::Kind;
pub use replica::{ReplicaStart, create_replica, rewind};
pub use retention::{Pin, Retainer};
pub use runtime::{OsRuntime, Runtime, SimRuntime};
pub use ship::{Piece, Shipped, Shipper};
pub use slice::Slice;
pub use stats::{Histogram, HistogramSnapshot, WalStats};
pub use ticket::Ticket;
pub use timeline::{History, Tail, Timeline, Turn};
