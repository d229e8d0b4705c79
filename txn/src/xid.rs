//! Transaction ids in the shape that X/Open XA gives them, which is how stores and foreign databases know a branch of
//! a distributed transaction. Pure.

use crate::bytes::{Malformed, Reader, Result, Writer};
use crate::id::{NodeId, TxnId};
use std::fmt;

/// A transaction id in XA's shape: a format, a global part, and a branch qualifier.
///
/// Source: X/Open CAE Specification, *Distributed Transaction Processing: The XA Specification* (1991), section 4.2.
///
/// ```
/// use seawall_txn::{NodeId, TxnId, Xid};
/// let xid = Xid::new(1, b"order 17", b"stock")?;
/// assert_eq!(xid.to_string(), "1:6f72646572203137:73746f636b");
/// assert!(Xid::new(1, [0; 65], b"").is_err());
///
/// // The coordinator's own transactions have such a name at each participant.
/// let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 9 };
/// assert_eq!(Xid::of_branch(txn, NodeId(4)).branch(), Some((txn, NodeId(4))));
/// # Ok::<(), seawall_txn::XidError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xid {
    format: i32,
    gtrid: Box<[u8]>,
    bqual: Box<[u8]>,
}

/// Why something is no xid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum XidError {
    /// XA keeps −1 for "no xid"; what is below it is not to be used either.
    Format(i32),
    /// The global part is empty: XA wants at least one byte.
    Empty,
    /// A part is longer than XA's 64 bytes.
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its length in bytes.
        bytes: usize,
    },
}

impl fmt::Display for XidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            XidError::Format(format) => write!(f, "xid: format {format} means no xid; use 0 or more"),
            XidError::Empty => write!(f, "xid: the global part is empty; it needs 1 to 64 bytes"),
            XidError::TooLong { part, bytes } => {
                write!(f, "xid: {part} of {bytes} bytes; at most {} are allowed", Xid::PART_BYTES_MAX)
            }
        }
    }
}

impl std::error::Error for XidError {}

impl Xid {
    /// The most bytes in each of the two parts.
    pub const PART_BYTES_MAX: usize = 64;
    /// The format of the coordinator's own transactions: "sw" and a version.
    pub const FORMAT: i32 = 0x7377_0001;

    /// An xid of parts of up to 64 bytes each.
    ///
    /// # Errors
    /// If the format is negative, a part is longer than 64 bytes, or the global part is empty.
    pub fn new(
        format: i32,
        gtrid: impl AsRef<[u8]>,
        bqual: impl AsRef<[u8]>,
    ) -> std::result::Result<Xid, XidError> {
        let (gtrid, bqual) = (gtrid.as_ref(), bqual.as_ref());
        if format < 0 {
            return Err(XidError::Format(format));
        }
        for (part, bytes) in [("global part", gtrid.len()), ("branch qualifier", bqual.len())] {
            if bytes > Xid::PART_BYTES_MAX {
                return Err(XidError::TooLong { part, bytes });
            }
        }
        if gtrid.is_empty() {
            return Err(XidError::Empty);
        }
        Ok(Xid { format, gtrid: gtrid.into(), bqual: bqual.into() })
    }

    /// What a participant's branch of one of the coordinator's transactions is called.
    pub fn of_branch(txn: TxnId, participant: NodeId) -> Xid {
        let (mut gtrid, mut bqual) = (Writer::default(), Writer::default());
        gtrid.txn(txn);
        bqual.node(participant);
        Xid { format: Xid::FORMAT, gtrid: gtrid.finish().into(), bqual: bqual.finish().into() }
    }

    /// The transaction and participant of a branch; none if it is not of this coordinator's form.
    pub fn branch(&self) -> Option<(TxnId, NodeId)> {
        if self.format != Xid::FORMAT {
            return None;
        }
        let (mut gtrid, mut bqual) = (Reader::new(&self.gtrid), Reader::new(&self.bqual));
        let found = (gtrid.txn().ok()?, bqual.node().ok()?);
        (gtrid.end().is_ok() && bqual.end().is_ok()).then_some(found)
    }

    /// Says how the two parts are to be read.
    pub fn format(&self) -> i32 {
        self.format
    }

    /// The same in all branches of a transaction.
    pub fn gtrid(&self) -> &[u8] {
        &self.gtrid
    }

    /// Tells a transaction's branches apart.
    pub fn bqual(&self) -> &[u8] {
        &self.bqual
    }

    /// format i32 · u8 length · gtrid · u8 length · bqual
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.slice(&self.format.to_le_bytes());
        for part in [&self.gtrid, &self.bqual] {
            out.u8(part.len() as u8);
            out.slice(part);
        }
        out.finish()
    }

    /// The counterpart of [`Xid::encode`].
    ///
    /// # Errors
    /// If the bytes are not exactly what it writes.
    pub fn decode(bytes: &[u8]) -> Result<Xid> {
        let mut reader = Reader::new(bytes);
        let format = reader.u32()? as i32;
        let length = reader.u8()?;
        let gtrid = reader.take(usize::from(length))?;
        let length = reader.u8()?;
        let bqual = reader.take(usize::from(length))?;
        reader.end()?;
        Xid::new(format, gtrid, bqual).map_err(|_| Malformed { at: 0, what: "no xid" })
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.format)?;
        self.gtrid.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ":")?;
        self.bqual.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
