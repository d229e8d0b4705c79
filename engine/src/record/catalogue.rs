//! What a keyspace is made with, and its row in the catalogue. Pure.

use super::CATALOGUE;
use crate::{Error, Result};
use std::time::Duration;

/// How a keyspace's leaves are compressed, in the data file; in the cache, and in the log, rows are as they are.
///
/// A compressed keyspace has larger leaves, of 32 KiB before compression: a row read from the device, and a row changed by
/// a checkpoint, cost that much more than in one that is not compressed, whose leaves are of 4 KiB. Values of more than
/// 4 KiB stand in extents of their own, which are not compressed.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-compression-doc-{}", std::process::id()));
/// use seawall_engine::{Compression, Db, KeyspaceOptions};
/// let db = Db::open(&dir)?;
/// let options = KeyspaceOptions { compression: Compression::Lz4, ..Default::default() };
/// let texts = db.keyspace_with("texts", options)?;
/// texts.insert("greeting", "hello hello hello")?;
/// assert_eq!(db.keyspace("texts")?.options().compression, Compression::Lz4);
/// # drop(texts);
/// # db.close()?;
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Fast: LZ4.
    Lz4,
    /// Small: Zstandard. It takes the feature `zstd`; without it, asking for such a keyspace is `BadInput`, and so is
    /// opening a store for writing whose log still holds rows of one.
    Zstd,
}

impl Compression {
    /// Whether this build can do it.
    pub(crate) fn is_supported(self) -> bool {
        self != Compression::Zstd || cfg!(feature = "zstd")
    }

    /// What to say if it cannot.
    pub(crate) fn missing(self) -> String {
        format!("compression with {self:?} takes the feature `zstd`, which this program was built without")
    }
}

/// What a keyspace is made with. It is kept in the store, and stays as it was made.
///
/// ```
/// use seawall_engine::{Compression, KeyspaceOptions};
/// let options = KeyspaceOptions { compression: Compression::Lz4, ..Default::default() };
/// assert_ne!(options, KeyspaceOptions::default());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceOptions {
    /// How its leaves are compressed; not at all by default.
    pub compression: Compression,
    /// How long its rows live unless they say otherwise. Not there yet: asking for it is `BadInput`.
    pub ttl: Option<Duration>,
}

impl KeyspaceOptions {
    /// Refuses what this version cannot do.
    pub(crate) fn check(&self) -> Result<()> {
        if self.ttl.is_some() {
            let what = "expiry of rows (ttl) is not there yet: this version cannot keep such a keyspace";
            return Err(Error::BadInput(what.to_owned()));
        }
        if !self.compression.is_supported() {
            return Err(Error::BadInput(self.compression.missing()));
        }
        Ok(())
    }
}

/// A keyspace's row in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CatalogueRow {
    pub(crate) id: u32,
    pub(crate) options: KeyspaceOptions,
}

const FORMAT: u8 = 2;
/// Of builds before 0.1: only an id, and 8 bytes long.
const FORMAT_BARE: u8 = 1;
const ROW_BYTES: usize = 16;

impl CatalogueRow {
    pub(crate) fn new(id: u32, options: KeyspaceOptions) -> CatalogueRow {
        CatalogueRow { id, options }
    }

    pub(crate) fn encode(&self) -> [u8; ROW_BYTES] {
        let compression = match self.options.compression {
            Compression::None => 0,
            Compression::Lz4 => 1,
            Compression::Zstd => 2,
        };
        // No time to live is 0 µs, which none is.
        let ttl = self.options.ttl.map_or(0, |ttl| u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX).max(1));
        let ([a, b, c, d], [e, f, g, h, i, j, k, l]) = (self.id.to_le_bytes(), ttl.to_le_bytes());
        [FORMAT, compression, 0, 0, a, b, c, d, e, f, g, h, i, j, k, l]
    }

    /// None if it is no such row.
    //= docs/format/data.md#keyspace-0-the-catalogue
    pub(crate) fn decode(row: &[u8]) -> Option<CatalogueRow> {
        let (head, rest) = row.split_first_chunk::<8>()?;
        let [format, compression, 0, 0, a, b, c, d] = *head else { return None };
        let id = Some(u32::from_le_bytes([a, b, c, d])).filter(|id| *id != CATALOGUE)?;
        let mut options = KeyspaceOptions::default();
        match (format, rest) {
            (FORMAT_BARE, []) if compression == 0 => {}
            (FORMAT, rest) => {
                options.compression = match compression {
                    0 => Compression::None,
                    1 => Compression::Lz4,
                    2 => Compression::Zstd,
                    _ => return None,
                };
                let ttl = u64::from_le_bytes(rest.try_into().ok()?);
                options.ttl = (ttl != 0).then(|| Duration::from_micros(ttl));
            }
            _ => return None,
        }
        Some(CatalogueRow { id, options })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn rows_come_back_and_others_are_none() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for ttl in [None, Some(Duration::from_micros(1)), Some(Duration::from_secs(1 << 40))] {
                let row = CatalogueRow::new(7, KeyspaceOptions { compression, ttl });
                let bytes = row.encode();
                assert_eq!(CatalogueRow::decode(&bytes), Some(row));
                for len in 0..bytes.len() {
                    assert_eq!(CatalogueRow::decode(&bytes[..len]), None, "cut to {len}");
                }
                assert_eq!(CatalogueRow::decode(&[&bytes[..], &[0]].concat()), None);
            }
        }
        let plain = CatalogueRow::new(7, KeyspaceOptions::default());
        assert_eq!(plain.encode(), [2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(CatalogueRow::decode(&[1, 0, 0, 0, 7, 0, 0, 0]), Some(plain));
        for (at, value) in [(0, 3), (0, 0), (0, 1), (1, 3), (2, 1), (3, 1), (4, 0)] {
            let mut row = CatalogueRow::new(7, KeyspaceOptions::default()).encode();
            row[at] = value;
            assert_eq!(CatalogueRow::decode(&row), None, "{value} at {at}");
        }
    }

    #[test]
    fn what_is_not_there_yet_is_refused_by_name() {
        let refused = |options: KeyspaceOptions| options.check().unwrap_err().to_string();
        let compressed = |compression| KeyspaceOptions { compression, ttl: None };
        assert!(compressed(Compression::Lz4).check().is_ok());
        if cfg!(feature = "zstd") {
            assert!(compressed(Compression::Zstd).check().is_ok());
        } else {
            assert!(refused(compressed(Compression::Zstd)).contains("`zstd`"));
        }
        let ttl = Some(Duration::from_secs(1));
        assert!(refused(KeyspaceOptions { ttl, ..Default::default() }).contains("ttl"));
        assert!(KeyspaceOptions::default().check().is_ok());
    }
}
