//! seawall: a crash-safe transactional storage engine. A write-ahead log turns many small commits into few large
//! durable writes; checkpoints fold it into a copy-on-write B+tree; recovery replays what they have not reached.
//!
//! ```
//! # let dir = std::env::temp_dir().join(format!("seawall-doc-{}", std::process::id()));
//! use seawall::{Db, Readable};
//!
//! let db = Db::open(&dir)?;
//! let accounts = db.keyspace("accounts")?;
//! accounts.insert("ada", "100")?; // on the device when this returns
//!
//! // All or nothing, and run again if another transaction wins.
//! db.transact(|tx| {
//!     tx.insert(&accounts, "ada", "90")?;
//!     tx.insert(&accounts, "bob", "10")
//! })?;
//!
//! // A snapshot never changes and blocks nobody.
//! let snapshot = db.snapshot();
//! accounts.remove("bob")?;
//! assert_eq!(snapshot.get(&accounts, "bob")?.as_deref(), Some(&b"10"[..]));
//! for row in snapshot.range(&accounts, "a".."c") {
//!     let (key, value) = row?;
//!     println!("{} has {}", key.escape_ascii(), value.escape_ascii());
//! }
//! db.close()?;
//! # drop((snapshot, accounts));
//! # std::fs::remove_dir_all(dir).unwrap();
//! # Ok::<(), seawall::Error>(())
//! ```
//!
//! What survives what is said in `docs/durability.md`; how it is made, in `docs/ARCHITECTURE.md`.

pub use seawall_engine::{
    Ack, Checkpoint, Compression, Cursor, Db, DbBuilder, Durability, Entry, Error, Event, EventListener,
    Heuristic, Image, ImageInfo, ImagePiece, ImageWriter, Isolation, KeyRange, Keyspace, KeyspaceOptions,
    Lsn, OnPrepared, Prepared, Progress, ReadMode, Readable, Result, Retainer, Rewinding, Rewound, Runtime,
    Savepoint, Scan, Shipping, Slice, SlotOptions, SlotState, SlotStatus, Snapshot, Stats, Ticket,
    Transaction, TxOptions, ValueReader, VerifyReport, Vote, WriteBatch, XID_PART_BYTES_MAX, Xid, error, key,
    rewind, rewinding,
};

/// The write-ahead log on its own, and the seams to disk, clock and threads.
pub mod wal {
    pub use seawall_wal::*;
}

/// Transactions over several stores: every store commits, or none does. See `docs/atomic-commit.md`.
#[cfg(feature = "txn")]
pub mod txn {
    pub use seawall_txn::*;
}

/// The log, shipped: replicas, acknowledgements, promotion. See `docs/replication.md`.
#[cfg(feature = "replication")]
pub mod replication {
    pub use seawall_replication::*;
}

pub mod observe;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod torture;
