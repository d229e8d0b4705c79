//! What a branch is called in PostgreSQL: an XA name as text. Pure.

#![warn(clippy::indexing_slicing)]

use seawall_engine::{XID_PART_BYTES_MAX, Xid};

/// Every name that this program gives out begins so; prepared transactions under other names are somebody else's.
pub const GID_PREFIX: &str = "seawall.";
/// The most bytes of a name that PostgreSQL takes.
pub const GID_BYTES_MAX: usize = 199;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// The longest: the prefix, eight digits, and two parts in base 64, with a point before each.
const _: () = assert!(GID_PREFIX.len() + 8 + 2 * (1 + (XID_PART_BYTES_MAX * 4).div_ceil(3)) <= GID_BYTES_MAX);

/// An XA name as PostgreSQL has it: `seawall.`, the format as eight hexadecimal digits, and the two parts in base 64 (of
/// the alphabet for URLs, without padding), with points between. At most 190 bytes.
///
/// ```
/// use seawall_engine::Xid;
/// use seawall_txn::postgres::{gid_of, xid_of};
/// let xid = Xid::new(1, "global", "branch")?;
/// assert_eq!(gid_of(&xid), "seawall.00000001.Z2xvYmFs.YnJhbmNo");
/// assert_eq!(xid_of("seawall.00000001.Z2xvYmFs.YnJhbmNo"), Some(xid));
/// assert_eq!(xid_of("another's"), None);
/// # Ok::<(), seawall_engine::Error>(())
/// ```
//= docs/format/txn.md#in-postgresql
pub fn gid_of(xid: &Xid) -> String {
    let mut gid = format!("{GID_PREFIX}{:08x}", xid.format().cast_unsigned());
    for part in [xid.gtrid(), xid.bqual()] {
        gid.push('.');
        encode(part, &mut gid);
    }
    gid
}

/// The name that [`gid_of`] has made this of; none if it has not.
//= docs/format/txn.md#in-postgresql
pub fn xid_of(gid: &str) -> Option<Xid> {
    let mut parts = gid.strip_prefix(GID_PREFIX)?.split('.');
    let (format, gtrid, bqual) = (parts.next()?, parts.next()?, parts.next()?);
    let format = u32::from_str_radix(format, 16).ok()?.cast_signed();
    let xid = Xid::new(format, decode(gtrid)?, decode(bqual)?).ok()?;
    // Whatever else there may be, it is not of this form.
    (gid_of(&xid) == gid).then_some(xid)
}

fn encode(bytes: &[u8], out: &mut String) {
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let digit = bits >> (18 - 6 * place) & 63;
            out.push(char::from(DIGITS.get(digit as usize).copied().unwrap_or_default()));
        }
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for digit in chunk {
            bits = bits << 6 | DIGITS.iter().position(|known| known == digit)? as u32;
        }
        bits <<= 6 * (4 - chunk.len());
        let [_, all @ ..] = bits.to_be_bytes();
        bytes.extend_from_slice(all.get(..chunk.len().checked_sub(1).filter(|&count| count > 0)?)?);
    }
    Some(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        for (format, gtrid, bqual) in
            [(0, 1, 0), (-2, 1, 1), (i32::MAX, 2, 3), (i32::MIN, 64, 64), (crate::XID_FORMAT, 24, 17)]
        {
            for filling in [0, 0x5a, 0xff] {
                let xid = Xid::new(format, vec![filling; gtrid], vec![filling; bqual]).unwrap();
                let gid = gid_of(&xid);
                assert!(gid.len() <= GID_BYTES_MAX, "{} bytes", gid.len());
                assert!(gid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)));
                assert_eq!(xid_of(&gid), Some(xid));
            }
        }
    }

    #[test]
    fn anothers_name_is_not_taken_for_one() {
        let gid = "seawall.00000001.Z2xvYmFs.YnJhbmNo";
        assert!(xid_of(gid).is_some());
        for other in [
            "",
            "seawall.",
            "seawall.1.Z2xvYmFs.YnJhbmNo",
            "seawall.+0000001.Z2xvYmFs.YnJhbmNo",
            "seawall.00000001.Z2xvYmFs",
            "seawall.00000001.Z2xvYmFs.YnJhbmNo.",
            "seawall.00000001.Z2xvYmFs.YnJhbmN",
            "seawall.00000001.Z2xvYmFs.Y",
            "seawall.00000001.Z2xvYmFs.YnJhbm==",
            "Seawall.00000001.Z2xvYmFs.YnJhbmNo",
            "seawall.0000000G.Z2xvYmFs.YnJhbmNo",
            "pgx_1234",
        ] {
            assert_eq!(xid_of(other), None, "{other}");
        }
    }
}
