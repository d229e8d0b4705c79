//! The bytes of the anchor: the log's own small state, kept in two slots that are written in turn. Pure: no I/O.
//!
//! //= docs/format/wal.md#anchor
#![warn(clippy::indexing_slicing)]

use crate::Lsn;
use crate::bytes::{checksum_around, get, get_u32, get_u64, put};
use crate::disk::BLOCK_BYTES;
use crate::segment::FORMAT_VERSION;
use crate::timeline::{self, History};

/// The anchor's file name.
pub const FILE_NAME: &str = "anchor";
/// Bytes of the anchor's file: two slots of one block.
pub const FILE_BYTES: usize = 2 * BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"SEAWALAN";
const CHECKSUM_AT: usize = 12;
const PROMISED_AT: usize = 144;
const HISTORY_AT: usize = 152;
const REWINDING_AT: usize = HISTORY_AT + timeline::HISTORY_BYTES;

/// Incompatible feature, bit 0: the log is a replica's.
const FEATURE_REPLICA: u64 = 1;

/// The log's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The store that the log belongs to.
    pub store_id: [u8; 16],
    /// Grows by one with each write; its parity is the slot.
    pub sequence: u64,
    /// Bytes of every segment, for the log's life.
    pub segment_bytes: u64,
    /// How durable writes are made: 0 for automatic.
    pub write_method: u32,
    /// Where the log begins: what is before may be gone.
    pub first: Lsn,
    /// The epoch that the log is written in.
    pub epoch: u64,
    /// What was durable when the log was last closed cleanly, or this slot written.
    pub durable: Lsn,
    /// A replica's own durable LSN: what it judges its tail by.
    pub replica_durable: Lsn,
    /// Whether the log is a replica's: written with what a primary ships, and judged by its own durable LSN.
    pub is_replica: bool,
    /// The highest epoch that was promised: no primary of a lower one is followed, or may go on being one.
    pub promised: u64,
    /// Where each epoch began.
    pub history: History,
    /// Where the log is being rewound to; zero if it is not.
    pub rewinding: Lsn,
    /// Whether the log was closed cleanly, and not opened for writing since: then nothing stands behind its end.
    pub clean: bool,
    /// Where its end was then, if it says so: what an opening need not look for.
    pub closed: Option<Closed>,
}

impl Anchor {
    /// Where a replica's log has to come to before it is one: what is before was durable at its primary, and is needed, or in the
    /// image beside it.
    pub(crate) fn needed(&self) -> Lsn {
        self.first.max(self.durable)
    }
}

/// The end of a log that was closed cleanly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Behind the last frame's padding; where a last segment without a frame would have its first.
    pub end: Lsn,
    /// Where the last frame of the last segment stands; 0 if there is none.
    pub last: Lsn,
    /// That frame's checksum; that of the segment's header if there is none.
    pub checksum: u32,
    /// The end of the last whole record.
    pub whole_end: Lsn,
    /// The time of the last record.
    pub time_us: u64,
}

/// What one slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, for a moment, when a log is opened")]
pub enum Slot {
    /// A whole anchor.
    Valid(Anchor),
    /// A whole anchor of a version that this program does not know.
    Newer(u32),
    /// Nothing whole.
    None,
}

impl Anchor {
    /// The offset of the slot that this anchor is written to.
    pub fn offset(&self) -> u64 {
        (self.sequence % 2) * BLOCK_BYTES as u64
    }

