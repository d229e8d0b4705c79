//! Going back to where two logs part: a store that was a primary, and has log that its successor has not, becomes that
//! one's replica without being copied anew.
//!
//! ```text
//! data file: the superblock that has nothing from there on ─► slots of those who have ─► the log: cut, and a replica's
//! ```
//!
//! Each step is durable before the next, and may be made again. A crash in between leaves a store that is whole: with an
//! older data file, whose log is all there. That the older superblock is there, and its log, is what `rewindable` is for.

use crate::life::image::log_options;
use crate::life::open::{DATA_NAME, LOG_NAME, open_locked};
use crate::life::slots;
use crate::options::{DbBuilder, Options};
use crate::tree::rewind::Choice;
use crate::{Error, Result};
use seawall_wal::anchor::Anchor;
use seawall_wal::disk::Open;
use seawall_wal::{History, Lsn, anchor_of};
use std::path::Path;

/// What [`rewind`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewound {
    /// The data file has everything below this; the store replays its log from here on.
    pub checkpoint_lsn: Lsn,
    /// Bytes of log that were cut off, as far as that can be told.
    pub cut_bytes: u64,
}

/// Takes a closed store, the one that `builder` names, back to `to`, the place at which its log parts from that of another
/// primary, whose epoch is `promised` and whose turns `history` has. From then on it is a replica's store, which goes on
/// with that primary's log. Records from `to` on are gone, acknowledged or not. May be repeated, after a crash or
/// without one.
///
/// Its slots go: they are the primary's that it was, and nobody would move them on.
///
/// # Errors
/// `NeedsImage` if the data file, in both of its superblocks, or the log, is beyond that: nothing was changed then. `Locked`,
/// `Corruption`, `FormatVersion`, `NoSpace`, `Io`; `BadInput` for a place that is none.
///
/// ```
/// # use seawall_engine::{Db, Lsn, SlotOptions, rewind};
/// # use seawall_wal::{History, Turn};
/// # let disk = seawall_wal::SimDisk::new(1);
/// let builder = Db::builder("/store").disk(disk).segment_bytes(256 << 10);
/// let db = builder.clone().open()?;
/// let rows = db.keyspace("rows")?;
/// db.create_slot("replica-1", SlotOptions::default())?;
/// let end = db.sync()?;
/// let place = Lsn(end.0.next_multiple_of(4096));
/// db.advance_slot("replica-1", place, end)?;
/// rows.insert("a", "never shipped")?;
/// # drop(rows);
/// db.close()?;
/// // The replica has taken over, in an epoch of its own.
/// let mut history = History::default();
/// history.push(Turn { epoch: 1, start: place })?;
/// let rewound = rewind(&builder, place, 1, &history)?;
/// assert!(rewound.checkpoint_lsn <= place && rewound.cut_bytes > 0);
/// # Ok::<(), seawall_engine::Error>(())
/// ```
pub fn rewind(builder: &DbBuilder, to: Lsn, promised: u64, history: &History) -> Result<Rewound> {
    let options = builder.clone().options()?;
    let (disk, path) = (&*options.disk, options.path.join(DATA_NAME));
    let file = open_locked(disk, &path, Open::ReadWrite)?;
    disk.sync_dir(&options.path)
        .map_err(|source| Error::io("sync directory", &options.path, None, source))?;
    let choice = Choice::at_or_below(to, &*file, &path)?;
    let superblock = &choice.superblock;
    let log_dir = options.path.join(LOG_NAME);
    let anchor = anchor_of(disk, &log_dir)?;
    let checkpoint_lsn = superblock.checkpoint_lsn;
    if anchor.store_id != superblock.store_id {
        let what = "the log beside it belongs to another store".to_owned();
        return Err(Error::Corruption { file: path, offset: 0, lsn: None, what });
    }
    if checkpoint_lsn < anchor.first {
        let what =
            format!("its data file is at LSN {checkpoint_lsn}, and its log begins at {}", anchor.first);
        return Err(Error::NeedsImage { to, what });
    }
    let end = log_end(&options, &log_dir, &anchor, checkpoint_lsn);
    choice.settle(&*file, &path)?;
    slots::drop_all(&options, superblock.store_id)?;
    seawall_wal::rewind(&log_dir, &log_options(&options), to, promised, history)?;
    Ok(Rewound { checkpoint_lsn, cut_bytes: end.0.saturating_sub(to.0) })
}

/// A [`rewind`] that was cut short in the middle: what it was called with. No store is opened before it was called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewinding {
    /// The place to go back to.
    pub to: Lsn,
    /// The epoch promised.
    pub promised: u64,
    /// Its turns.
    pub history: History,
}

/// The rewind of a closed store that was begun and not ended, if there is one.
///
/// # Errors
/// `Corruption`, `FormatVersion`, `Io`.
///
/// ```
/// # use seawall_engine::{Db, rewinding};
/// # let builder = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10);
/// builder.clone().open()?.close()?;
/// assert!(rewinding(&builder)?.is_none());
/// # Ok::<(), seawall_engine::Error>(())
/// ```
pub fn rewinding(builder: &DbBuilder) -> Result<Option<Rewinding>> {
    let options = builder.clone().options()?;
    let Anchor { rewinding: to, promised, history, .. } =
        anchor_of(&*options.disk, &options.path.join(LOG_NAME))?;
    Ok((to != Lsn::ZERO).then_some(Rewinding { to, promised, history }))
}

/// Where the log ends, or at least came to.
fn log_end(options: &Options, log_dir: &Path, anchor: &Anchor, replay: Lsn) -> Lsn {
    let log = log_options(options)
        .store_id(anchor.store_id)
        .segment_bytes(anchor.segment_bytes)
        .start(replay, replay)
        .replica(anchor.is_replica)
        .read_only(true)
        .create(false)
        .open(log_dir);
    log.map_or(anchor.durable, |log| log.durable_lsn())
}
