//! seawall: a crash-safe transactional storage engine. The engine's names, and the log's under [`wal`].

pub use seawall_engine::*;

/// The write-ahead log on its own, and the seams to disk, clock and threads.
pub mod wal {
    pub use seawall_wal::*;
}
