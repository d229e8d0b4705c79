//! seawall's engine: keyspaces, snapshots and transactions over a copy-on-write B+tree that the log is folded into.
//!
//! ```text
//! write:  a transaction's private set → validate → place in the log → apply to the delta → wait → visible
//! read:   own writes → active delta → frozen deltas → tree
//! fold:   freeze → wait until visible → sync the log → merge into new blocks → sync → superblock → release the log
//! ```
//!
//! *No-steal, redo-only*: what is not visible is never written into the data file, and what is on its way there is in
//! the log; so there is no undo, and a crash at any moment leaves the last checkpoint and the log behind it. The tree
//! holds one version of each row; versions live in *deltas*, in memory, from commit to checkpoint.
//!
//! Modules, from the bottom up, each knowing only those before it: [`key`] and [`record`] (pure), `delta` and the
//! `tree` (where rows are), `read` (snapshots, scans), `commit` (one order for all), `life` (opening, checkpoints,
//! closing), [`Db`] (the face).

mod commit;
mod cover;
mod db;
mod delta;
mod events;
mod invariants;
mod keyspace;
mod life;
mod memory;
mod number;
mod options;
mod read;
#[cfg(not(seawall_shuttle))]
mod shipping;
#[cfg(all(test, seawall_shuttle))]
mod shuttle_tests;
mod stats;
mod sync;
#[doc(hidden)]
pub mod tree;
mod xid;

pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod key;
#[doc(hidden)]
pub mod mutation;
#[doc(hidden)]
pub mod record;

pub use commit::batch::WriteBatch;
pub use commit::gate::Ack;
pub use commit::prepared::{Heuristic, Prepared, Vote};
pub use commit::ticket::{HeldTickets, Ticket};
pub use commit::transaction::{Savepoint, Transaction};
pub use db::{Db, Keyspace};
pub use error::{Error, Result};
pub use key::{Entry, KeyRange};
pub use life::image::{Image, ImageInfo, ImagePiece, ImageWriter};
pub use life::rewind::{Rewinding, Rewound, rewind, rewinding};
pub use life::slots::{SlotOptions, SlotState, SlotStatus};
pub use memory::MemoryStats;
#[doc(hidden)]
pub use options::Spilling;
pub use options::{DbBuilder, Isolation, OnPrepared, ReadMode, TxOptions};
pub use read::cursor::Cursor;
pub use read::scan::Scan;
pub use read::value::ValueReader;
pub use read::view::{Readable, Snapshot};
pub use record::{Compression, KeyspaceOptions};
pub use seawall_wal::{Durability, Lsn, Recovery, Retainer, Runtime, Slice};
#[cfg(not(seawall_shuttle))]
pub use shipping::Shipping;
pub use stats::{Checkpoint, Event, EventListener, Progress, Stats, VerifyReport};
pub use xid::{XID_PART_BYTES_MAX, Xid};
