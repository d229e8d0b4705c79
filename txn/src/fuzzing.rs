//! What the fuzz targets run: plain functions of bytes, which ordinary tests replay over a committed corpus.

use crate::proto::Context;
use crate::{BranchName, Durable, Input, Message, NodeId, Record, Site, XID_FORMAT};
use seawall_engine::{XID_PART_BYTES_MAX, Xid};

#[cfg(feature = "net")]
pub use crate::net::fuzzing::txn_calls;

/// A message: what decodes encodes to the same bytes, fits its limit, and moves no node to panic.
pub fn txn_message(data: &[u8]) {
    if let Ok(message) = Message::decode(data) {
        assert_eq!(message.encode(), data, "a message that comes back");
        let me = message.to;
        let mut site = Site::new(Context::new(me, message.txn.epoch));
        let key = crate::Key { txn: message.txn, role: crate::Role::Participant };
        site.step(0, key, Input::Join);
        for (_, effect) in site.receive(1, message) {
            if let crate::Effect::Send(answer) = effect {
                assert!(answer.encode().len() <= Message::BYTES_MAX, "T9");
            }
        }
    }
}

/// A record: what decodes encodes to the same bytes, and can be recovered from.
pub fn txn_record(data: &[u8]) {
    if let Ok(record) = Record::decode(data) {
        assert_eq!(record.encode(), data, "a record that comes back");
        let mut durable = Durable::default();
        durable.apply(&record);
        assert!(durable.iter().count() <= 1);
        let me = NodeId(0);
        let (site, _) = Site::recover(Context::new(me, u64::MAX), &durable, 0);
        // A coordinator that asks itself is answered at once, and may be through.
        if record.txn.coordinator != me {
            assert_eq!(site.is_idle(), durable.iter().count() == 0, "what is kept is taken up again");
        }
    }
}

/// A branch's name: the first 24 bytes are the global part. What is read from it gives the same name.
pub fn txn_xid(data: &[u8]) {
    let (gtrid, bqual) = data.split_at(data.len().min(24));
    let Ok(xid) = Xid::new(XID_FORMAT, gtrid, bqual.get(..XID_PART_BYTES_MAX).unwrap_or(bqual)) else {
        return;
    };
    if let Some(name) = BranchName::of(&xid) {
        assert_eq!(name.to_xid().ok(), Some(xid), "a name that comes back");
    }
}
