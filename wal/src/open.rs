//! Opening a log: what is on the disk, read, judged by the table of [`crate::recovery`], and made fit to build upon.
//!
//! Order of things, each for a reason:
//! 1. lock the anchor and every segment file, so that no write of a killed process is still in flight;
//! 2. sync the directory, before a name in it is trusted;
//! 3. read anchor, headers and frames from the device: after a failed sync the page cache serves bytes that are not
//!    there. Where the device cannot be read past the cache, the same bytes are written again;
//! 4. sync every file that was read, before anything read is shown, reclaimed or built upon;
//! 5. a new segment, or a new header on one without a frame: what was dropped can never come back.
//!
//! A read that fails or is short is an error of opening, never a bad frame.
//!
//! A clean close notes in the anchor where the log ends, so that the next opening need not read up to there to know:
//! - **W12** An end that the anchor notes is taken back, durably, before anything is written again; and it is believed only
//!   if its last frame is the last segment's and stands there whole, and none stands behind it.

use crate::Lsn;
use crate::anchor::{self, Anchor, Slot};
use crate::buf::AlignedBuf;
use crate::disk::{Choice, Disk, DiskFile, DurableWrite, Open};
use crate::error::{Error, Result};
use crate::log::{Recovery, WalOptions};
use crate::mutation::Mutation;
use crate::runtime::Runtime;
use crate::scan::{FrameReader, SegmentUse};
use crate::segment::{self, Geometry, Parsed, Predecessor};
use crate::spares::{lock_file, remove_leftover, write_new};
use crate::sync::AtomicU32;
use crate::timeline::History;
use crate::walk::{Walk, corruption};
use crate::writer::segment_path;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

mod durable_write;

/// What recovery found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) anchor: Anchor,
    pub(crate) anchor_file: Option<Arc<dyn DiskFile>>,
    pub(crate) geometry: Geometry,
    /// The uses of segment files that hold the log, oldest first; never empty.
    pub(crate) path: Vec<SegmentUse>,
    /// How the last one's header reads: kept when it is given a new one.
    pub(crate) last_predecessor: Option<Predecessor>,
    /// Where the log ends: the next frame's place, if it stayed in the last segment.
    pub(crate) end: Lsn,
    /// The end of the last whole record.
    pub(crate) whole_end: Lsn,
    pub(crate) last_checksum: u32,
    /// The epoch in the last one's header.
    pub(crate) last_epoch: u64,
    /// Where the last frame before the end stands, if there is one in the last segment and it is known.
    pub(crate) last: Option<Lsn>,
    /// True if no frame at all stands in the last segment: it is given a new header instead of a successor.
    pub(crate) last_is_unused: bool,
    /// The newest segment files, opened and locked (when opened for writing): those that are written to are among them,
    /// but for odd cases.
    pub(crate) files: BTreeMap<u64, Arc<dyn DiskFile>>,
    /// The numbers of all segment files.
    pub(crate) numbers: Vec<u64>,
    /// The highest number that any segment file has.
    pub(crate) highest_begun: u64,
    pub(crate) time_us: u64,
    /// What was cut out of the log.
    pub(crate) gaps: Vec<(Lsn, Lsn)>,
    /// How durable writes are made, if not by the first way that works.
    pub(crate) durable_write: Option<DurableWrite>,
    pub(crate) report: Recovery,
}

/// Reads the log in `dir`, creating it if there is none and `options` say so.
pub(crate) fn open(dir: &Path, options: &WalOptions, runtime: &Arc<dyn Runtime>) -> Result<Found> {
    let disk = &options.disk_or_default();
    let opener = Opener { disk, dir, options };
    refuse_network(&**disk, dir, options)?;
    let anchor_path = dir.join(anchor::FILE_NAME);
    let exists =
        disk.exists(&anchor_path).map_err(|source| Error::io("look for", &anchor_path, None, source))?;
    if !exists {
        if options.read_only || !options.create {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(Error::Io { op: "open", path: anchor_path, offset: None, source });
        }
        let chosen = opener.create(runtime)?;
        return opener.recover(runtime, chosen.as_ref());
    }
    if options.read_only { opener.look(runtime) } else { opener.recover(runtime, None) }
}

