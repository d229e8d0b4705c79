//! A reader of logs written from `docs/format/wal.md` alone: it shares no line with `seawall-wal`. Where the two do not
//! agree, one of them, or the document, is wrong.

use std::collections::BTreeMap;

const BLOCK: usize = 4096;
const NO: u64 = u64::MAX;

/// The files of a log's directory, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub lsn: u64,
    pub end: u64,
    pub kind: u8,
    pub group: u64,
    pub time_us: u64,
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    CleanEnd,
    TornTail,
}

#[derive(Debug)]
pub struct Log {
    pub records: Vec<Record>,
    pub verdict: Verdict,
    pub first: u64,
    pub end: u64,
    pub segments: Vec<u64>,
    pub clean: bool,
    pub seals: usize,
    pub cut_units: usize,
    pub cut_over_segments: usize,
}

#[derive(Debug)]
#[expect(dead_code, reason = "what a refusal says is for people")]
pub enum Refusal {
    Damage(String),
    Version(u32),
}

type Result<T> = std::result::Result<T, Refusal>;

fn damage<T>(what: impl Into<String>) -> Result<T> {
    Err(Refusal::Damage(what.into()))
}

pub fn crc32(ranges: &[&[u8]]) -> u32 {
    let mut table = [0u32; 256];
    for (i, entry) in table.iter_mut().enumerate() {
        *entry = (0..8).fold(i as u32, |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 });
    }
    let bytes = ranges.iter().flat_map(|range| range.iter());
    !bytes.fold(!0u32, |c, b| table[((c ^ u32::from(*b)) & 0xFF) as usize] ^ (c >> 8))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A whole block of an anchor or a header, of a version and features that are known.
fn known<'a>(
    block: Option<&'a [u8]>,
    magic: &[u8; 8],
    field: (usize, u32),
    features: u64,
) -> Result<Option<&'a [u8]>> {
    let Some(block) = block else { return Ok(None) };
    if &block[..8] != magic || u32_at(block, 12) != crc32(&[&block[..12], &block[16..]]) {
        return Ok(None);
    }
    let version = u32_at(block, 8);
    if version != 1 || u64_at(block, 24) & !features != 0 || u32_at(block, field.0) != field.1 {
        return Err(Refusal::Version(version));
    }
    Ok(Some(block))
}

struct Anchor {
    store: [u8; 16],
    segment_bytes: u64,
    first: u64,
    durable: u64,
    clean: bool,
    /// End, last frame's place and its checksum, if a clean close noted them.
    closed: Option<(u64, u64, u32)>,
}

fn anchor(file: &[u8]) -> Result<Anchor> {
    let mut best: Option<&[u8]> = None;
    let mut whole = 0;
    for slot in 0..2 {
        let block = file.get(slot * BLOCK..(slot + 1) * BLOCK);
        if block.is_none_or(|block| &block[..8] != b"SEAWALAN") {
            return damage("a slot of the anchor was none");
        }
        let Some(block) = known(block, b"SEAWALAN", (64, 4096), 0)? else { continue };
        let sequence = u64_at(block, 48);
        if sequence % 2 == slot as u64 {
            whole += 1;
            best = best.filter(|best| u64_at(best, 48) > sequence).or(Some(block));
        }
    }
    let Some(block) = best else { return damage("no whole slot in the anchor") };
    let flags = if whole == 2 { u32_at(block, 104) } else { 0 };
    Ok(Anchor {
        store: block[32..48].try_into().unwrap(),
        segment_bytes: u64_at(block, 56),
        first: u64_at(block, 72),
        durable: u64_at(block, 88),
        clean: flags & 1 == 1,
        closed: (flags & 3 == 3).then(|| (u64_at(block, 112), u64_at(block, 120), u32_at(block, 108))),
    })
}

#[derive(Clone, Copy)]
struct Segment<'a> {
    number: u64,
    file: &'a [u8],
    salt: u64,
    checksum: u32,
    predecessor: Option<(u64, u64, u64, u32)>,
    /// Where the log was cut, and whether that is within a unit.
    cut: Option<(u64, bool)>,
    durable: u64,
}

