//! What the fuzz targets run: plain functions of bytes, which ordinary tests replay over a committed corpus. The log's
//! are in [`seawall_wal::fuzzing`].

#![expect(clippy::panic, reason = "a finding is a panic")]

use crate::record::{self, Op};
use crate::{Error, tree};

mod store;

pub use store::store_mutated;

/// A transaction's payload.
pub fn engine_record(data: &[u8]) {
    record_bytes(data);
    // The same behind a header that fits, so that operations are reached.
    let mut payload = vec![1, 0, 0, 0];
    payload.extend_from_slice(&(1 + u32::from(data.first().copied().unwrap_or(0) % 8)).to_le_bytes());
    payload.extend_from_slice(data.get(1..).unwrap_or_default());
    record_bytes(&payload);
}

fn record_bytes(data: &[u8]) {
    let Ok(ops) = record::decode(data) else {
        assert!(record::WriteSet::decode(data.to_vec()).is_err());
        return;
    };
    assert!(ops.len() <= data.len() / 7, "more operations than there is room for");
    let mut builder = record::Builder::default();
    for op in &ops {
        match *op {
            Op::Put { keyspace, key, value } => builder.put(keyspace, key, value),
            Op::PutLarge { keyspace, key, len, pointers } => {
                let value = [&len.to_le_bytes()[..], pointers].concat();
                builder.put_large(keyspace, key, &value, None);
            }
            Op::Remove { keyspace, key } => builder.remove(keyspace, key),
            Op::RemoveRange { keyspace, from, to } => builder.remove_range(keyspace, (from, to)),
            Op::Add { keyspace, key, delta } => builder.add(keyspace, key, delta),
            Op::CreateKeyspace { keyspace, name, row } => builder.create_keyspace(keyspace, name, row),
            Op::DropKeyspace { keyspace, name } => builder.drop_keyspace(keyspace, name),
            Op::Prepare { xid, row } | Op::Outcome { xid, row, .. } => {
                let xid = crate::Xid::from_key(xid);
                match (xid, record::BranchRow::decode(row)) {
                    (Some(xid), Some(record::BranchRow::Prepared(row))) => builder.prepare(&xid, &row),
                    (Some(xid), Some(record::BranchRow::Completed(row))) => builder.outcome(&xid, row),
                    _ => unreachable!("an operation of a prepared transaction that was let through"),
                }
            }
        }
    }
    let again = builder.finish();
    if !ops.is_empty() {
        assert_eq!(&again.payload()[..], data, "a record that comes back");
    }
    match record::WriteSet::decode(data.to_vec()) {
        Ok(set) => {
            assert!(set.rows().len() <= ops.len());
            let keys: Vec<_> = set.rows().iter().map(|row| set.key_of(row)).collect();
            assert!(keys.is_sorted_by(|a, b| a < b), "rows are sorted, one a key");
            assert!(keys.iter().all(|(keyspace, key)| set.contains(*keyspace, key)));
            assert!(set.removed().iter().all(|(keyspace, span)| set.meets(*keyspace, span)));
            let spans: Vec<_> =
                set.removed().iter().map(|(keyspace, span)| (*keyspace, &span.from)).collect();
            assert!(spans.is_sorted_by(|a, b| a < b), "spans are sorted, and do not overlap");
        }
        Err(malformed) => assert_eq!(Some(malformed), again.flaw(), "decoded once, and not twice"),
    }
}

/// Tree blocks, the free map, pointers.
pub fn block(data: &[u8]) {
    tree::fuzzing::block(data);
}

/// The superblock's two slots.
pub fn superblock(data: &[u8]) {
    tree::fuzzing::superblock(data);
}

/// The files beside the data file: a store's slots; how far an image came.
pub fn side_file(data: &[u8]) {
    crate::life::image::fuzz(data);
    crate::life::slots::file::fuzz(data);
}

/// Whether an error is one that damage may cause. Others say that something else went wrong.
fn is_of_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Corruption { .. } | Error::FormatVersion { .. } | Error::Io { .. } | Error::BadInput(_)
    )
}
