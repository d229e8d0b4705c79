//! One file's bytes, twice: as the system shows them, and as a power cut would leave them.
//!
//! ```text
//!   write ──▶ visible ────────────── reads
//!      └────▶ pending ─┬─ sync, durable write ──▶ durable ── what a crash keeps
//!                      └─ failed sync ──▶ stale: visible, but never durable
//! ```
//!
//! - F1: a pending write holds whole sectors, as they look after it; so a crash picks, for each sector, one value
//!   that it had since it was last durable.
//! - F2: bytes beyond a length, visible or durable, are zeros.
//! - F3: no pending write covers a sector that a *later* write has made durable.
//! - F4: a stale sector has no pending write; it shows `visible` to reads, and `durable` to reads of the device.

use super::ranges::RangeSet;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What a device writes in one piece.
pub(super) const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];

/// Sparse bytes, cheap to clone; pages of zeros are absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages(Arc<BTreeMap<u64, Arc<Page>>>);

impl Pages {
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        for (page, within, part) in parts(offset, buf.len()) {
            let target = &mut buf[part];
            match self.0.get(&page) {
                Some(bytes) => target.copy_from_slice(&bytes[within..within + target.len()]),
                None => target.fill(0),
            }
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let pages = Arc::make_mut(&mut self.0);
        for (page, within, part) in parts(offset, bytes.len()) {
            let source = &bytes[part];
            let is_zero = source.iter().all(|byte| *byte == 0);
            if is_zero && (source.len() as u64 == PAGE_BYTES || !pages.contains_key(&page)) {
                pages.remove(&page);
                continue;
            }
            let target = pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            Arc::make_mut(target)[within..within + source.len()].copy_from_slice(source);
        }
    }

    /// Forgets all bytes from `len` on.
    pub(super) fn cut(&mut self, len: u64) {
        // Above every offset that a call can have, and on the grid of pages.
        self.zero(len..1 << 63);
    }

    pub(super) fn zero(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first_whole = range.start.div_ceil(PAGE_BYTES);
        let end_whole = range.end / PAGE_BYTES;
        if first_whole >= end_whole {
            return self.write(&vec![0; (range.end - range.start) as usize], range.start);
        }
        let head = first_whole * PAGE_BYTES - range.start;
        let tail = range.end - end_whole * PAGE_BYTES;
        self.write(&vec![0; head as usize], range.start);
        self.write(&vec![0; tail as usize], end_whole * PAGE_BYTES);
        let whole: Vec<u64> = self.0.range(first_whole..end_whole).map(|(page, _)| *page).collect();
        if !whole.is_empty() {
            let pages = Arc::make_mut(&mut self.0);
            for page in whole {
                pages.remove(&page);
            }
        }
    }
}

/// Cuts a range of bytes at page borders: (page, offset within it, part of the buffer).
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let part = done..len.min(done + PAGE_BYTES as usize - within);
        done = part.end;
        Some((at / PAGE_BYTES, within, part))
    })
}

/// A write that no sync has covered yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// Its place in the order of all changes to the disk.
    pub(super) id: u64,
    pub(super) sectors: Range<u64>,
    /// The sectors' bytes, from `from` on; `None` for zeros.
    image: Option<Arc<[u8]>>,
    from: usize,
}

impl Pending {
    /// The part of it that covers `sectors`.
    pub(super) fn part(&self, sectors: Range<u64>) -> Pending {
        let from = self.from + ((sectors.start - self.sectors.start) * SECTOR_BYTES) as usize;
        Pending { id: self.id, sectors, image: self.image.clone(), from }
    }

    pub(super) fn apply(&self, target: &mut Pages) {
        let start = self.sectors.start * SECTOR_BYTES;
        let bytes = (self.sectors.end - self.sectors.start) * SECTOR_BYTES;
        match &self.image {
            Some(image) => target.write(&image[self.from..self.from + bytes as usize], start),
            None => target.zero(start..start + bytes),
        }
    }
}

