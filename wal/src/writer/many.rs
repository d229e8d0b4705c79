//! Several large frames at once: while the device takes one, the next one's checksum is computed.
//!
//! They are submitted in LSN order and complete in any. Nothing of them is acknowledged before all have, and a sync
//! after that: a crash leaves any of them, and recovery takes those before the first that is missing. All carry the
//! durable LSN from before the first, so none of them proves another.

use super::{Live, Writer};
use crate::Lsn;
use crate::buf::AlignedBuf;
use crate::commit::Batch;
use crate::disk::{Completion, Op};
use crate::error::{Result, is_disk_full};
use crate::frame;
use crate::mutation::Mutation;
use crate::segment::Geometry;
use std::sync::Arc;

/// Fewer bytes than this are written one after another: the system's part of a small write is not worth handing over.
const BYTES_MIN: usize = 512 << 10;
/// Frames in flight at a time: as many as are gathered while appenders are not held up.
const DEPTH: usize = 4;

impl Writer {
    /// Whether these batches, all of one segment, are better written side by side.
    pub(super) fn are_many(batches: &[Batch], geometry: Geometry) -> bool {
        // A log of small segments has small groups.
        let bytes_min = BYTES_MIN.min(geometry.segment_bytes as usize / 8);
        batches.len() > 1 && batches.iter().map(|batch| batch.len).sum::<usize>() >= bytes_min
    }

    /// Writes batches of the live segment, all of them reaped when it returns, none of them durable.
    pub(super) fn write_many(&self, live: &mut Live, batches: &mut [Batch], claim: Lsn) -> Result<()> {
        let held = self.queue.lock().take();
        let Ok(mut queue) = held.map_or_else(|| self.disk.queue(DEPTH), Ok) else {
            // No memory for a queue, or no descriptor: nothing was written yet.
            return batches.iter_mut().try_for_each(|batch| self.write_one(live, batch, false, claim));
        };
        let mut failure = None;
        let mut first_token = None;
        let mut done: Vec<Completion> = Vec::with_capacity(batches.len());
        let mut chains = Vec::with_capacity(batches.len());
        live.unsynced = true;
        for batch in batches.iter_mut() {
            chains.push(live.chain());
            let (header, len) = self.finish_frame(live, batch, claim);
            let offset = self.geometry.offset(batch.base);
            let empty = AlignedBuf::zeroed(0)
                .map_err(|source| self.error("map memory for", live.number, None, source));
            let submitted = empty.and_then(|empty| {
                let buf = std::mem::replace(&mut batch.buf, empty);
                let op = Op::Write { file: Arc::clone(&live.file), offset, buf, len, durable: false };
                queue
                    .submit(vec![op])
                    .map_err(|source| self.error("write", live.number, Some(offset), source))
            });
            match submitted {
                Ok(token) => first_token = first_token.or(Some(token)),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
            self.note_written(live, batch, &header, len, claim);
        }
        if self.mutation == Some(Mutation::AcknowledgeOutOfOrder) && queue.reap(1, &mut done).is_ok() {
            self.sync(live)?;
        }
        let in_flight = queue.in_flight();
        if let Err(source) = queue.reap(in_flight, &mut done) {
            return Err(self.error("write", live.number, None, source));
        }
        // The first that lacked room, while nothing else has failed.
        let mut unwritten = None;
        let mut lacked_room_only = failure.is_none();
        for Completion { token, result, buf, .. } in done {
            let index = (token - first_token.unwrap_or_default()) as usize;
            let Some(batch) = batches.get_mut(index) else { continue };
            match buf {
                Some(buf) => batch.buf = buf,
                None => lacked_room_only = false,
            }
            if let Err(source) = result {
                lacked_room_only &= is_disk_full(&source);
                unwritten = unwritten.into_iter().chain([index]).min();
                let offset = self.geometry.offset(batch.base);
                failure.get_or_insert(self.error("write", live.number, Some(offset), source));
            }
        }
        *self.queue.lock() = Some(queue);
        if let Some(index) = unwritten.filter(|_| lacked_room_only)
            && let (Some(batch), Some(chain)) = (batches.get(index), chains.get(index))
        {
            live.go_back(*chain);
            *self.unwritten.lock() = Some(batch.base);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Fills in the frame's header. Returns it, and the bytes that go to the file.
    pub(super) fn finish_frame(
        &self,
        live: &mut Live,
        batch: &mut Batch,
        claim: Lsn,
    ) -> (frame::Header, usize) {
        let header = frame::Header {
            checksum: 0,
            salt: live.salt,
            lsn: batch.base,
            durable: claim,
            length: (batch.len - frame::HEADER_BYTES) as u32,
            records: batch.records,
            previous: live.checksum,
            flags: batch.flags,
        };
        live.checksum = frame::finish(&mut batch.buf, &header);
        let len = header.padded_bytes();
        (header, len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a test may")]

    use super::*;

    #[test]
    fn small_groups_are_not_worth_it() {
        let geometry = Geometry { segment_bytes: 64 << 20 };
        let batch = |seq, len| {
            let buf = AlignedBuf::zeroed(4096).unwrap_or_else(|error| panic!("{error}"));
            Batch { len, ..Batch::new(seq, geometry.first_frame(1), buf, geometry) }
        };
        assert!(!Writer::are_many(&[batch(1, 4 << 20)], geometry));
        assert!(!Writer::are_many(&[batch(1, 5000), batch(2, 300)], geometry));
        assert!(Writer::are_many(&[batch(1, 4 << 20), batch(2, 300)], geometry));
    }
}
