//! Numbers as values: what [`add_i64`](crate::Transaction::add_i64) adds to. Pure.

use crate::Error;
use seawall_wal::Slice;
use std::path::Path;

/// A number is 8 bytes, little endian, two's complement.
pub(crate) const NUMBER_BYTES: usize = 8;

/// The number that a value is; none if it is of another length.
pub(crate) fn number_of(value: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(<[u8; NUMBER_BYTES]>::try_from(value).ok()?))
}

/// A number as a value.
pub(crate) fn number_value(number: i64) -> Slice {
    Slice::from(number.to_le_bytes().to_vec())
}

/// An add to a row that holds something else.
pub(crate) fn no_number(key: &[u8]) -> Error {
    let key = key.escape_ascii();
    Error::BadInput(format!(
        "the row \"{key}\" holds no number to add to: its value is not {NUMBER_BYTES} bytes long"
    ))
}

/// An add that was let in, and meets something else: that never happens.
pub(crate) fn flawed(file: &Path) -> Error {
    let what = format!("a row that is added to holds no number: not {NUMBER_BYTES} bytes");
    Error::Corruption { file: file.to_owned(), offset: 0, lsn: None, what }
}