impl Found {
    /// A replica's log into which nothing was shipped yet.
    fn blank(anchor: &Anchor, geometry: Geometry) -> Found {
        let end = geometry.start(geometry.number(anchor.first));
        Found {
            anchor: *anchor,
            anchor_file: None,
            geometry,
            path: Vec::new(),
            last_predecessor: None,
            end,
            // Nothing: so the anchor promises nothing.
            whole_end: Lsn::ZERO,
            last_checksum: 0,
            last_epoch: 0,
            last: None,
            last_is_unused: false,
            files: BTreeMap::new(),
            numbers: Vec::new(),
            highest_begun: 0,
            time_us: 0,
            gaps: Vec::new(),
            durable_write: None,
            report: Recovery { start: end, end, ..Recovery::default() },
        }
    }
}

/// How often a reader looks again at a log that changes under it.
const LOOKS_MAX: u32 = 12;
/// How often damage must be met in the same place before it is believed, and the time between two looks.
const SAME_MAX: u32 = 2;
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Segment files that opening holds at a time: the live one, those ready behind it, and some more.
const HELD_MAX: usize = 16;

struct Opener<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    options: &'a WalOptions,
}

/// A segment file whose header is whole and says its own number.
pub(crate) struct Begun {
    pub(crate) header: segment::Header,
    pub(crate) checksum: u32,
}

