//! A place between two rows, moved at will.

use crate::Result;
use crate::key::{Entry, OwnedRange};
use crate::keyspace::Life;
use crate::read::scan::{Merge, Origin, Own};
use crate::read::track::{Edge, Track};
use crate::read::view::Snapshot;
use crate::{Error, error};
use seawall_wal::Slice;
use std::ops::Bound;

/// Where a cursor stands: always between two rows.
#[derive(Clone)]
enum Gap {
    First,
    Before(Slice),
    After(Slice),
    Last,
}

impl Gap {
    /// None behind all keys.
    fn edge(&self) -> Option<Edge> {
        match self {
            Gap::First => Some(Edge::first()),
            Gap::Before(key) => Some(Edge::before(key)),
            Gap::After(key) => Some(Edge::behind(key)),
            Gap::Last => None,
        }
    }
}

/// A place between two rows of a keyspace; rows are lent, not given.
///
/// [`next`](Cursor::next) steps over the row behind the place and shows it, [`prev`](Cursor::prev) steps back over
/// the row in front of it: so `next` and then `prev` show the same row twice.
///
/// ```
/// # use seawall_engine::{Db, Readable};
/// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
/// # let rows = db.keyspace("rows")?;
/// for key in ["a", "b", "c"] {
///     rows.insert(key, "v")?;
/// }
/// let mut cursor = db.snapshot().cursor(&rows);
/// cursor.seek("b")?;
/// while let Some((key, value)) = cursor.next()? {
///     println!("{} {}", key.escape_ascii(), value.escape_ascii());
/// }
/// assert_eq!(cursor.prev()?, Some((&b"c"[..], &b"v"[..])));
/// # Ok::<(), seawall_engine::Error>(())
/// ```
pub struct Cursor {
    origin: error::Result<Origin, Option<Error>>,
    gap: Gap,
    /// Reads on from the gap, in the direction of the last step.
    merge: Option<(Merge, bool)>,
    /// The row behind the gap, already read.
    peeked: Option<Entry>,
    shown: Option<Entry>,
    /// Where it is noted what was read.
    track: Option<Track>,
}

impl Cursor {
    pub(crate) fn new(snapshot: &Snapshot, life: &Life, own: Own) -> Cursor {
        let origin = Origin::new(snapshot, life, own).map_err(Some);
        let track = origin.as_ref().ok().and_then(Origin::track);
        Cursor { origin, gap: Gap::First, merge: None, peeked: None, shown: None, track }
    }

    pub(crate) fn failed(error: Error) -> Cursor {
        Cursor {
            origin: Err(Some(error)),
            gap: Gap::First,
            merge: None,
            peeked: None,
            shown: None,
            track: None,
        }
    }

