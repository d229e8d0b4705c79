//! A reader of stores written from `docs/format/data.md` and `docs/format/wal.md` alone: it shares no line with the
//! engine. Where the two do not agree, one of them, or a document, is wrong.

use super::log::{self, Files, Refusal, crc32};
use std::collections::BTreeMap;

const GRID: u64 = 4096;
const ROOTS: u32 = 0xFFFF_FFFF;
const FREE_MAP: u32 = 0xFFFF_FFFE;
const BRANCHES: u32 = 0xFFFF_FFFD;

pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Result<T> = std::result::Result<T, Refusal>;

fn damage<T>(what: impl Into<String>) -> Result<T> {
    Err(Refusal::Damage(what.into()))
}

/// A field, or the news that it is not there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    match at.checked_add(N).and_then(|end| bytes.get(at..end)) {
        Some(field) => Ok(field.try_into().unwrap()),
        None => damage(format!("no {N} bytes at {at}")),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<usize> {
    Ok(usize::from(u16::from_le_bytes(field(bytes, at)?)))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(field(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(field(bytes, at)?))
}

fn bytes_at(bytes: &[u8], at: usize, len: usize) -> Result<&[u8]> {
    match at.checked_add(len).and_then(|end| bytes.get(at..end)) {
        Some(found) => Ok(found),
        None => damage(format!("no {len} bytes at {at}")),
    }
}

fn demand(is_so: bool, what: &str) -> Result<()> {
    if is_so { Ok(()) } else { damage(what) }
}

#[derive(Clone, Copy, Debug)]
struct Pointer {
    offset: u64,
    birth: u64,
    bytes: u64,
    checksum: u32,
    kind: u8,
    level: u8,
}

impl Pointer {
    fn read(bytes: &[u8], at: usize) -> Result<Option<Pointer>> {
        let raw: [u8; 32] = field(bytes, at)?;
        if raw == [0; 32] {
            return Ok(None);
        }
        let pointer = Pointer {
            offset: u64_at(&raw, 0)?,
            birth: u64_at(&raw, 8)?,
            bytes: u64::from(u32_at(&raw, 16)?),
            checksum: u32_at(&raw, 20)?,
            kind: raw[24],
            level: raw[25],
        };
        let is_inner = pointer.kind == 2;
        let fits = pointer.offset.is_multiple_of(GRID)
            && pointer.offset >= 8192
            && pointer.bytes > 0
            && pointer.bytes.is_multiple_of(GRID)
            && (1..=5).contains(&pointer.kind)
            && (1..=32).contains(&pointer.level) == is_inner
            && (is_inner || pointer.level == 0)
            && raw[26..] == [0; 6];
        demand(fits, "a pointer that is none")?;
        Ok(Some(pointer))
    }
}

#[derive(Debug)]
struct Superblock {
    store: [u8; 16],
    generation: u64,
    checkpoint: u64,
    applied: u64,
    file_bytes: u64,
    rows: u64,
    has_runs: bool,
    roots: Option<Pointer>,
    free_map: Option<Pointer>,
}

enum Slot {
    Valid(Superblock),
    Newer(u32),
    None,
}

fn slot(file: &[u8], index: u64) -> Slot {
    let at = (index * GRID) as usize;
    let Some(block) = file.get(at..at + GRID as usize) else { return Slot::None };
    if &block[..8] != b"seawallD" || u32_at(block, 4092).unwrap() != crc32(&[&block[..4092]]) {
        return Slot::None;
    }
    let version = u32_at(block, 8).unwrap();
    if version > 1 || u64_at(block, 24).unwrap() > 1 {
        return Slot::Newer(version);
    }
    let parse = || -> Result<Superblock> {
        let superblock = Superblock {
            store: field(block, 32)?,
            generation: u64_at(block, 48)?,
            checkpoint: u64_at(block, 56)?,
            applied: u64_at(block, 136)?,
            file_bytes: u64_at(block, 104)?,
            rows: u64_at(block, 112)?,
            has_runs: u64_at(block, 24)? == 1,
            roots: Pointer::read(block, 192)?,
            free_map: Pointer::read(block, 224)?,
        };
        demand(version == 1 && superblock.generation % 2 == index, "not of this slot")?;
        demand(superblock.roots.is_none_or(|roots| roots.kind <= 2), "roots of another kind")?;
        demand(superblock.free_map.is_none_or(|map| map.kind == 4), "a free map of another kind")?;
        let ends = [superblock.roots, superblock.free_map].into_iter().flatten().map(|p| p.offset + p.bytes);
        demand(ends.max().unwrap_or(0) <= superblock.file_bytes, "a pointer beyond the file")?;
        Ok(superblock)
    };
    parse().map_or(Slot::None, Slot::Valid)
}

fn superblock(file: &[u8]) -> Result<Superblock> {
    match (slot(file, 0), slot(file, 1)) {
        (Slot::Newer(version), _) | (_, Slot::Newer(version)) => Err(Refusal::Version(version)),
        (Slot::Valid(a), Slot::Valid(b)) => {
            demand(a.store == b.store, "the superblocks are of two stores")?;
            Ok(if a.generation > b.generation { a } else { b })
        }
        (Slot::Valid(one), Slot::None) | (Slot::None, Slot::Valid(one)) => Ok(one),
        (Slot::None, Slot::None) => damage("no superblock"),
    }
}

struct Tree<'a> {
    file: &'a [u8],
    file_bytes: u64,
    /// Every block in use: offset and bytes.
    used: Vec<(u64, u64)>,
}