fn begun<'a>(number: u64, file: &'a [u8], anchor: &Anchor) -> Result<Option<Segment<'a>>> {
    let Some(block) = known(file.get(..BLOCK), b"SEAWALSG", (112, 1), 1)? else { return Ok(None) };
    if u64_at(block, 48) != number {
        return Ok(None);
    }
    if block[32..48] != anchor.store || u64_at(block, 56) != anchor.segment_bytes {
        return damage(format!("segment {number} is of another log"));
    }
    let predecessor = (u64_at(block, 72), u64_at(block, 80), u64_at(block, 88), u32_at(block, 116));
    let cut = (u64_at(block, 120), u64_at(block, 24) & 1 == 1);
    Ok(Some(Segment {
        number,
        file,
        salt: u64_at(block, 64),
        checksum: u32_at(block, 12),
        predecessor: (predecessor.0 != NO).then_some(predecessor),
        cut: (predecessor.0 != NO && cut != (0, false)).then_some(cut),
        durable: u64_at(block, 96),
    }))
}

#[derive(Clone, Copy)]
struct Frame<'a> {
    checksum: u32,
    salt: u64,
    lsn: u64,
    durable: u64,
    records: u32,
    chain: u32,
    flags: u16,
    payload: &'a [u8],
}

impl Frame<'_> {
    fn bytes(&self) -> u64 {
        (64 + self.payload.len()).next_multiple_of(BLOCK) as u64
    }
}

enum At<'a> {
    Stands(Frame<'a>),
    /// A header that is one, over a payload that does not match: its salt, LSN and durable LSN.
    Torn(u64, u64, u64),
    Blank,
    Other,
}

fn frame_at(file: &[u8], offset: usize) -> At<'_> {
    let Some(head) = file.get(offset..offset + 64) else { return At::Other };
    if head.iter().all(|b| *b == 0) {
        return At::Blank;
    }
    let (length, flags) = (u32_at(head, 32) as usize, u16_at(head, 48));
    let is_header = &head[4..8] == b"SWFR"
        && u32_at(head, 44) == crc32(&[&head[4..44], &head[48..64]])
        && length <= 4_194_240
        && [0, 1, 2, 4, 8].contains(&flags);
    if !is_header {
        return At::Other;
    }
    let torn = At::Torn(u64_at(head, 8), u64_at(head, 16), u64_at(head, 24));
    let end = offset + 64 + length;
    if file.len() < end.next_multiple_of(BLOCK) || crc32(&[&file[offset + 4..end]]) != u32_at(head, 0) {
        return torn;
    }
    At::Stands(Frame {
        checksum: u32_at(head, 0),
        salt: u64_at(head, 8),
        lsn: u64_at(head, 16),
        durable: u64_at(head, 24),
        records: u32_at(head, 36),
        chain: u32_at(head, 40),
        flags,
        payload: &file[offset + 64..end],
    })
}

/// A unit in the making: its pieces' places in the joined payload.
#[derive(Default)]
struct Unit {
    bytes: Vec<u8>,
    pieces: Vec<(usize, u64)>,
    records: u32,
    segments: Vec<u64>,
}

impl Unit {
    fn lsn_of(&self, at: usize) -> u64 {
        let (start, lsn) = *self.pieces.iter().rfind(|(start, _)| *start <= at).unwrap();
        lsn + 64 + (at - start) as u64
    }

    /// How many records stand in it.
    fn count(&self) -> u32 {
        let (mut at, mut count) = (0, 0);
        while at + 24 <= self.bytes.len() {
            at += 24 + u32_at(&self.bytes, at) as usize;
            count += 1;
        }
        count
    }

    fn records(&self) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        let mut at = 0;
        while at < self.bytes.len() {
            let head = self.bytes.get(at..at + 24)?;
            let end = at + 24 + u32_at(head, 0) as usize;
            if head[4] == 0 || head[5..8] != [0; 3] {
                return None;
            }
            records.push(Record {
                lsn: self.lsn_of(at),
                end: self.lsn_of(end - 1) + 1,
                kind: head[4],
                group: u64_at(head, 8),
                time_us: u64_at(head, 16),
                payload: self.bytes.get(at + 24..end)?.to_vec(),
            });
            at = end;
        }
        (records.len() as u32 == self.records && self.records > 0).then_some(records)
    }
}