/// A file's bytes and what is known of their durability.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) visible: Pages,
    pub(super) visible_len: u64,
    pub(super) durable: Pages,
    pub(super) durable_len: u64,
    /// In the order of their ids.
    pub(super) pending: Vec<Pending>,
    /// Lengths that the file had since its length was last durable, with the change that gave it.
    pub(super) lens: Vec<(u64, u64)>,
    /// Sectors whose newest bytes never reach the device.
    stale: RangeSet,
    /// Sectors that cannot be read until they are written.
    latent: RangeSet,
    /// Pages that the file system has given to this file.
    pub(super) allocated: RangeSet,
}

impl Content {
    /// A file whose bytes are all durable.
    pub(super) fn settled(bytes: Pages, len: u64) -> Content {
        Content {
            durable: bytes.clone(),
            visible: bytes,
            visible_len: len,
            durable_len: len,
            ..Content::default()
        }
    }

    /// Keeps, across a crash, what is a property of the medium.
    pub(super) fn inherit_medium(&mut self, old: &Content) {
        self.latent = old.latent.clone();
        for pages in old.allocated.within(&(0..self.visible_len.div_ceil(PAGE_BYTES))) {
            self.allocated.insert(pages);
        }
    }

    /// Writes bytes, not durable. `id` must be above all before.
    pub(super) fn write(&mut self, id: u64, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.visible.write(bytes, offset);
        self.allocated.insert(pages(&(offset..end)));
        self.grow(id, end);
        self.push(id, offset..end, false);
    }

    /// Fills a range with zeros, not durable; with `grow`, up to its end.
    pub(super) fn zero(&mut self, id: u64, range: Range<u64>, grow: bool) {
        if range.is_empty() {
            return;
        }
        self.visible.zero(range.clone());
        if grow {
            self.allocated.insert(pages(&range));
            self.grow(id, range.end);
        }
        let inner_start = range.start.next_multiple_of(SECTOR_BYTES);
        let inner_end = range.end - range.end % SECTOR_BYTES;
        if inner_start >= inner_end {
            return self.push(id, range, false);
        }
        self.push(id, range.start..inner_start, false);
        self.push(id, inner_start..inner_end, true);
        self.push(id, inner_end..range.end, false);
    }

    /// Sets the visible length.
    pub(super) fn set_len(&mut self, id: u64, len: u64) {
        let old = self.visible_len;
        if len < old {
            self.zero(id, len..old, false);
            self.allocated.remove(len.div_ceil(PAGE_BYTES)..u64::MAX);
        }
        if len != old {
            self.visible_len = len;
            self.lens.push((id, len));
        }
    }

    fn grow(&mut self, id: u64, len: u64) {
        if len > self.visible_len {
            self.visible_len = len;
            self.lens.push((id, len));
        }
    }

    /// Notes that the sectors of `range` (bytes) are to reach the device as they look now.
    fn push(&mut self, id: u64, range: Range<u64>, zeros: bool) {
        if range.is_empty() {
            return;
        }
        let sectors = sectors(&range);
        self.stale.remove(sectors.clone());
        self.latent.remove(sectors.clone());
        let image = (!zeros).then(|| {
            let mut image = vec![0; ((sectors.end - sectors.start) * SECTOR_BYTES) as usize];
            self.visible.read(&mut image, sectors.start * SECTOR_BYTES);
            image.into()
        });
        self.pending.push(Pending { id, sectors, image, from: 0 });
    }

    /// Completes the durable write `id`: its own range, and the length that reaches `end`. Nothing else.
    pub(super) fn make_durable(&mut self, id: u64, end: u64) {
        let (own, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.id == id);
        self.pending = others;
        for pending in &own {
            pending.apply(&mut self.durable);
            self.cover(&pending.sectors, id);
        }
        self.durable_len = self.durable_len.max(end.min(self.visible_len.max(self.durable_len)));
        let reached = self.durable_len.min(end);
        for (_, len) in &mut self.lens {
            *len = (*len).max(reached);
        }
        if self.lens.iter().all(|(_, len)| *len == self.durable_len) {
            self.lens.clear();
        }
    }

    /// F3: drops what was written to these sectors before `id`.
    fn cover(&mut self, sectors: &Range<u64>, id: u64) {
        if self.pending.iter().all(|p| p.id >= id || !overlaps(&p.sectors, sectors)) {
            return;
        }
        let mut kept = Vec::with_capacity(self.pending.len());
        for pending in std::mem::take(&mut self.pending) {
            if pending.id >= id || !overlaps(&pending.sectors, sectors) {
                kept.push(pending);
                continue;
            }
            let (start, end) = (pending.sectors.start, pending.sectors.end);
            if start < sectors.start {
                kept.push(pending.part(start..sectors.start));
            }
            if sectors.end < end {
                kept.push(pending.part(sectors.end..end));
            }
        }
        self.pending = kept;
    }