/// What a row of a tree or a run says.
enum Row {
    Value(Vec<u8>),
    Removed,
    Added(i64),
}

type Entries = BTreeMap<Vec<u8>, Row>;

/// A step of SplitMix64.
fn mix(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Whether a filter has a key.
fn filter_has(filter: &[u8], key: &[u8]) -> bool {
    let first = mix(u64::from(crc32(&[key])));
    let (lines, second) = (filter.len() as u64 / 64, mix(first));
    let line = ((first >> 32) * lines) >> 32;
    let is_set = |bit: u64| filter[(line * 64 + bit / 8) as usize] & (1 << (bit % 8)) != 0;
    (0..7).all(|probe| is_set((second >> (9 * probe)) % 512))
}

/// The block format of LZ4: a token, literals, then a match that copies from what is there already.
fn lz4(packed: &[u8], plain: usize) -> Result<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    let mut at = 0;
    let length = |nibble: usize, at: &mut usize| -> Result<usize> {
        let mut length = nibble;
        if nibble == 15 {
            loop {
                let more = usize::from(field::<1>(packed, *at)?[0]);
                *at += 1;
                length += more;
                if more < 255 {
                    break;
                }
            }
        }
        Ok(length)
    };
    while at < packed.len() {
        let token = usize::from(packed[at]);
        at += 1;
        let literals = length(token >> 4, &mut at)?;
        out.extend_from_slice(bytes_at(packed, at, literals)?);
        at += literals;
        if at == packed.len() {
            break;
        }
        let back = u16_at(packed, at)?;
        at += 2;
        let matched = length(token & 15, &mut at)? + 4;
        demand(back > 0 && back <= out.len() && out.len() + matched <= plain, "a match outside the block")?;
        for _ in 0..matched {
            out.push(out[out.len() - back]);
        }
    }
    demand(out.len() == plain, "a compressed leaf of another length")?;
    Ok(out)
}

