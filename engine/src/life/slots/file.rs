//! The bytes of the file `slots`: all slots of a store, in one piece that is replaced as a whole.

#![warn(clippy::indexing_slicing)]

use seawall_wal::Lsn;

/// The format's number.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// A store has no more slots than this.
pub(crate) const SLOTS_MAX: usize = 1024;

/// The longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;

const MAGIC: [u8; 8] = *b"seawallS";
const HEADER_BYTES: usize = 64;
const SLOT_BYTES: usize = 128;
const NAME_AT: usize = 64;
/// Stands for no limit.
const NONE: u64 = u64::MAX;
const IS_LOST: u8 = 1;

/// The longest file, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = (HEADER_BYTES + SLOTS_MAX * SLOT_BYTES) as u64;

/// What is wrong with the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Whole, and of a later version, or with features unknown here.
    Newer(u32),
    Damaged(String),
}

/// One slot, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) name: String,
    /// Its limits were exceeded, and the log that it kept may be gone.
    pub(crate) is_lost: bool,
    /// The log is kept from here on.
    pub(crate) place: Lsn,
    /// Everything below is on the device of whoever the slot is for.
    pub(crate) confirmed: Lsn,
    /// When it was last heard of, in µs since 1970.
    pub(crate) moved_us: u64,
    pub(crate) created_us: u64,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) age_max_us: Option<u64>,
}

/// All that the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotsFile {
    pub(crate) store_id: [u8; 16],
    /// Counts how often the file was replaced.
    pub(crate) sequence: u64,
    /// By name, each once.
    pub(crate) slots: Vec<Slot>,
}

/// Whether a slot may have that name.
pub(crate) fn is_name(name: &str) -> bool {
    let is_of_names = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_of_names)
}