    /// Completes a sync that was asked for when `upto` was the newest change.
    pub(super) fn sync(&mut self, upto: u64) {
        let (covered, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|pending| pending.id <= upto);
        self.pending = later;
        for pending in &covered {
            pending.apply(&mut self.durable);
        }
        let newest = self.lens.iter().rev().find(|(id, _)| *id <= upto).map(|(_, len)| *len);
        if let Some(len) = newest {
            self.durable.cut(len);
            self.durable_len = len;
            self.lens.retain(|(id, _)| *id > upto);
        }
    }

    /// A sync that failed: those of the pending writes that `is_lost` names will never reach the device, though reads
    /// go on to show them (F4).
    pub(super) fn drop_pending(&mut self, mut is_lost: impl FnMut(&Pending) -> bool) -> u64 {
        let mut lost = 0;
        let mut kept: Vec<Pending> = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if is_lost(&pending) {
                lost += 1;
                self.stale.insert(pending.sectors.clone());
            } else {
                self.stale.remove(pending.sectors.clone());
                kept.push(pending);
            }
        }
        self.pending = kept;
        lost
    }

    /// A write that the device forgot: shown to reads, and nowhere else.
    pub(super) fn forget(&mut self, id: u64) {
        let own: Vec<Range<u64>> =
            self.pending.iter().filter(|p| p.id == id).map(|p| p.sectors.clone()).collect();
        self.pending.retain(|pending| pending.id != id);
        for sectors in own {
            self.cover(&sectors, id);
            self.stale.insert(sectors);
        }
    }

    /// Reads what the system shows, or what the device holds. `None`: a latent error.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64, from_device: bool) -> Option<usize> {
        let len = self.visible_len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let range = offset..offset + len as u64;
        let wanted = sectors(&range);
        if !self.latent.within(&wanted).is_empty() {
            return None;
        }
        self.visible.read(&mut buf[..len], offset);
        if from_device {
            for stale in self.stale.within(&wanted) {
                let start = (stale.start * SECTOR_BYTES).max(range.start);
                let end = (stale.end * SECTOR_BYTES).min(range.end);
                self.durable.read(&mut buf[(start - offset) as usize..(end - offset) as usize], start);
            }
        }
        Some(len)
    }

    /// Changes bytes at rest, in memory and on the medium alike.
    pub(super) fn patch(&mut self, bytes: &[u8], offset: u64) {
        let end = offset + bytes.len() as u64;
        self.allocated.insert(pages(&(offset..end)));
        for (target, len) in
            [(&mut self.visible, &mut self.visible_len), (&mut self.durable, &mut self.durable_len)]
        {
            target.write(bytes, offset);
            *len = (*len).max(end);
        }
        let covered = sectors(&(offset..end));
        self.cover(&covered, u64::MAX);
        self.latent.remove(covered);
    }

    /// Cuts or extends the file at rest.
    pub(super) fn patch_len(&mut self, len: u64) {
        self.set_len(u64::MAX, len);
        let own: Vec<Range<u64>> =
            self.pending.iter().filter(|p| p.id == u64::MAX).map(|p| p.sectors.clone()).collect();
        for sectors in own {
            self.cover(&sectors, u64::MAX);
        }
        self.pending.retain(|pending| pending.id != u64::MAX);
        self.lens.clear();
        self.durable.cut(len);
        self.durable_len = len;
    }

    pub(super) fn make_unreadable(&mut self, range: Range<u64>) {
        self.latent.insert(sectors(&range));
    }

    /// How many pages a write to this range would newly take.
    pub(super) fn pages_needed(&self, range: &Range<u64>) -> u64 {
        let pages = pages(range);
        pages.end - pages.start - self.allocated.count_within(&pages)
    }
}

fn overlaps(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The sectors that a range of bytes touches.
pub(super) fn sectors(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES)
}

/// The pages that a range of bytes touches.
pub(super) fn pages(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
}