    /// To the place before the first row at or above `key`: `next` shows that row.
    ///
    /// # Errors
    /// If the keyspace is missing, or the transaction has ended.
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # for key in ["a", "c"] {
    /// #     rows.insert(key, "v")?;
    /// # }
    /// let mut cursor = db.snapshot().cursor(&rows);
    /// cursor.seek("b")?;
    /// assert_eq!(cursor.next()?.unwrap().0, b"c");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.go(Gap::Before(Slice::from(key.as_ref().to_vec())))
    }

    /// To the place after the last row at or below `key`: `prev` shows that row.
    ///
    /// # Errors
    /// As [`seek`](Cursor::seek).
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # for key in ["a", "c"] {
    /// #     rows.insert(key, "v")?;
    /// # }
    /// let mut cursor = db.snapshot().cursor(&rows);
    /// cursor.seek_for_prev("b")?;
    /// assert_eq!(cursor.prev()?.unwrap().0, b"a");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.go(Gap::After(Slice::from(key.as_ref().to_vec())))
    }

    /// To the place before the first row.
    ///
    /// # Errors
    /// As [`seek`](Cursor::seek).
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # for key in ["a", "c"] {
    /// #     rows.insert(key, "v")?;
    /// # }
    /// let mut cursor = db.snapshot().cursor(&rows);
    /// cursor.seek_first()?;
    /// assert_eq!(cursor.next()?.unwrap().0, b"a");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn seek_first(&mut self) -> Result<()> {
        self.go(Gap::First)
    }

    /// To the place after the last row: `prev` shows that row.
    ///
    /// # Errors
    /// As [`seek`](Cursor::seek).
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # for key in ["a", "c"] {
    /// #     rows.insert(key, "v")?;
    /// # }
    /// let mut cursor = db.snapshot().cursor(&rows);
    /// cursor.seek_last()?;
    /// assert_eq!(cursor.prev()?.unwrap().0, b"c");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn seek_last(&mut self) -> Result<()> {
        self.go(Gap::Last)
    }

    /// Steps over the next row and shows it; none at the end.
    ///
    /// # Errors
    /// `KeyspaceMissing`, `SnapshotTooOld`, `BadInput` once the transaction has ended, `Io` and `Corruption` from the data file.
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # for key in ["a", "c"] {
    /// #     rows.insert(key, "v")?;
    /// # }
    /// let mut cursor = db.snapshot().cursor(&rows);
    /// assert_eq!(cursor.next()?.unwrap().0, b"a");
    /// assert_eq!(cursor.next()?.unwrap().0, b"c");
    /// assert!(cursor.next()?.is_none());
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    #[expect(clippy::should_implement_trait, reason = "it lends its rows, which no Iterator can")]
    pub fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.check()?;
        let entry = match self.peeked.take() {
            Some(entry) => Some(entry),
            None => self.read(false)?,
        };
        if let Some((key, _)) = &entry {
            self.gap = Gap::After(key.clone());
        }
        Ok(self.show(entry))
    }

    /// Steps back over the previous row and shows it; none at the start.
    ///
    /// # Errors
    /// As [`next`](Cursor::next).
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # for key in ["a", "c"] {
    /// #     rows.insert(key, "v")?;
    /// # }
    /// let mut cursor = db.snapshot().cursor(&rows);
    /// assert!(cursor.prev()?.is_none(), "it begins before all rows");
    /// cursor.next()?;
    /// assert_eq!(cursor.prev()?.unwrap().0, b"a");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn prev(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.check()?;
        if self.peeked.take().is_some() {
            // The merge has gone past the gap.
            self.merge = None;
        }
        let entry = self.read(true)?;
        if let Some((key, _)) = &entry {
            self.gap = Gap::Before(key.clone());
        }
        Ok(self.show(entry))
    }

    /// Shows the next row without stepping over it.
    ///
    /// # Errors
    /// As [`next`](Cursor::next).
    ///
    /// ```
    /// # use seawall_engine::{Db, Readable};
    /// # let db = Db::builder("/store").disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open()?;
    /// # let rows = db.keyspace("rows")?;
    /// # for key in ["a", "c"] {
    /// #     rows.insert(key, "v")?;
    /// # }
    /// let mut cursor = db.snapshot().cursor(&rows);
    /// assert_eq!(cursor.peek()?.unwrap().0, b"a");
    /// assert_eq!(cursor.next()?.unwrap().0, b"a");
    /// # Ok::<(), seawall_engine::Error>(())
    /// ```
    pub fn peek(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.check()?;
        if self.peeked.is_none() {
            self.peeked = self.read(false)?;
        }
        Ok(self.peeked.as_ref().map(|(key, value)| (&**key, &**value)))
    }

    fn show(&mut self, entry: Option<Entry>) -> Option<(&[u8], &[u8])> {
        self.shown = entry;
        self.shown.as_ref().map(|(key, value)| (&**key, &**value))
    }

    fn go(&mut self, gap: Gap) -> Result<()> {
        self.check()?;
        self.gap = gap;
        self.merge = None;
        self.peeked = None;
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        match &mut self.origin {
            Ok(origin) => origin.check().inspect_err(|_| self.merge = None),
            Err(error) => Err(error.take().unwrap_or(Error::BadInput("the cursor has failed before".into()))),
        }
    }

    /// The next row in a direction.
    fn read(&mut self, is_reverse: bool) -> Result<Option<Entry>> {
        let Ok(origin) = &self.origin else { return Ok(None) };
        if self.merge.as_ref().is_none_or(|(_, direction)| *direction != is_reverse) {
            let mut range = OwnedRange::all();
            match (&self.gap, is_reverse) {
                (Gap::First, false) | (Gap::Last, true) => {}
                (Gap::First, true) | (Gap::Last, false) => return Ok(None),
                (Gap::Before(key), false) => range.from = Bound::Included(key.clone()),
                (Gap::Before(key), true) => range.to = Bound::Excluded(key.clone()),
                (Gap::After(key), false) => range.from = Bound::Excluded(key.clone()),
                (Gap::After(key), true) => range.to = Bound::Included(key.clone()),
            }
            self.merge = Some((origin.merge(&range, is_reverse)?, is_reverse));
        }
        let entry = match &mut self.merge {
            Some((merge, _)) => merge.next_entry()?,
            None => None,
        };
        if let Some(track) = &self.track {
            let (here, last) = (self.gap.edge(), entry.as_ref().map(|(key, _)| key));
            if is_reverse {
                track.pass(last.map_or(Edge::first(), Edge::before), here)?;
            } else {
                track.pass(here.unwrap_or(Edge::first()), last.map(Edge::behind))?;
            }
        }
        Ok(entry)
    }
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").finish_non_exhaustive()
    }
}
