//! A row's state, as one of several layers has it.

use crate::Result;
use crate::number::{flawed, number_of, number_value};
use crate::tree::LargeValue;
use seawall_wal::Slice;
use std::path::Path;

/// What a layer says of a row; the layers below it matter only to an add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The row has this value.
    Value(Slice),
    /// The row has a value in extents of its own.
    Large(LargeValue),
    /// There is no row.
    Removed,
    /// The sum of adds to whatever the layers below have; a row that is not there counts as 0.
    Add(i64),
    /// An add met a value that is no number: validation never lets it come to that.
    Flawed,
}

impl Version {
    pub(crate) fn of(row: Option<Slice>) -> Version {
        row.map_or(Version::Removed, Version::Value)
    }

    /// This version with a number added to it.
    #[must_use]
    pub(crate) fn plus(self, delta: i64) -> Version {
        match self {
            Version::Value(value) => match number_of(&value) {
                Some(number) => Version::Value(number_value(number.wrapping_add(delta))),
                None => Version::Flawed,
            },
            Version::Removed => Version::Value(number_value(delta)),
            Version::Add(sum) => Version::Add(sum.wrapping_add(delta)),
            Version::Large(_) | Version::Flawed => Version::Flawed,
        }
    }

    /// This version, over one from a layer below.
    #[must_use]
    pub(crate) fn over(self, below: Version) -> Version {
        match self {
            Version::Add(sum) => below.plus(sum),
            version => version,
        }
    }

    /// The row, when there is nothing below; a large value is read.
    ///
    /// # Errors
    /// `Corruption` if an add met a value that is no number; what `read` gives.
    pub(crate) fn row(
        self,
        file: &Path,
        read: impl FnOnce(&LargeValue) -> Result<Slice>,
    ) -> Result<Option<Slice>> {
        match self {
            Version::Large(value) => read(&value).map(Some),
            Version::Value(value) => Ok(Some(value)),
            Version::Removed => Ok(None),
            Version::Add(sum) => Ok(Some(number_value(sum))),
            Version::Flawed => Err(flawed(file)),
        }
    }

    /// Bytes of its value, as they stand in memory.
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Version::Value(value) => value.len(),
            Version::Large(value) => value.encoded().len(),
            _ => 0,
        }
    }
}