impl<'a> Tree<'a> {
    fn block(&mut self, pointer: &Pointer, birth_max: u64) -> Result<&'a [u8]> {
        demand(pointer.birth <= birth_max, "a block younger than what names it")?;
        demand(pointer.offset + pointer.bytes <= self.file_bytes, "a block beyond the file")?;
        let block = bytes_at(self.file, pointer.offset as usize, pointer.bytes as usize)?;
        demand(crc32(&[block]) == pointer.checksum, "a block's checksum")?;
        self.used.push((pointer.offset, pointer.bytes));
        Ok(block)
    }

    /// The bytes in use, and the method and length of what was compressed.
    fn header(block: &[u8], pointer: &Pointer, keyspace: u32) -> Result<(usize, usize, usize)> {
        let repeats = &block[..4] == b"SwBk"
            && block[4] == pointer.kind
            && block[5] == pointer.level
            && u32_at(block, 12)? == keyspace
            && u64_at(block, 16)? == pointer.birth
            && u64_at(block, 24)? == pointer.offset;
        demand(repeats, "a block's header is not what its pointer says")?;
        let used = u32_at(block, 32)? as usize;
        demand(
            used <= block.len() && block[used..].iter().all(|b| *b == 0),
            "what lies behind a block's used bytes",
        )?;
        let packed = u32_at(block, 36)? as usize;
        demand(
            packed == 0 || pointer.kind == 1 && packed >> 24 == 1,
            "a block compressed by another method",
        )?;
        Ok((used, packed >> 24, packed & 0xFF_FFFF))
    }

    /// The rows of a tree, from keys at `low` on and below `high`.
    fn rows(
        &mut self,
        pointer: &Pointer,
        birth_max: u64,
        keyspace: u32,
        (low, high): (&[u8], Option<&[u8]>),
        rows: &mut Entries,
    ) -> Result<()> {
        let stored = self.block(pointer, birth_max)?;
        let (mut used, method, plain) = Tree::header(stored, pointer, keyspace)?;
        let mut whole = stored.to_vec();
        if method != 0 {
            whole.truncate(40);
            whole.extend(lz4(&stored[40..used], plain)?);
            used = whole.len();
        }
        let block = &whole[..];
        let prefix_len = u16_at(block, 6)?;
        let count = u32_at(block, 8)? as usize;
        demand(count > 0, "an empty block")?;
        let prefix = bytes_at(block, 40, prefix_len)?;
        let width = if block.len().next_multiple_of(4096) <= 65_536 { 2 } else { 4 };
        let mut next = 40 + prefix_len + count * width;
        let mut entries: Vec<(Vec<u8>, usize, usize)> = Vec::new();
        for i in 0..count {
            let place = 40 + prefix_len + i * width;
            let at = if width == 2 { u16_at(block, place)? } else { u32_at(block, place)? as usize };
            demand(at == next, "entries are not back to back")?;
            let (suffix, form) = (u16_at(block, at)?, u16_at(block, at + 2)?);
            let key = [prefix, bytes_at(block, at + 4, suffix)?].concat();
            let payload = at + 4 + suffix;
            next = payload
                + match form {
                    0..=0x7FFF => form,
                    0x8001 | 0x8002 => 40,
                    0x8003 => 32,
                    0x8004 => 0,
                    0x8005 => 8,
                    _ => return damage("an entry of an unknown form"),
                };
            demand(entries.last().is_none_or(|(last, ..)| *last < key), "keys do not ascend")?;
            entries.push((key, form, payload));
        }
        demand(next == used, "entries do not end where they should")?;
        for (i, (key, form, payload)) in entries.iter().enumerate() {
            match form {
                0x8003 => {
                    let Some(child) = Pointer::read(block, *payload)? else { return damage("no child") };
                    let is_below = pointer.kind == 2 && child.level + 1 == pointer.level && child.kind <= 2;
                    demand(is_below, "a child of a wrong level")?;
                    let from = if i == 0 { low } else { low.max(key) };
                    let to = entries.get(i + 1).map(|(key, ..)| key.as_slice());
                    let to = to.map_or(high, |to| Some(high.map_or(to, |high| high.min(to))));
                    self.rows(&child, pointer.birth, keyspace, (from, to), rows)?;
                }
                _ => {
                    demand(pointer.kind == 1, "a row in an inner block")?;
                    let is_inside = key.as_slice() >= low && high.is_none_or(|high| key.as_slice() < high);
                    demand(is_inside, "a key outside its parent's bounds")?;
                    let row = match form {
                        0x8004 => Row::Removed,
                        0x8005 => Row::Added(i64::from_le_bytes(field(block, *payload)?)),
                        _ => Row::Value(self.value(block, *form, *payload, pointer.birth)?),
                    };
                    rows.insert(key.clone(), row);
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, block: &[u8], form: usize, payload: usize, birth_max: u64) -> Result<Vec<u8>> {
        if form < 0x8000 {
            return Ok(bytes_at(block, payload, form)?.to_vec());
        }
        let len = u64_at(block, payload)?;
        let Some(pointer) = Pointer::read(block, payload + 8)? else { return damage("no value") };
        if form == 0x8002 {
            demand(pointer.kind == 3, "a list's pointer")?;
            let list = self.block(&pointer, birth_max)?;
            let mut value = Vec::new();
            for i in 0..u64_at(list, 0)? as usize {
                let Some(piece) = Pointer::read(list, 8 + 32 * i)? else { return damage("no piece") };
                demand(piece.kind == 3, "a piece's pointer")?;
                value.extend(self.block(&piece, birth_max)?);
            }
            demand(len > 0 && len.next_multiple_of(GRID) == value.len() as u64, "a value's pieces")?;
            value.truncate(len as usize);
            return Ok(value);
        }
        demand(
            pointer.kind == 3 && len > 0 && len.next_multiple_of(GRID) == pointer.bytes,
            "a value's pointer",
        )?;
        let value = self.block(&pointer, birth_max)?;
        let (value, rest) = value.split_at(len as usize);
        demand(rest.iter().all(|b| *b == 0), "what lies behind a value")?;
        Ok(value.to_vec())
    }

    /// Free, dead and used extents cover the file exactly once.
    fn free_map(&mut self, pointer: &Pointer, birth_max: u64) -> Result<()> {
        let block = self.block(pointer, birth_max)?;
        demand(Tree::header(block, pointer, FREE_MAP)?.1 == 0, "a compressed free map")?;
        let (free, dead) = (u64_at(block, 40)? as usize, u64_at(block, 48)? as usize);
        demand(u32_at(block, 8)? as usize == free + dead, "the free map's count")?;
        let mut extents = self.used.clone();
        for i in 0..free {
            extents.push((u64_at(block, 56 + 16 * i)?, u64_at(block, 64 + 16 * i)?));
        }
        for i in 0..dead {
            let at = 56 + 16 * free + 32 * i;
            extents.push((u64_at(block, at)?, u64_at(block, at + 8)?));
        }
        extents.sort_unstable();
        let mut at = 8192;
        for (offset, bytes) in extents {
            demand(offset == at && bytes > 0, "an extent is missing from the free map, or there twice")?;
            at = offset + bytes;
        }
        demand(at == self.file_bytes, "the free map does not reach the file's end")
    }
}

/// What a run makes of the rows below it, or a tree of none.
fn lay_over(rows: &mut Rows, entries: Entries, is_run: bool) -> Result<()> {
    for (key, row) in entries {
        match row {
            Row::Value(value) => drop(rows.insert(key, value)),
            _ if !is_run => return damage("a run's row in a tree"),
            Row::Removed => drop(rows.remove(&key)),
            Row::Added(more) => add(rows, key, more)?,
        }
    }
    Ok(())
}

fn add(rows: &mut Rows, key: Vec<u8>, more: i64) -> Result<()> {
    let number = match rows.get(&key) {
        Some(value) if value.len() != 8 => return damage("an add to what is no number"),
        Some(value) => i64::from_le_bytes(field(value, 0)?),
        None => 0,
    };
    rows.insert(key, number.wrapping_add(more).to_le_bytes().to_vec());
    Ok(())
}

/// Replays one transaction over the rows of all keyspaces.
fn apply(payload: &[u8], file: &[u8], all: &mut BTreeMap<u32, Rows>) -> Result<()> {
    let head: [u8; 4] = field(payload, 0)?;
    demand(head[0] == 1 && head[1] <= 1 && head[2..] == [0, 0], "a payload of another format")?;
    let (mut has_large, says_large) = (false, head[1] == 1);
    let mut at = 8;
    for _ in 0..u32_at(payload, 4)? {
        let op = field::<1>(payload, at)?[0];
        let keyspace = u32_at(payload, at + 1)?;
        let key_len = u16_at(payload, at + 5)?;
        let key = bytes_at(payload, at + 7, key_len)?.to_vec();
        at += 7 + key_len;
        let mut value = Vec::new();
        if op == 1 || op == 3 || (8..=11).contains(&op) {
            let len = u32_at(payload, at)? as usize;
            value = bytes_at(payload, at + 4, len)?.to_vec();
            at += 4 + len;
        }
        demand(keyspace != 0, "an operation on the catalogue itself")?;
        demand((keyspace >= BRANCHES) == (op >= 9), "an operation in a keyspace that is not for it")?;
        if op == 8 {
            has_large = true;
            value = pieces(&value, file)?;
        }
        let rows = all.entry(keyspace).or_default();
        if op == 5 {
            let kinds = field::<1>(payload, at)?[0];
            let len = u16_at(payload, at + 1)?;
            let end = bytes_at(payload, at + 3, len)?.to_vec();
            at += 3 + len;
            rows.retain(|row, _| !is_between(row, (kinds & 3, &key), (kinds >> 2, &end)));
            continue;
        }
        if op == 6 {
            let delta = i64::from_le_bytes(field(payload, at)?);
            at += 8;
            add(rows, key, delta)?;
            continue;
        }
        match op {
            1 | 8 | 9 | 11 => drop(all.entry(keyspace).or_default().insert(key, value)),
            2 | 10 => drop(all.entry(keyspace).or_default().remove(&key)),
            3 => drop(all.entry(0).or_default().insert(key, value)),
            4 => {
                all.entry(0).or_default().remove(&key);
                all.remove(&keyspace);
            }
            _ => return damage("an unknown operation"),
        }
    }
    demand(has_large == says_large, "what the flags say of op 8")?;
    demand(at == payload.len(), "bytes behind the last operation")
}

/// A value whose length, and the pointers to whose pieces, stand in the log.
fn pieces(list: &[u8], file: &[u8]) -> Result<Vec<u8>> {
    let (len, mut value) = (u64_at(list, 0)?, Vec::new());
    demand(list.len() > 8 && (list.len() - 8).is_multiple_of(32), "a list of pieces")?;
    for at in (8..list.len()).step_by(32) {
        let Some(piece) = Pointer::read(list, at)? else { return damage("no piece") };
        demand(piece.kind == 3, "a piece's pointer")?;
        let bytes = bytes_at(file, piece.offset as usize, piece.bytes as usize)?;
        demand(crc32(&[bytes]) == piece.checksum, "a piece's checksum")?;
        value.extend_from_slice(bytes);
    }
    demand(len > 0 && len.next_multiple_of(GRID) == value.len() as u64, "a value's pieces")?;
    value.truncate(len as usize);
    Ok(value)
}

/// Whether a range holds a row; bounds are 0 for none, 1 for one that is in the range, 2 for one that is not.
fn is_between(row: &[u8], (from, start): (u8, &[u8]), (to, end): (u8, &[u8])) -> bool {
    let starts = [true, row >= start, row > start][usize::from(from)];
    starts && [true, row <= end, row < end][usize::from(to)]
}

/// Reads a store: the rows of each keyspace that has a name.
pub fn read(data: &[u8], log_files: &Files) -> Result<BTreeMap<String, Rows>> {
    let superblock = superblock(data)?;
    demand(data.len() as u64 >= superblock.file_bytes, "the data file is short")?;
    let mut tree = Tree { file: data, file_bytes: superblock.file_bytes, used: Vec::new() };
    let (mut roots, mut entries) = (Rows::new(), Entries::new());
    if let Some(pointer) = &superblock.roots {
        tree.rows(pointer, superblock.generation, ROOTS, (b"", None), &mut entries)?;
    }
    lay_over(&mut roots, entries, false)?;
    let mut all: BTreeMap<u32, Rows> = BTreeMap::new();
    let mut count = 0;
    let mut has_runs = false;
    // A keyspace's tree comes first, then its runs, from the oldest on.
    for (key, value) in &roots {
        let id = u32::from_be_bytes(field(key, 0)?);
        let is_run = key.len() == 8;
        demand(key.len() == if is_run { 8 } else { 4 }, "a root's key")?;
        demand(value.len() == if is_run { 88 } else { 56 }, "a root's row")?;
        let Some(pointer) = Pointer::read(value, 0)? else { return damage("a root without a pointer") };
        let mut entries = Entries::new();
        tree.rows(&pointer, superblock.generation, id, (b"", None), &mut entries)?;
        if is_run {
            has_runs = true;
            let Some(filter) = Pointer::read(value, 56)? else { return damage("a run without a filter") };
            demand(filter.kind == 5, "a filter's pointer")?;
            let filter = tree.block(&filter, superblock.generation)?;
            demand(entries.keys().all(|key| filter_has(filter, key)), "a key that its filter lacks")?;
        }
        let recorded = u64_at(value, 32)?;
        let (bound, recorded) = (recorded >> 63 == 1, recorded & !(1 << 63));
        let found = entries.len() as u64;
        demand(found == recorded || bound && found < recorded, "a keyspace's number of rows")?;
        count += recorded;
        lay_over(all.entry(id).or_default(), entries, is_run)?;
    }
    demand(has_runs == superblock.has_runs, "runs, or none, against what the superblock says")?;
    demand(count == superblock.rows, "the number of rows")?;
    if let Some(pointer) = &superblock.free_map {
        tree.free_map(pointer, superblock.generation)?;
    }
    let log = log::read(log_files)?;
    demand(log.first <= superblock.checkpoint, "the log does not reach back to the superblock's checkpoint")?;
    let replay = superblock.checkpoint.max(superblock.applied);
    for record in log.records.iter().filter(|record| record.lsn >= replay) {
        demand(record.kind == 2, "a record of another kind")?;
        apply(&record.payload, data, &mut all)?;
    }
    let catalogue = all.remove(&0).unwrap_or_default();
    let mut named = BTreeMap::new();
    for (name, row) in catalogue {
        let name = String::from_utf8(name).map_err(|_| Refusal::Damage("a name".to_owned()))?;
        let is_bare = row.len() == 8 && row[..4] == [1, 0, 0, 0];
        let is_plain =
            row.len() == 16 && row[0] == 2 && row[1] <= 1 && row[2..4] == [0, 0] && u64_at(&row, 8)? == 0;
        demand(is_bare || is_plain, "a catalogue row of another format, or with other options")?;
        named.insert(name, all.remove(&u32_at(&row, 4)?).unwrap_or_default());
    }
    Ok(named)
}
