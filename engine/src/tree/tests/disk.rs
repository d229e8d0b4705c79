//! A file in memory: it keeps apart what is durable, counts and fails calls, and has a capacity.

use super::Rng;
use parking_lot::Mutex;
use seawall_wal::DiskFile;
use seawall_wal::disk::Lock;
use std::io;

#[derive(Debug, Default)]
pub(super) struct MemFile(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
    changes: u64,
    fail_at: Option<(u64, io::ErrorKind, bool)>,
    capacity: Option<u64>,
    written: u64,
    writes: u64,
    syncs: u64,
}

fn place(bytes: &mut Vec<u8>, offset: u64, with: &[u8]) {
    let end = offset as usize + with.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset as usize..end].copy_from_slice(with);
}

impl State {
    /// Counts a changing call and fails it if its time has come.
    fn changing(&mut self) -> io::Result<()> {
        self.changes += 1;
        match self.fail_at {
            Some((at, kind, for_ever)) if self.changes == at || (for_ever && self.changes > at) => {
                Err(kind.into())
            }
            _ => Ok(()),
        }
    }
    fn room(&self, end: u64) -> io::Result<()> {
        let is_over = self.capacity.is_some_and(|capacity| end.max(self.bytes.len() as u64) > capacity);
        if is_over && end > self.bytes.len() as u64 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl MemFile {
    pub(super) fn with_bytes(bytes: Vec<u8>) -> MemFile {
        MemFile(Mutex::new(State { durable: bytes.clone(), bytes, ..State::default() }))
    }
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.lock().bytes.clone()
    }
    pub(super) fn size(&self) -> u64 {
        self.0.lock().bytes.len() as u64
    }
    /// Changing calls so far: writes, syncs, allocations, cuts.
    pub(super) fn changes(&self) -> u64 {
        self.0.lock().changes
    }
    /// Makes the changing call of that number fail, and with `for_ever` all after it.
    pub(super) fn fail_at(&self, call: u64, kind: io::ErrorKind, for_ever: bool) {
        self.0.lock().fail_at = Some((call, kind, for_ever));
    }
    pub(super) fn mend(&self) {
        self.0.lock().fail_at = None;
    }
    pub(super) fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }
    /// Bytes and calls of writes so far; zeroing not counted.
    pub(super) fn written(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.written, state.writes)
    }
    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }
    /// What the device holds after a power cut: what was synced, and any part of what was not, torn at 512 bytes.
    pub(super) fn power_cut(&self, rng: &mut Rng) -> MemFile {
        let state = self.0.lock();
        let mut bytes = state.durable.clone();
        let keep_all = rng.one_in(4);
        for (offset, write) in &state.pending {
            for (index, sector) in write.chunks(512).enumerate() {
                if keep_all || rng.one_in(2) {
                    place(&mut bytes, offset + 512 * index as u64, sector);
                }
            }
        }
        MemFile::with_bytes(bytes)
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.0.lock();
        let from = (offset as usize).min(state.bytes.len());
        let len = buf.len().min(state.bytes.len() - from);
        buf[..len].copy_from_slice(&state.bytes[from..from + len]);
        Ok(len)
    }
    fn read_device_at(&self, buf: &mut [u8], offset: u64) -> io::Result<(usize, bool)> {
        Ok((self.read_at(buf, offset)?, false))
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.changing()?;
        state.room(offset + buf.len() as u64)?;
        place(&mut state.bytes, offset, buf);
        state.pending.push((offset, buf.to_vec()));
        state.written += buf.len() as u64;
        state.writes += 1;
        Ok(())
    }
    fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        if let Err(error) = state.changing() {
            // It may have reached the device all the same.
            state.pending.push((offset, buf.to_vec()));
            return Err(error);
        }
        place(&mut state.bytes, offset, buf);
        place(&mut state.durable, offset, buf);
        state.written += buf.len() as u64;
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.changing()?;
        let State { bytes, durable, pending, .. } = &mut *state;
        durable.resize(bytes.len(), 0);
        for (offset, write) in pending.drain(..) {
            let end = (write.len()).min(bytes.len().saturating_sub(offset as usize));
            place(durable, offset, &write[..end]);
        }
        state.syncs += 1;
        Ok(())
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.changing()?;
        state.room(offset + bytes)?;
        let zeros = vec![0; bytes as usize];
        place(&mut state.bytes, offset, &zeros);
        state.pending.push((offset, zeros));
        Ok(())
    }
    fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.changing()?;
        let zeros = vec![0; bytes as usize];
        place(&mut state.bytes, offset, &zeros);
        state.pending.push((offset, zeros));
        Ok(())
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.changing()?;
        state.bytes.resize(bytes as usize, 0);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().bytes.len() as u64)
    }
    fn try_lock(&self, _: Lock) -> io::Result<bool> {
        Ok(true)
    }
}
