//! The name of a transaction that several stores take part in, as X/Open XA has it.

use crate::{Error, Result};
use std::str::FromStr;

/// The longest global id, and the longest branch qualifier, in bytes.
pub const XID_PART_BYTES_MAX: usize = 64;

/// An XA transaction id: who names (`format`), which transaction (`gtrid`), which part of it (`bqual`). Opaque to a store;
/// two are the same if all three are. As text it is `format.gtrid.bqual`, the latter two in hexadecimal.
///
/// From: X/Open CAE Specification, "Distributed Transaction Processing: The XA Specification", 1991.
///
/// ```
/// use seawall_engine::Xid;
/// let xid = Xid::new(7, "order 41", [1])?;
/// assert_eq!(xid.to_string(), "7.6f72646572203431.01");
/// assert_eq!(xid.to_string().parse::<Xid>()?, xid);
/// assert!(Xid::new(7, [0; 65], "").is_err());
/// # Ok::<(), seawall_engine::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xid {
    format: i32,
    gtrid: Box<[u8]>,
    bqual: Box<[u8]>,
}

impl Xid {
    /// `gtrid` of 1 to 64 bytes, `bqual` of up to 64; `format` anything but XA's -1, which names nothing.
    ///
    /// # Errors
    /// `TooLarge` for a part over 64 bytes, `BadInput` for an empty `gtrid` or a format of -1.
    pub fn new(format: i32, gtrid: impl AsRef<[u8]>, bqual: impl AsRef<[u8]>) -> Result<Xid> {
        let (gtrid, bqual) = (gtrid.as_ref(), bqual.as_ref());
        for (what, part) in [("an xid's global id", gtrid), ("an xid's branch qualifier", bqual)] {
            if part.len() > XID_PART_BYTES_MAX {
                return Err(Error::TooLarge { what, len: part.len() as u64, max: XID_PART_BYTES_MAX as u64 });
            }
        }
        if gtrid.is_empty() || format == -1 {
            return Err(Error::BadInput(
                "an xid needs a global id of at least one byte, and a format other than -1".into(),
            ));
        }
        Ok(Xid { format, gtrid: gtrid.into(), bqual: bqual.into() })
    }

    /// Who gives such names.
    pub fn format(&self) -> i32 {
        self.format
    }

    /// The transaction's id, the same in all stores.
    pub fn gtrid(&self) -> &[u8] {
        &self.gtrid
    }

    /// The part of the transaction.
    pub fn bqual(&self) -> &[u8] {
        &self.bqual
    }

    /// As a key: see `docs/format/wal.md`, "Prepared transactions".
    pub(crate) fn to_key(&self) -> Vec<u8> {
        let mut key = self.format.to_le_bytes().to_vec();
        key.push(self.gtrid.len() as u8);
        key.extend_from_slice(&self.gtrid);
        key.extend_from_slice(&self.bqual);
        key
    }

    //= docs/format/wal.md#prepared-transactions
    pub(crate) fn from_key(key: &[u8]) -> Option<Xid> {
        let (format, rest) = key.split_first_chunk()?;
        let (len, rest) = rest.split_first()?;
        let (gtrid, bqual) = rest.split_at_checked(usize::from(*len))?;
        Xid::new(i32::from_le_bytes(*format), gtrid, bqual).ok()
    }
}

impl std::fmt::Display for Xid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.format)?;
        for part in [&self.gtrid, &self.bqual] {
            f.write_str(".")?;
            part.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Xid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Xid({self})")
    }
}

impl FromStr for Xid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Xid> {
        let bad = || {
            let text = text.escape_debug();
            Error::BadInput(format!(
                "\"{text}\" is no xid: it takes FORMAT.GTRID.BQUAL, the latter in hexadecimal"
            ))
        };
        let mut parts = text.split('.');
        let (Some(format), Some(gtrid), Some(bqual), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let format = format.parse().map_err(|_| bad())?;
        Xid::new(format, unhex(gtrid).ok_or_else(bad)?, unhex(bqual).ok_or_else(bad)?)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_xid_keeps_its_parts_apart() {
        let a = Xid::new(1, "ab", "c").unwrap();
        let b = Xid::new(1, "a", "bc").unwrap();
        assert_ne!(a, b);
        assert_ne!(a.to_key(), b.to_key());
        for xid in [a, b, Xid::new(-2, [255; 64], [0; 64]).unwrap(), Xid::new(i32::MIN, "x", "").unwrap()] {
            assert_eq!(Xid::from_key(&xid.to_key()).as_ref(), Some(&xid));
            assert_eq!(xid.to_string().parse::<Xid>().unwrap(), xid);
        }
    }

    #[test]
    fn what_is_no_xid_is_refused() {
        assert!(matches!(Xid::new(1, "", "b"), Err(Error::BadInput(_))));
        assert!(matches!(Xid::new(-1, "a", "b"), Err(Error::BadInput(_))));
        assert!(matches!(Xid::new(1, "a", [0; 65]), Err(Error::TooLarge { len: 65, max: 64, .. })));
        for text in
            ["", "1", "1.61", "1.6.00", "x.61.00", "1.61.00.", "1.6g.00", "1..00", "1.é.00", "1.61.+1"]
        {
            assert!(text.parse::<Xid>().is_err(), "{text}");
        }
        for key in
            [&[][..], &[1, 0, 0, 0], &[1, 0, 0, 0, 2, 65], &[1, 0, 0, 0, 0], &[255, 255, 255, 255, 1, 65]]
        {
            assert_eq!(Xid::from_key(key), None);
        }
    }
}