impl Opener<'_> {
    /// A log of one empty segment: the segment first, then the anchor, whose rename makes it a log.
    fn create(&self, runtime: &Arc<dyn Runtime>) -> Result<Option<Choice>> {
        let geometry = Geometry { segment_bytes: self.options.segment_bytes };
        crate::disk::crashsafe::create_dir_all(&**self.disk, self.dir)
            .map_err(|source| Error::io("create directory", self.dir, None, source))?;
        let names = self.list()?;
        // All names are looked at before one is removed.
        self.refuse_strangers(&names)?;
        let held = self.lock_leftovers(&names)?;
        let anchor_path = self.dir.join(anchor::FILE_NAME);
        if self
            .disk
            .exists(&anchor_path)
            .map_err(|source| Error::io("look for", &anchor_path, None, source))?
        {
            // Somebody else has made the log meanwhile.
            return Ok(None);
        }
        for name in &names {
            self.remove_unfinished(name)?;
        }
        drop(held);
        let chosen = self.choose_durable_write();
        let store_id = self.options.store_id.unwrap_or_else(|| random_id(&**runtime));
        let number = segment::FIRST_NUMBER;
        let path = segment_path(self.dir, number);
        let file = self
            .disk
            .open(&path, Open::CreateNew)
            .map_err(|source| Error::io("create", &path, None, source))?;
        lock_file(&**self.disk, &*file, &path)?;
        let first = geometry.first_frame(number);
        let header = segment::Header {
            store_id,
            number,
            segment_bytes: geometry.segment_bytes,
            salt: runtime.random(),
            predecessor: None,
            durable: Lsn::ZERO,
            epoch: self.options.epoch,
        };
        file.allocate(0, geometry.segment_bytes)
            .and_then(|()| file.write_at(&header.encode().0, 0))
            .map_err(|source| Error::io("write", &path, Some(0), source))?;
        file.sync_data().map_err(|source| Error::io("sync", &path, None, source))?;
        self.sync_dir()?;
        let anchor = Anchor {
            store_id,
            sequence: 1,
            segment_bytes: geometry.segment_bytes,
            write_method: chosen
                .as_ref()
                .and_then(|choice| choice.way)
                .map_or(0, |way| u32::from(way.number())),
            first,
            epoch: self.options.epoch,
            durable: Lsn::ZERO,
            replica_durable: Lsn::ZERO,
            is_replica: false,
            promised: self.options.epoch,
            history: History::default(),
            rewinding: Lsn::ZERO,
            clean: false,
            closed: None,
        };
        write_new(&**self.disk, &self.dir.join(anchor::FILE_NAME), &anchor.new_file())?;
        Ok(chosen)
    }

    fn refuse_strangers(&self, names: &[String]) -> Result<()> {
        match names.iter().find(|name| !is_own_name(name)) {
            Some(name) => Err(Error::BadInput(format!(
                "{} holds {name}, which is not part of a log; use an empty directory",
                self.dir.display()
            ))),
            None => Ok(()),
        }
    }

    /// Whoever makes the log just now holds its first segment: two must not make it at once.
    fn lock_leftovers(&self, names: &[String]) -> Result<Vec<Arc<dyn DiskFile>>> {
        let mut held = Vec::new();
        for name in names.iter().filter(|name| segment::number_of(name).is_some()) {
            let path = self.dir.join(name);
            let file = self.open_file(&path)?;
            lock_file(&**self.disk, &*file, &path)?;
            held.push(file);
        }
        Ok(held)
    }

    /// What a crash while the log was created left behind. A log file that holds a frame is not such a thing.
    fn remove_unfinished(&self, name: &str) -> Result<()> {
        if let Some(number) = segment::number_of(name) {
            let mut geometry = Geometry { segment_bytes: self.options.segment_bytes };
            let mut reader = FrameReader::new(self.disk, self.dir, geometry, true)?;
            // A log of another segment size is a log all the same.
            if let Some(Parsed::Header(header, _)) = reader.header_block(number)?.map(segment::Header::parse)
                && header.number == number
                && segment::is_segment_size(header.segment_bytes)
            {
                geometry.segment_bytes = header.segment_bytes;
                reader = FrameReader::new(self.disk, self.dir, geometry, true)?;
            }
            if reader.find_frame(number, None, geometry.first_frame(number))?.is_some() {
                return Err(Error::Corruption {
                    file: self.dir.join(anchor::FILE_NAME),
                    offset: 0,
                    lsn: None,
                    what: format!("the log's anchor is missing, but {name} holds records"),
                });
            }
        }
        remove_leftover(&**self.disk, &self.dir.join(name))
    }

    /// Reads without locking. Beside a writer the end moves between two reads, and looks like damage; damage is what
    /// is found in the same place again and again.
    fn look(&self, runtime: &Arc<dyn Runtime>) -> Result<Found> {
        let mut last = None;
        let mut times = 0;
        for _ in 1..LOOKS_MAX {
            let error = match self.recover(runtime, None) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let is_moving = match &error {
                Error::Corruption { lsn, .. } => {
                    times = if last.replace(*lsn) == Some(*lsn) { times + 1 } else { 0 };
                    times < SAME_MAX
                }
                Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
                _ => false,
            };
            if !is_moving {
                return Err(error);
            }
            runtime.wait(&AtomicU32::new(0), 0, Some(LOOK_AGAIN));
        }
        self.recover(runtime, None)
    }

    fn recover(&self, runtime: &Arc<dyn Runtime>, chosen: Option<&Choice>) -> Result<Found> {
        let start = runtime.now();
        let writable = !self.options.read_only;
        let anchor_path = self.dir.join(anchor::FILE_NAME);
        let anchor_file = self.open_file(&anchor_path)?;
        if writable {
            lock_file(&**self.disk, &*anchor_file, &anchor_path)?;
        }
        let mut names = self.list()?;
        let mut files = BTreeMap::new();
        if writable {
            for name in &names {
                if let Some(number) = segment::number_of(name) {
                    let path = self.dir.join(name);
                    let file = self.open_file(&path)?;
                    lock_file(&**self.disk, &*file, &path)?;
                    files.insert(number, file);
                    // Once the lock was had, nobody's write is in flight, and nobody who has not the anchor's begins
                    // another: of a long log, not all need stay open.
                    if files.len() > HELD_MAX {
                        files.pop_first();
                    }
                }
            }
            self.sync_dir()?;
            names = self.list()?;
        }
        let (anchor, mut cached) = self.read_anchor(&*anchor_file, &anchor_path)?;
        self.check_role(&anchor)?;
        let geometry = Geometry { segment_bytes: anchor.segment_bytes };
        let mut reader = FrameReader::new(self.disk, self.dir, geometry, true)?;
        let numbers: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
        let begun = self.read_headers(&mut reader, &numbers, &anchor)?;
        let is_blank = anchor.is_replica && begun.is_empty() && anchor.replica_durable == Lsn::ZERO;
        let mut found = match is_blank {
            true => Found::blank(&anchor, geometry),
            false => self.walk(&mut reader, &begun, &numbers, &anchor)?,
        };
        cached |= !reader.all_from_device;
        found.highest_begun = begun.keys().next_back().copied().unwrap_or(0);
        (found.files, found.numbers) = (files, numbers);
        if writable {
            found.anchor_file = Some(anchor_file.clone());
            self.make_durable(&mut found, &*anchor_file, cached)?;
        }
        let backend = self.disk.describe(self.dir);
        found.report.backend = backend.name;
        found.report.backend_reason = backend.reason;
        self.settle_durable_write(&mut found, chosen);
        found.report.took = runtime.now().saturating_sub(start);
        Ok(found)
    }

    /// A replica's log is written by what is shipped, any other by its store.
    fn check_role(&self, anchor: &Anchor) -> Result<()> {
        if anchor.rewinding != Lsn::ZERO {
            let to = anchor.rewinding;
            return Err(Error::BadInput(format!(
                "this log was being rewound to {to}: rewind it again, to the end"
            )));
        }
        match (anchor.is_replica, self.options.replica, self.options.read_only) {
            (true, false, false) => Err(Error::Replica),
            (false, true, false) => {
                Err(Error::BadInput("this log is no replica's: it was written by its own store".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn read_anchor(&self, file: &dyn DiskFile, path: &Path) -> Result<(Anchor, bool)> {
        let (anchor, from_device) = read_anchor(file, path)?;
        if self.options.store_id.is_some_and(|id| id != anchor.store_id) {
            return Err(corruption(path, 0, None, "the anchor belongs to another store"));
        }
        Ok((anchor, !from_device))
    }

    fn read_headers(
        &self,
        reader: &mut FrameReader,
        numbers: &[u64],
        anchor: &Anchor,
    ) -> Result<BTreeMap<u64, Begun>> {
        let mut begun = BTreeMap::new();
        // One block of each: nothing is read ahead.
        reader.read_until(Lsn::ZERO);
        for &number in numbers {
            let path = segment_path(self.dir, number);
            let Some(block) = reader.header_block(number)? else { continue };
            match segment::Header::parse(block) {
                // A header of another number is an old segment, renamed and not begun.
                Parsed::Header(header, checksum) if header.number == number => {
                    if header.store_id != anchor.store_id {
                        return Err(corruption(&path, 0, None, "the segment belongs to another store"));
                    }
                    if header.segment_bytes != anchor.segment_bytes {
                        return Err(corruption(
                            &path,
                            0,
                            None,
                            "the segment is of another size than the log's",
                        ));
                    }
                    begun.insert(number, Begun { header, checksum });
                }
                Parsed::Newer(found) => {
                    let supported = segment::FORMAT_VERSION..=segment::FORMAT_VERSION;
                    return Err(Error::FormatVersion { found, supported });
                }
                Parsed::Header(..) | Parsed::None => {}
            }
        }
        reader.read_until(Lsn::MAX);
        Ok(begun)
    }

    /// From the newest header back to where reading starts, then forward over the frames.
    fn walk(
        &self,
        reader: &mut FrameReader,
        begun: &BTreeMap<u64, Begun>,
        numbers: &[u64],
        anchor: &Anchor,
    ) -> Result<Found> {
        let geometry = Geometry { segment_bytes: anchor.segment_bytes };
        let start = self.options.start.map_or(anchor.first, |(replay, _)| replay);
        if start < anchor.first {
            return Err(corruption(
                &self.dir.join(anchor::FILE_NAME),
                0,
                Some(start),
                &format!("the log begins at {}, and replay needs it from {start} on", anchor.first),
            ));
        }
        let mut path = self.path_back(begun, geometry, anchor.first)?;
        if let Some(closed) = anchor.closed.filter(|_| self.options.has(Mutation::TrustStaleEnd)) {
            path.retain(|segment| geometry.start(segment.number) < closed.end);
            path.last_mut().into_iter().for_each(|last| (last.end, last.cut) = (None, None));
        }
        let gaps = self.gaps(&path, begun, geometry)?;
        // What is before `start` was judged when it was folded; only pins still want it.
        let skipped = path.iter().take_while(|segment| segment.end.is_some_and(|end| end <= start)).count();
        let (before, rest) = path.split_at(skipped);
        if let Some(last) = rest.last()
            && !anchor.is_replica
            && start > geometry.end(last.number)
        {
            let file = segment_path(self.dir, last.number + 1);
            let what = format!("the log ends with segment {}, before its replay position", last.number);
            return Err(corruption(&file, 0, Some(start), &what));
        }
        // Nothing is expected behind the end that was noted.
        reader.read_until(anchor.closed.map_or(Lsn::MAX, |closed| closed.end));
        let walk = Walk {
            dir: self.dir,
            repair: self.options.repair,
            // A replica's log may end before its replay position, which an image beside it has brought.
            aligned_start: self.options.start.map(|(replay, _)| replay).filter(|_| !anchor.is_replica),
            reader,
            geometry,
            // Where the end is noted, that alone is what it is worth.
            clean: anchor.clean && anchor.closed.is_none(),
            is_replica: anchor.is_replica,
            closed: anchor.closed,
            mutation: self.options.mutation,
            promised: promised(anchor, self.options, begun),
            unfinished: None,
            whole_end: None,
            time_us: 0,
            started: false,
            report: Recovery::default(),
        };
        let mut found = walk.forward(rest, numbers, begun, anchor)?;
        found.report.start = start;
        found.gaps = gaps;
        found.path.splice(0..0, before.iter().copied());
        Ok(found)
    }

    fn path_back(
        &self,
        begun: &BTreeMap<u64, Begun>,
        geometry: Geometry,
        start: Lsn,
    ) -> Result<Vec<SegmentUse>> {
        let missing = |number: u64, what: &str| {
            corruption(&segment_path(self.dir, number), 0, Some(geometry.start(number)), what)
        };
        let Some((&newest, _)) = begun.iter().next_back() else {
            return Err(missing(geometry.number(start), "no segment of the log is left"));
        };
        let mut path = Vec::new();
        let mut number = newest;
        let (mut end, mut cut, mut salt) = (None, None, None);
        loop {
            let Some(segment) = begun.get(&number) else {
                return Err(missing(
                    number,
                    "a segment that the next one names is missing, or its header is damaged",
                ));
            };
            if salt.is_some_and(|salt| salt != segment.header.salt) {
                return Err(missing(number, "the segment is not the one that the next one names"));
            }
            path.push(SegmentUse { number, salt: segment.header.salt, checksum: segment.checksum, end, cut });
            let Some(predecessor) = segment.header.predecessor else { break };
            if !predecessor.is_possible(number, geometry) {
                return Err(missing(
                    number,
                    "the segment says that the log was cut where it cannot have been",
                ));
            }
            // Everything from `start` on lies in the segments collected.
            if start >= predecessor.end || start >= geometry.start(number) {
                break;
            }
            if predecessor.number >= number {
                return Err(missing(number, "the segment names a predecessor that is not before it"));
            }
            end = Some(predecessor.end);
            cut = predecessor.cut;
            salt = Some(predecessor.salt);
            number = predecessor.number;
        }
        path.reverse();
        Ok(path)
    }

    /// What was cut out of the log. An owner that has applied some of that cannot go on with it.
    fn gaps(
        &self,
        path: &[SegmentUse],
        begun: &BTreeMap<u64, Begun>,
        geometry: Geometry,
    ) -> Result<Vec<(Lsn, Lsn)>> {
        let mut gaps = Vec::new();
        for SegmentUse { number, .. } in path {
            let predecessor = begun.get(number).and_then(|begun| begun.header.predecessor);
            let Some((from, to)) = predecessor.and_then(|before| before.dropped(*number, geometry)) else {
                continue;
            };
            if let Some((replay, _)) = self.options.start.filter(|(at, _)| from < *at && *at < to) {
                let what = format!("the log was cut at {from} and goes on at {to}; its owner is at {replay}");
                return Err(corruption(&segment_path(self.dir, *number), 0, Some(replay), &what));
            }
            gaps.push((from, to));
        }
        Ok(gaps)
    }

    /// Steps 3 and 4 of the module's order.
    fn make_durable(&self, found: &mut Found, anchor_file: &dyn DiskFile, cached: bool) -> Result<()> {
        let anchor_path = self.dir.join(anchor::FILE_NAME);
        if cached {
            let block = found.anchor.encode();
            anchor_file
                .write_at(&block, found.anchor.offset())
                .map_err(|source| Error::io("write", &anchor_path, Some(found.anchor.offset()), source))?;
            found.report.rewritten = true;
        }
        anchor_file.sync_data().map_err(|source| Error::io("sync", &anchor_path, None, source))?;
        for segment in &found.path {
            let path = segment_path(self.dir, segment.number);
            // Written and synced by one handle, which is told what becomes of its writes.
            let file = match found.files.get(&segment.number) {
                Some(file) => file.clone(),
                None => self.open_file(&path)?,
            };
            if cached {
                self.rewrite(&*file, segment, found.geometry, found.end)?;
            }
            if !self.options.has(Mutation::ShowUnsynced) {
                file.sync_data().map_err(|source| Error::io("sync", &path, None, source))?;
            }
        }
        Ok(())
    }

    /// Writes a segment's header and frames again with the same bytes, so that the following sync covers them
    /// even if an earlier one failed and dropped them.
    fn rewrite(&self, file: &dyn DiskFile, segment: &SegmentUse, geometry: Geometry, end: Lsn) -> Result<()> {
        let path = segment_path(self.dir, segment.number);
        let to = segment.end.unwrap_or(end).min(geometry.end(segment.number));
        let bytes = to.0.saturating_sub(geometry.start(segment.number).0);
        let mut buf =
            AlignedBuf::zeroed(1 << 20).map_err(|source| Error::io("map memory for", &path, None, source))?;
        let mut offset = 0;
        while offset < bytes {
            let wanted = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(buf.len());
            let Some(piece) = buf.get_mut(..wanted) else { break };
            crate::disk::read_exact_at(file, piece, offset)
                .map_err(|source| Error::io("read", &path, Some(offset), source))?;
            file.write_at(piece, offset).map_err(|source| Error::io("write", &path, Some(offset), source))?;
            offset += wanted as u64;
        }
        Ok(())
    }

    fn open_file(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let how = if self.options.read_only { Open::Read } else { Open::ReadWrite };
        self.disk.open(path, how).map_err(|source| Error::io("open", path, None, source))
    }

    fn list(&self) -> Result<Vec<String>> {
        self.disk.list(self.dir).map_err(|source| Error::io("list", self.dir, None, source))
    }

    fn sync_dir(&self) -> Result<()> {
        self.disk.sync_dir(self.dir).map_err(|source| Error::io("sync directory", self.dir, None, source))
    }
}

/// The anchor of the log in this directory, read without a lock.
///
/// # Errors
/// `Corruption` if neither of its slots is whole; `FormatVersion`; `Io`.
#[doc(hidden)]
pub fn anchor_of(disk: &dyn Disk, dir: &Path) -> Result<Anchor> {
    let path = dir.join(anchor::FILE_NAME);
    let file = disk.open(&path, Open::Read).map_err(|source| Error::io("open", &path, None, source))?;
    read_anchor(&*file, &path).map(|(anchor, _)| anchor)
}

/// The anchor in its file, and whether the device itself gave it.
pub(crate) fn read_anchor(file: &dyn DiskFile, path: &Path) -> Result<(Anchor, bool)> {
    let mut buf = AlignedBuf::zeroed(anchor::FILE_BYTES)
        .map_err(|source| Error::io("map memory for", path, None, source))?;
    let (read, from_device) =
        file.read_device_at(&mut buf, 0).map_err(|source| Error::io("read", path, Some(0), source))?;
    if read < anchor::FILE_BYTES {
        // A short read is an error of the read, not damage, unless the file is as short.
        let bytes = file.len().map_err(|source| Error::io("stat", path, None, source))?;
        if bytes > read as u64 {
            return Err(Error::io("read", path, Some(0), std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
    match Anchor::choose(buf.get(..read).unwrap_or_default()) {
        Slot::Valid(anchor) if segment::is_segment_size(anchor.segment_bytes) => Ok((anchor, from_device)),
        Slot::Valid(_) => Err(corruption(path, 0, None, "the anchor gives an impossible segment size")),
        Slot::Newer(found) => {
            Err(Error::FormatVersion { found, supported: segment::FORMAT_VERSION..=segment::FORMAT_VERSION })
        }
        Slot::None => Err(corruption(
            path,
            0,
            None,
            "the anchor is not whole: both of its slots are damaged, or one was replaced",
        )),
    }
}

pub(crate) fn refuse_network(disk: &dyn Disk, dir: &Path, options: &WalOptions) -> Result<()> {
    let backend = disk.describe(dir.parent().unwrap_or(Path::new(".")));
    if backend.is_network && !options.allow_network {
        return Err(Error::BadInput(format!(
            "{} is on the network file system {}, whose locks and syncs cannot be relied on; use a local disk",
            dir.display(),
            backend.file_system
        )));
    }
    Ok(())
}

/// The highest LSN that anything but a frame claims to be durable.
fn promised(anchor: &Anchor, options: &WalOptions, begun: &BTreeMap<u64, Begun>) -> Lsn {
    let known = options.start.map_or(Lsn::ZERO, |(_, known_durable)| known_durable);
    if anchor.is_replica && !options.has(Mutation::JudgeByPrimary) {
        // Until the log has come to its first position, what its owner knows came with an image.
        let is_filled = anchor.replica_durable >= anchor.needed();
        return if is_filled { anchor.replica_durable.max(known) } else { anchor.replica_durable };
    }
    let headers = begun.values().map(|segment| segment.header.durable).max().unwrap_or_default();
    // What is reclaimed was durable.
    anchor.durable.max(anchor.first).max(known).max(headers)
}

fn random_id(runtime: &dyn Runtime) -> [u8; 16] {
    let mut id = [0; 16];
    crate::bytes::put(&mut id, 0, &runtime.random().to_le_bytes());
    crate::bytes::put(&mut id, 8, &runtime.random().to_le_bytes());
    id
}

/// True for names that an unfinished creation may leave.
fn is_own_name(name: &str) -> bool {
    name == anchor::FILE_NAME
        || segment::number_of(name).is_some()
        || is_temporary(name)
        || name.starts_with(".seawall-probe-")
}

/// True for the names that the log's own files have until they are whole.
pub(crate) fn is_temporary(name: &str) -> bool {
    ["anchor.tmp", crate::spares::TEMPORARY, crate::spares::URGENT].contains(&name)
}