impl SlotsFile {
    /// Whether one of them is not lost.
    pub(crate) fn is_any_alive(&self) -> bool {
        self.slots.iter().any(|slot| !slot.is_lost)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.slots.len() * SLOT_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        // Features.
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&(self.slots.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for slot in &self.slots {
            let mut entry = vec![slot.name.len() as u8, if slot.is_lost { IS_LOST } else { 0 }];
            entry.resize(8, 0);
            let age_max_us = slot.age_max_us.unwrap_or(NONE);
            for number in [
                slot.place.0,
                slot.confirmed.0,
                slot.moved_us,
                slot.created_us,
                slot.bytes_max.unwrap_or(NONE),
                age_max_us,
            ] {
                entry.extend_from_slice(&number.to_le_bytes());
            }
            entry.resize(NAME_AT, 0);
            entry.extend_from_slice(slot.name.as_bytes());
            entry.resize(SLOT_BYTES, 0);
            out.extend_from_slice(&entry);
        }
        let checksum = checksum(&out).to_le_bytes();
        for (to, from) in out.iter_mut().skip(12).zip(checksum) {
            *to = from;
        }
        out
    }

    //= docs/format/data.md#slots
    pub(crate) fn decode(bytes: &[u8]) -> Result<SlotsFile, Flaw> {
        let damaged = |what: &str| Flaw::Damaged(what.to_owned());
        if bytes.get(..8) != Some(&MAGIC) || bytes.len() < HEADER_BYTES {
            return Err(damaged("it is too short, or its magic is wrong"));
        }
        let version = u32_at(bytes, 8);
        if u32_at(bytes, 12) != checksum(bytes) {
            return Err(damaged("its checksum does not match"));
        }
        if version > FORMAT_VERSION {
            return Err(Flaw::Newer(version));
        }
        if version != FORMAT_VERSION {
            return Err(damaged("a version that never was"));
        }
        if u64_at(bytes, 24) != 0 {
            return Err(Flaw::Newer(version.saturating_add(1)));
        }
        let count = u32_at(bytes, 56) as usize;
        let entries = bytes.get(HEADER_BYTES..).unwrap_or_default();
        if count > SLOTS_MAX || entries.len() != count * SLOT_BYTES || u32_at(bytes, 60) != 0 {
            return Err(Flaw::Damaged(format!("{} bytes are not {count} slots", bytes.len())));
        }
        let slots: Option<Vec<Slot>> = entries.chunks(SLOT_BYTES).map(decode_slot).collect();
        let slots = slots.ok_or_else(|| damaged("one of its slots cannot be"))?;
        if !slots.is_sorted_by(|one, next| one.name < next.name) {
            return Err(damaged("its slots are out of order, or named twice"));
        }
        let mut store_id = [0; 16];
        store_id.copy_from_slice(bytes.get(32..48).unwrap_or(&[0; 16]));
        Ok(SlotsFile { store_id, sequence: u64_at(bytes, 48), slots })
    }
}

fn decode_slot(entry: &[u8]) -> Option<Slot> {
    let [name_bytes, flags, reserved @ ..] = entry.get(..8)? else { return None };
    let name = entry.get(NAME_AT..)?.get(..usize::from(*name_bytes))?;
    let padding = entry.get(NAME_AT + name.len()..)?;
    let is_blank = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    if *flags > IS_LOST || !is_blank(reserved) || !is_blank(padding) || !is_blank(entry.get(56..NAME_AT)?) {
        return None;
    }
    let name = std::str::from_utf8(name).ok().filter(|name| is_name(name))?;
    let limit = |at| Some(u64_at(entry, at)).filter(|limit| *limit != NONE);
    Some(Slot {
        name: name.to_owned(),
        is_lost: *flags == IS_LOST,
        place: Lsn(u64_at(entry, 8)),
        confirmed: Lsn(u64_at(entry, 16)),
        moved_us: u64_at(entry, 24),
        created_us: u64_at(entry, 32),
        bytes_max: limit(40),
        age_max_us: limit(48),
    })
}

/// Of all but the place where it stands.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..12).unwrap_or_default());
    hasher.update(bytes.get(16..).unwrap_or_default());
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// The fuzz target's body: what is let through comes back byte by byte.
pub(crate) fn fuzz(data: &[u8]) {
    let mut sealed = data.to_vec();
    if sealed.len() >= HEADER_BYTES {
        let sum = checksum(&sealed).to_le_bytes();
        sealed.iter_mut().skip(12).zip(sum).for_each(|(to, from)| *to = from);
    }
    for bytes in [data, &sealed] {
        if let Ok(file) = SlotsFile::decode(bytes) {
            // Compatible features are passed over.
            let again = file.encode();
            let is_same = |range: std::ops::Range<usize>| again.get(range.clone()) == bytes.get(range);
            assert!(again.len() == bytes.len() && is_same(0..12) && is_same(24..bytes.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn slot(name: &str) -> Slot {
        Slot {
            name: name.to_owned(),
            is_lost: false,
            place: Lsn(70_000),
            confirmed: Lsn(69_000),
            moved_us: 5,
            created_us: 4,
            bytes_max: Some(1 << 30),
            age_max_us: None,
        }
    }

    #[test]
    fn slots_come_back_and_every_flipped_byte_is_noticed() {
        let long = "x".repeat(NAME_BYTES_MAX);
        let slots = vec![slot("a"), Slot { is_lost: true, bytes_max: None, ..slot("b-1") }, slot(&long)];
        let file = SlotsFile { store_id: *b"0123456789abcdef", sequence: 3, slots };
        let bytes = file.encode();
        assert_eq!(SlotsFile::decode(&bytes).unwrap(), file);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(matches!(SlotsFile::decode(&bad), Err(Flaw::Damaged(_))), "byte {at}");
        }
        for len in 0..bytes.len() {
            assert!(SlotsFile::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_later_version_is_refused_by_its_number() {
        let mut bytes = SlotsFile { slots: vec![slot("a")], ..SlotsFile::default() }.encode();
        bytes[8] = 9;
        let sum = checksum(&bytes).to_le_bytes();
        bytes[12..16].copy_from_slice(&sum);
        assert_eq!(SlotsFile::decode(&bytes), Err(Flaw::Newer(9)));
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(["a", "replica-1", "0_0"].into_iter().all(is_name));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(!["", "A", "ä", "a b", "a/b", &long].into_iter().any(is_name));
    }

    #[test]
    fn slots_out_of_order_are_damage() {
        for names in [["b", "a"], ["a", "a"]] {
            let slots = names.iter().map(|name| slot(name)).collect();
            let bytes = SlotsFile { slots, ..SlotsFile::default() }.encode();
            assert!(matches!(SlotsFile::decode(&bytes), Err(Flaw::Damaged(_))));
        }
    }
}