/// Reads a log, or says why not.
pub fn read(files: &Files) -> Result<Log> {
    let Some(file) = files.get("anchor") else { return damage("no anchor: no log") };
    let anchor = anchor(file)?;
    let segments: BTreeMap<u64, &Vec<u8>> =
        files.iter().filter_map(|(name, file)| Some((number_of(name)?, file))).collect();
    let mut all = BTreeMap::new();
    for (number, file) in &segments {
        if let Some(segment) = begun(*number, file, &anchor)? {
            all.insert(*number, segment);
        }
    }
    let path = path_back(&all, &anchor)?;
    let mut walk = Walk::new(&anchor, all.values().map(|segment| segment.durable).max());
    for (i, segment) in path.iter().enumerate() {
        let successor = path.get(i + 1).and_then(|next| next.predecessor);
        if let Some((_, _, end, checksum)) = successor {
            walk.inner(segment, end, checksum)?;
            if let Some((cut, true)) = path[i + 1].cut {
                walk.cut(cut);
            }
        } else {
            walk.last(segment, &segments, &all)?;
        }
    }
    walk.log.segments = path.iter().map(|segment| segment.number).collect();
    Ok(walk.log)
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    let is_hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_hex.then(|| u64::from_str_radix(digits, 16).unwrap())
}

fn path_back<'a>(all: &BTreeMap<u64, Segment<'a>>, anchor: &Anchor) -> Result<Vec<Segment<'a>>> {
    let Some(mut segment) = all.values().next_back().copied() else { return damage("no segment is begun") };
    let mut path = vec![segment];
    while let Some((number, salt, end, _)) = segment.predecessor {
        if let Some((cut, splits)) = segment.cut {
            let first = number * anchor.segment_bytes + BLOCK as u64;
            if cut > segment.number * anchor.segment_bytes || splits && !(first < cut && cut <= end) {
                return damage(format!("segment {} cuts the log at {cut}", segment.number));
            }
        }
        if anchor.first >= end || anchor.first >= segment.number * anchor.segment_bytes {
            break;
        }
        match all.get(&number) {
            Some(before) if before.salt == salt && number < segment.number => segment = *before,
            _ => return damage(format!("segment {number}, the predecessor of another, is not there")),
        }
        path.push(segment);
    }
    path.reverse();
    Ok(path)
}

struct Walk<'a> {
    anchor: &'a Anchor,
    promised: u64,
    unit: Option<Unit>,
    /// Whether pieces may still stand before the first whole unit.
    leading: bool,
    log: Log,
}

/// Where a segment's frames stopped: position, checksum of the last, how many.
struct Stop {
    at: u64,
    checksum: u32,
    frames: usize,
    torn: bool,
}