    /// The slot's block.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        put(&mut block, 0, &MAGIC);
        put(&mut block, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut block, 24, &u64::from(self.is_replica).to_le_bytes());
        put(&mut block, 32, &self.store_id);
        put(&mut block, 48, &self.sequence.to_le_bytes());
        put(&mut block, 56, &self.segment_bytes.to_le_bytes());
        put(&mut block, 64, &(BLOCK_BYTES as u32).to_le_bytes());
        put(&mut block, 68, &self.write_method.to_le_bytes());
        put(&mut block, 72, &self.first.0.to_le_bytes());
        put(&mut block, 80, &self.epoch.to_le_bytes());
        put(&mut block, 88, &self.durable.0.to_le_bytes());
        put(&mut block, 96, &self.replica_durable.0.to_le_bytes());
        let closed = self.closed.filter(|_| self.clean);
        put(&mut block, 104, &(u32::from(self.clean) | u32::from(closed.is_some()) << 1).to_le_bytes());
        if let Some(closed) = closed {
            put(&mut block, 108, &closed.checksum.to_le_bytes());
            put(&mut block, 112, &closed.end.0.to_le_bytes());
            put(&mut block, 120, &closed.last.0.to_le_bytes());
            put(&mut block, 128, &closed.whole_end.0.to_le_bytes());
            put(&mut block, 136, &closed.time_us.to_le_bytes());
        }
        put(&mut block, PROMISED_AT, &self.promised.to_le_bytes());
        put(&mut block, HISTORY_AT, &self.history.encode());
        put(&mut block, REWINDING_AT, &self.rewinding.0.to_le_bytes());
        let checksum = checksum_around(&block, CHECKSUM_AT);
        put(&mut block, CHECKSUM_AT, &checksum.to_le_bytes());
        block
    }

    /// The bytes of a new anchor's file: this one, and one before it that says the same.
    pub(crate) fn new_file(&self) -> Vec<u8> {
        let mut bytes = vec![0; FILE_BYTES];
        for sequence in [0, 1] {
            let anchor = Anchor { sequence, ..*self };
            put(&mut bytes, anchor.offset() as usize, &anchor.encode());
        }
        bytes
    }

    /// Reads one slot.
    pub fn parse(block: &[u8]) -> Slot {
        let Some(block) = block.get(..BLOCK_BYTES) else { return Slot::None };
        if get::<8>(block, 0) != MAGIC || get_u32(block, CHECKSUM_AT) != checksum_around(block, CHECKSUM_AT) {
            return Slot::None;
        }
        let flags = get_u32(block, 104);
        let version = get_u32(block, 8);
        let features = get_u64(block, 24);
        let unknown_features = features & !FEATURE_REPLICA != 0 || get_u32(block, 64) != BLOCK_BYTES as u32;
        if version != FORMAT_VERSION || unknown_features {
            return Slot::Newer(version.max(FORMAT_VERSION + u32::from(unknown_features)));
        }
        // What does not parse was not written by anybody, whatever its checksum is.
        let Some(history) = History::decode(block.get(HISTORY_AT..).unwrap_or_default()) else {
            return Slot::None;
        };
        Slot::Valid(Anchor {
            store_id: get(block, 32),
            sequence: get_u64(block, 48),
            segment_bytes: get_u64(block, 56),
            write_method: get_u32(block, 68),
            first: Lsn(get_u64(block, 72)),
            epoch: get_u64(block, 80),
            durable: Lsn(get_u64(block, 88)),
            replica_durable: Lsn(get_u64(block, 96)),
            is_replica: features & FEATURE_REPLICA != 0,
            promised: get_u64(block, PROMISED_AT),
            history,
            rewinding: Lsn(get_u64(block, REWINDING_AT)),
            clean: flags & 1 == 1,
            closed: (flags & 3 == 3).then(|| Closed {
                end: Lsn(get_u64(block, 112)),
                last: Lsn(get_u64(block, 120)),
                checksum: get_u32(block, 108),
                whole_end: Lsn(get_u64(block, 128)),
                time_us: get_u64(block, 136),
            }),
        })
    }

    /// The newer of the file's two slots. The other may be torn, but must have been a slot: a torn write leaves the
    /// magic in its place, and anything else means that a block was lost or exchanged. Beside a torn slot the log
    /// does not count as cleanly closed, for that slot may have said that it was opened again.
    pub fn choose(file: &[u8]) -> Slot {
        let block = |index: usize| {
            file.get(index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES)
                .filter(|block| get::<8>(block, 0) == MAGIC)
        };
        let (Some(first), Some(second)) = (block(0), block(1)) else { return Slot::None };
        let slot = |index: u64, block: &[u8]| {
            match Anchor::parse(block) {
                // A whole anchor in the other's slot is a misdirected write.
                Slot::Valid(anchor) if anchor.sequence % 2 != index => Slot::None,
                parsed => parsed,
            }
        };
        match (slot(0, first), slot(1, second)) {
            (Slot::Newer(version), _) | (_, Slot::Newer(version)) => Slot::Newer(version),
            (Slot::Valid(a), Slot::Valid(b)) => Slot::Valid(if a.sequence > b.sequence { a } else { b }),
            (Slot::Valid(a), Slot::None) | (Slot::None, Slot::Valid(a)) => {
                Slot::Valid(Anchor { clean: false, closed: None, ..a })
            }
            (Slot::None, Slot::None) => Slot::None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sample(sequence: u64) -> Anchor {
        Anchor {
            store_id: [3; 16],
            sequence,
            segment_bytes: 1 << 20,
            write_method: 1,
            first: Lsn(1 << 20),
            epoch: 4,
            durable: Lsn(77),
            replica_durable: Lsn(0),
            is_replica: false,
            promised: 0,
            history: History::default(),
            rewinding: Lsn::ZERO,
            clean: true,
            closed: Some(Closed {
                end: Lsn(81_920),
                last: Lsn(77_824),
                checksum: 0xDEAD_BEEF,
                whole_end: Lsn(77_000),
                time_us: 5,
            }),
        }
    }

    fn file(a: u64, b: u64) -> Vec<u8> {
        let mut bytes = vec![0; FILE_BYTES];
        for anchor in [sample(a), sample(b)] {
            put(&mut bytes, anchor.offset() as usize, &anchor.encode());
        }
        bytes
    }

    #[test]
    fn the_newer_slot_is_chosen_and_a_torn_one_passed_over() {
        assert_eq!(Anchor::choose(&file(6, 7)), Slot::Valid(sample(7)));
        assert_eq!(Anchor::choose(&file(8, 7)), Slot::Valid(sample(8)));
        let mut torn = file(8, 7);
        torn[40] ^= 1;
        let passed_over = Slot::Valid(Anchor { clean: false, closed: None, ..sample(7) });
        assert_eq!(Anchor::choose(&torn), passed_over);
        torn[BLOCK_BYTES + 40] ^= 1;
        assert_eq!(Anchor::choose(&torn), Slot::None);
    }

    #[test]
    fn a_replicas_state_survives() {
        let mut history = History::default();
        history.push(crate::Turn { epoch: 3, start: Lsn(4096) }).unwrap();
        history.push(crate::Turn { epoch: 4, start: Lsn(8192) }).unwrap();
        let replica = Anchor {
            is_replica: true,
            promised: 9,
            replica_durable: Lsn(70),
            history,
            rewinding: Lsn(4096),
            clean: false,
            closed: None,
            ..sample(2)
        };
        assert_eq!(Anchor::parse(&replica.encode()), Slot::Valid(replica));
    }

    #[test]
    fn a_slot_in_the_others_place_does_not_count() {
        let mut bytes = file(6, 7);
        let misdirected = sample(9).encode();
        bytes[..BLOCK_BYTES].copy_from_slice(&misdirected);
        assert_eq!(Anchor::choose(&bytes), Slot::Valid(Anchor { clean: false, closed: None, ..sample(7) }));
    }

    #[test]
    fn an_end_counts_only_in_a_log_that_was_closed() {
        let open = Anchor { clean: false, ..sample(2) };
        assert_eq!(Anchor::parse(&open.encode()), Slot::Valid(Anchor { closed: None, ..open }));
        // As it was written before ends were.
        let old = Anchor { closed: None, ..sample(2) };
        assert_eq!(Anchor::parse(&old.encode()), Slot::Valid(old));
        assert!(old.encode()[108..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_block_that_was_no_slot_is_not_passed_over() {
        for foreign in [vec![0; BLOCK_BYTES], vec![7; BLOCK_BYTES]] {
            let mut bytes = file(6, 7);
            bytes[BLOCK_BYTES..].copy_from_slice(&foreign);
            assert_eq!(Anchor::choose(&bytes), Slot::None);
        }
        assert_eq!(Anchor::choose(&file(6, 7)[..BLOCK_BYTES]), Slot::None);
    }
}
