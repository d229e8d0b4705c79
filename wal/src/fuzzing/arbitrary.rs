//! A log made of nothing but the fuzzer's bytes.

use super::opened::{look, show};
use super::{Files, Input, seal};
use crate::Lsn;
use crate::anchor::{Anchor, FILE_BYTES};
use crate::disk::BLOCK_BYTES;
use crate::frame::{self, Flags, HEADER_BYTES};
use crate::log::Repair;
use crate::record;
use crate::segment::{self, Predecessor, SEGMENT_BYTES_MIN};

const STORE_ID: [u8; 16] = [7; 16];
const PATCHES_MAX: usize = 64;

/// An anchor and one to three segment files of 64 KiB: well-formed in part, as the input says, with arbitrary bytes
/// all over. Opened in every [`Repair`] mode and read to the end.
pub fn recovery_arbitrary(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.u8();
    let mut files = Files::default();
    let numbers = 1 + input.below(3);
    let base = if how & 4 == 0 { 1 } else { number(&mut input) };
    files.0.insert("log/anchor".to_owned(), anchor(&mut input, base, how & 1 == 0));
    for index in 0..numbers as u64 {
        let number = base.saturating_add(index);
        let bytes = segment_file(&mut input, number, (index > 0).then(|| number - 1), how & 2 == 0);
        files.0.insert(format!("log/{}", segment::file_name(number)), bytes);
    }
    patch(&mut files, &mut input);
    if how & 8 == 0 {
        seal::log(&mut files);
    }
    for repair in [Repair::Refuse, Repair::TornTail, Repair::TruncateAtFirstError] {
        let refused = show(&files, repair, how & 16 == 0).is_none();
        if repair == Repair::TornTail && refused {
            // What may not be written to may not be shown either.
            assert!(look(&files).is_none(), "shown, though it was refused for writing");
        }
    }
}

/// A segment's number: mostly small, sometimes at the end of all positions.
fn number(input: &mut Input<'_>) -> u64 {
    let near = u64::from(input.u8());
    match input.u8() % 4 {
        0 => near,
        1 => (u64::MAX / SEGMENT_BYTES_MIN).saturating_sub(near),
        2 => u64::MAX - near,
        _ => input.u64(),
    }
}

fn anchor(input: &mut Input<'_>, base: u64, is_valid: bool) -> Vec<u8> {
    let mut bytes = vec![0; FILE_BYTES];
    if !is_valid {
        return bytes;
    }
    let first = Lsn(base.saturating_mul(SEGMENT_BYTES_MIN)).plus(BLOCK_BYTES as u64);
    let durable = input.u8();
    for sequence in [0, 1] {
        let anchor = Anchor {
            store_id: STORE_ID,
            sequence,
            segment_bytes: SEGMENT_BYTES_MIN,
            write_method: 0,
            first,
            epoch: 0,
            durable: Lsn(u64::from(durable & 0x7f) * 512),
            replica_durable: Lsn::ZERO,
            is_replica: false,
            promised: 0,
            history: Default::default(),
            rewinding: Lsn::ZERO,
            clean: durable & 0x80 != 0,
            closed: None,
        };
        crate::bytes::put(&mut bytes, anchor.offset() as usize, &anchor.encode());
    }
    bytes
}

/// A header, and a few frames whose payloads are the input's bytes.
fn segment_file(input: &mut Input<'_>, number: u64, before: Option<u64>, is_valid: bool) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT_BYTES_MIN as usize];
    if !is_valid {
        return bytes;
    }
    let end = Lsn(number.saturating_mul(SEGMENT_BYTES_MIN)).0.saturating_sub(u64::from(input.u8()) * 256);
    let header = segment::Header {
        store_id: STORE_ID,
        number,
        segment_bytes: SEGMENT_BYTES_MIN,
        salt: number,
        predecessor: before.map(|before| Predecessor {
            number: before,
            salt: before,
            end: Lsn(end),
            checksum: 0,
            cut: None,
        }),
        durable: Lsn::ZERO,
        epoch: 0,
    };
    crate::bytes::put(&mut bytes, 0, &header.encode().0);
    let mut at = BLOCK_BYTES;
    for _ in 0..input.below(5) {
        let flags = Flags([0, 0, 0, 1, 2, 4, 8, 16][input.below(8)]);
        let payload = payload(input, flags);
        let lsn = Lsn(number.saturating_mul(SEGMENT_BYTES_MIN)).plus(at as u64);
        let Some(place) = bytes.get_mut(at..at + frame::padded(payload.len())) else { break };
        crate::bytes::put(place, HEADER_BYTES, &payload);
        let header = frame::Header {
            checksum: 0,
            salt: number,
            lsn,
            durable: Lsn::ZERO,
            length: payload.len() as u32,
            records: u32::from(matches!(flags, Flags::NONE | Flags::FIRST)),
            previous: 0,
            flags,
        };
        frame::finish(place, &header);
        at += place.len();
    }
    bytes
}

fn payload(input: &mut Input<'_>, flags: Flags) -> Vec<u8> {
    let len = usize::from(input.u8()) * 40;
    if flags == Flags::SEAL {
        return Vec::new();
    }
    let content = input.take(8);
    let header = record::Header { length: len as u32, kind: record::Kind::RECORD, group: 0, time_us: 5 };
    let mut payload =
        if matches!(flags, Flags::NONE | Flags::FIRST) { header.encode().to_vec() } else { Vec::new() };
    payload.extend(content.iter().copied().cycle().take(if content.is_empty() { 0 } else { len }));
    payload
}

/// Writes the rest of the input over the files, piece by piece.
fn patch(files: &mut Files, input: &mut Input<'_>) {
    let paths: Vec<String> = files.0.keys().cloned().collect();
    for _ in 0..PATCHES_MAX {
        if input.is_empty() {
            break;
        }
        let Some(file) = paths.get(input.below(paths.len())).and_then(|path| files.0.get_mut(path)) else {
            break;
        };
        let at = usize::from(input.u16()) % file.len().max(1);
        let at = if input.u8() & 1 == 0 { at } else { at - at % BLOCK_BYTES };
        let len = input.below(64);
        let piece = input.take(len);
        let Some(place) = file.get_mut(at..) else { continue };
        let len = place.len().min(piece.len());
        place[..len].copy_from_slice(&piece[..len]);
    }
}