impl<'a> Walk<'a> {
    fn new(anchor: &'a Anchor, headers: Option<u64>) -> Walk<'a> {
        Walk {
            anchor,
            promised: anchor.durable.max(anchor.first).max(headers.unwrap_or(0)),
            unit: None,
            leading: true,
            log: Log {
                records: Vec::new(),
                verdict: Verdict::CleanEnd,
                first: anchor.first,
                end: 0,
                segments: Vec::new(),
                clean: anchor.clean,
                seals: 0,
                cut_units: 0,
                cut_over_segments: 0,
            },
        }
    }

    fn frames(&mut self, segment: &Segment<'_>, end: Option<u64>) -> Stop {
        let start = segment.number * self.anchor.segment_bytes;
        let mut stop = Stop { at: start + BLOCK as u64, checksum: segment.checksum, frames: 0, torn: false };
        while end.is_none_or(|end| stop.at < end) && stop.at < start + self.anchor.segment_bytes {
            match frame_at(segment.file, (stop.at - start) as usize) {
                At::Stands(frame) if frame.salt == segment.salt && frame.lsn == stop.at => {
                    if frame.chain != stop.checksum || !self.take(&frame, segment.number) {
                        stop.torn = true;
                        break;
                    }
                    self.promised = self.promised.max(frame.durable);
                    stop.checksum = frame.checksum;
                    stop.at += frame.bytes();
                    stop.frames += 1;
                }
                At::Torn(salt, lsn, _) if salt == segment.salt && lsn == stop.at => {
                    stop.torn = true;
                    break;
                }
                _ => break,
            }
        }
        stop
    }

    /// Adds a frame to the records; false if it is out of sequence or does not parse.
    fn take(&mut self, frame: &Frame<'_>, number: u64) -> bool {
        let is_piece = frame.flags == 2 || frame.flags == 4;
        if is_piece && self.leading && self.unit.is_none() && frame.lsn < self.anchor.first {
            return true;
        }
        if is_piece != self.unit.is_some() {
            return false;
        }
        self.leading = false;
        if frame.flags == 8 {
            self.log.seals += 1;
            return frame.payload.is_empty() && frame.records == 0;
        }
        let unit = self.unit.get_or_insert_default();
        unit.pieces.push((unit.bytes.len(), frame.lsn));
        unit.bytes.extend_from_slice(frame.payload);
        unit.records += frame.records;
        unit.segments.push(number);
        if frame.flags == 1 || frame.flags == 2 {
            return true;
        }
        let unit = self.unit.take().unwrap();
        let Some(records) = unit.records() else { return false };
        self.log.cut_units += usize::from(unit.pieces.len() > 1);
        self.log.cut_over_segments += usize::from(unit.segments.first() != unit.segments.last());
        self.log.records.extend(records.into_iter().filter(|record| record.lsn >= self.anchor.first));
        true
    }

    fn inner(&mut self, segment: &Segment<'_>, end: u64, checksum: u32) -> Result<()> {
        let stop = self.frames(segment, Some(end));
        let is_whole = stop.at == end || (stop.frames == 0 && stop.at > end);
        if !is_whole || (stop.frames > 0 && checksum != 0 && stop.checksum != checksum) {
            return damage(format!("segment {} ends at {}, not at {end}", segment.number, stop.at));
        }
        Ok(())
    }

    /// The log was cut within a unit: the records before stay.
    fn cut(&mut self, cut: u64) {
        if let Some(mut unit) = self.unit.take() {
            let (start, lsn) = *unit.pieces.iter().rfind(|(_, lsn)| lsn + 64 < cut).unwrap();
            unit.bytes.truncate(start + (cut - lsn - 64) as usize);
            unit.records = unit.count();
            self.log.records.extend(unit.records().unwrap_or_default());
            self.log.records.retain(|record| record.lsn >= self.anchor.first);
        }
        self.log.records.retain(|record| record.lsn < cut);
    }

    fn last(
        &mut self,
        segment: &Segment<'_>,
        files: &BTreeMap<u64, &Vec<u8>>,
        all: &BTreeMap<u64, Segment<'_>>,
    ) -> Result<()> {
        let stop = self.frames(segment, None);
        let unfinished = self.unit.as_ref().map(|unit| unit.pieces[0].1);
        let end = unfinished.unwrap_or(stop.at);
        let size = self.anchor.segment_bytes;
        if files.range(segment.number..).any(|(_, file)| (file.len() as u64) < size) {
            return damage("a segment file is cut short");
        }
        let mut behind = false;
        let is_closed = match self.anchor.closed {
            Some((end, last, checksum)) => {
                let is_end =
                    (end, checksum) == (stop.at, stop.checksum) && !stop.torn && unfinished.is_none();
                assert!(!is_end || (last == 0) == (stop.frames == 0), "the last frame is another");
                is_end && !files.range(segment.number + 1..).any(|(number, file)| {
                    let first = number * size + BLOCK as u64;
                    matches!(frame_at(file, BLOCK), At::Stands(Frame { lsn, .. }) | At::Torn(_, lsn, _) if lsn == first)
                })
            }
            None => self.anchor.clean,
        };
        self.log.clean = is_closed;
        if !is_closed {
            let offset = (stop.at - segment.number * size) as usize;
            for at in (offset..size as usize).step_by(BLOCK) {
                let (salt, lsn, durable) = match frame_at(segment.file, at) {
                    At::Stands(frame) => (frame.salt, frame.lsn, frame.durable),
                    At::Torn(salt, lsn, durable) => (salt, lsn, durable),
                    _ => continue,
                };
                if salt == segment.salt {
                    behind |= lsn == segment.number * size + at as u64;
                    self.promised = self.promised.max(durable);
                }
            }
            self.broken_successor(segment.number + 1, files, all)?;
        }
        if self.promised > end {
            return damage(format!("the log ends at {end}, and {} was promised", self.promised));
        }
        self.log.end = end;
        if stop.torn || unfinished.is_some() || behind {
            self.log.verdict = Verdict::TornTail;
        }
        Ok(())
    }

    fn broken_successor(
        &self,
        number: u64,
        files: &BTreeMap<u64, &Vec<u8>>,
        all: &BTreeMap<u64, Segment<'_>>,
    ) -> Result<()> {
        let Some(file) = files.get(&number).filter(|_| !all.contains_key(&number)) else { return Ok(()) };
        let start = number * self.anchor.segment_bytes;
        for at in (BLOCK..file.len()).step_by(BLOCK) {
            if matches!(frame_at(file, at), At::Stands(frame) if frame.lsn == start + at as u64) {
                return damage(format!("segment {number} holds frames under a broken header"));
            }
        }
        Ok(())
    }
}
