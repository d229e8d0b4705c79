//! What the files of another process's log say: its anchor, the path of its segments, how far it is durable.

use super::{LOOKS_MAX, PAUSE_MIN};
use crate::Lsn;
use crate::anchor::{self, Anchor, Slot};
use crate::buf::AlignedBuf;
use crate::disk::{BLOCK_BYTES, Disk, DiskFile, Open};
use crate::error::{Error, Result};
use crate::log::WalOptions;
use crate::mutation::Mutation;
use crate::runtime::Runtime;
use crate::scan::{FrameReader, SegmentUse};
use crate::segment::{self, Geometry, Header, Parsed};
use crate::sync::AtomicU32;
use crate::walk::corruption;
use crate::writer::segment_path;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Frames' headers are looked for in pieces of this size.
const SCAN_BYTES: u64 = 64 << 10;

/// What a reader of another process's log knows of it.
#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    pub(super) geometry: Geometry,
    runtime: Arc<dyn Runtime>,
    anchor_file: AnchorFile,
    pub(super) anchor: Anchor,
    /// The anchor's bytes that the path belongs to.
    anchor_bytes: Vec<u8>,
    /// Looks at the headers of frames, up to where it stands.
    scan: FrameReader,
    scanned: Lsn,
    /// What is durable, as far as anything on the disk says.
    pub(super) durable: Lsn,
    mutation: Option<Mutation>,
}

/// The anchor, read again and again: for each record that is shown, so into one buffer.
#[derive(Debug)]
struct AnchorFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    buf: AlignedBuf,
}

impl AnchorFile {
    fn open(disk: &dyn Disk, dir: &Path) -> Result<AnchorFile> {
        let path = dir.join(anchor::FILE_NAME);
        let file = disk.open(&path, Open::Read).map_err(|source| Error::io("open", &path, None, source))?;
        let buf = buffer(anchor::FILE_BYTES, &path)?;
        Ok(AnchorFile { file, path, buf })
    }

    fn read(&mut self) -> Result<&[u8]> {
        read_into(&*self.file, &self.path, &mut self.buf)
    }
}

/// The log as its headers show it.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Its segments as they follow each other.
    pub(super) path: Vec<SegmentUse>,
    /// Where the segment before the oldest of them ended, and the last record before that.
    pub(super) before: Option<(Lsn, Lsn)>,
    /// What was cut out of it.
    pub(super) gaps: Vec<(Lsn, Lsn)>,
    /// The highest durable LSN in the headers.
    durable: Lsn,
}

impl Files {
    pub(super) fn open(dir: &Path, options: &WalOptions, runtime: &Arc<dyn Runtime>) -> Result<Files> {
        let disk = options.disk_or_default();
        let mut anchor_file = AnchorFile::open(&*disk, dir)?;
        let mut looks = 0;
        let (anchor, anchor_bytes) = loop {
            let bytes = anchor_file.read()?;
            match Anchor::choose(bytes) {
                Slot::Valid(anchor) if segment::is_segment_size(anchor.segment_bytes) => {
                    break (anchor, bytes.to_vec());
                }
                Slot::Newer(found) => return Err(newer(found)),
                _ if looks == LOOKS_MAX => {
                    return Err(corruption(&anchor_file.path, 0, None, "the anchor is not whole"));
                }
                _ => looks += 1,
            }
            runtime.wait(&AtomicU32::new(0), 0, Some(PAUSE_MIN));
        };
        let geometry = Geometry { segment_bytes: anchor.segment_bytes };
        Ok(Files {
            scan: FrameReader::new(&disk, dir, geometry, false)?,
            disk,
            dir: dir.to_owned(),
            geometry,
            runtime: runtime.clone(),
            anchor_file,
            anchor,
            anchor_bytes,
            scanned: Lsn::ZERO,
            durable: Lsn::ZERO,
            mutation: options.mutation,
        })
    }

    /// Whether the anchor was written since the path was looked up.
    pub(super) fn has_moved(&mut self) -> Result<bool> {
        Ok(self.anchor_file.read()? != self.anchor_bytes)
    }

    /// The anchor, then the path; none if they do not fit together now.
    pub(super) fn look(&mut self) -> Result<Option<Survey>> {
        let bytes = self.anchor_file.read()?.to_vec();
        let anchor = match Anchor::choose(&bytes) {
            Slot::Valid(anchor) => anchor,
            Slot::Newer(found) => return Err(newer(found)),
            Slot::None => return Ok(None),
        };
        if anchor.store_id != self.anchor.store_id || anchor.segment_bytes != self.anchor.segment_bytes {
            return Err(corruption(&self.anchor_file.path, 0, None, "the log was replaced by another"));
        }
        // A slot that is being written is passed over: the other one is older than what was seen.
        if anchor.sequence < self.anchor.sequence {
            return Ok(None);
        }
        let Some(survey) = self.path_back(anchor.first)? else { return Ok(None) };
        self.durable = self.durable.max(anchor.durable).max(survey.durable);
        (self.anchor, self.anchor_bytes) = (anchor, bytes);
        Ok(Some(survey))
    }

    /// From the newest header back to where the log begins.
    fn path_back(&self, first: Lsn) -> Result<Option<Survey>> {
        let mut newest = None;
        for number in self.numbers()?.into_iter().rev() {
            newest = self.header(number)?;
            if newest.is_some() {
                break;
            }
        }
        let Some((mut header, mut checksum)) = newest else { return Ok(None) };
        let (mut end, mut cut) = (None, None);
        let mut survey = Survey::default();
        loop {
            let Header { number, salt, .. } = header;
            survey.durable = survey.durable.max(header.durable);
            survey.path.push(SegmentUse { number, salt, checksum, end, cut });
            // A header is written when all before it is durable: its durable LSN is the last record's end.
            survey.before = header.predecessor.map(|before| (before.end, header.durable));
            let Some(before) = header.predecessor else { break };
            survey.gaps.extend(before.dropped(number, self.geometry));
            if first >= before.end || first >= self.geometry.start(number) {
                break;
            }
            if before.number >= number || !before.is_possible(number, self.geometry) {
                let file = segment_path(&self.dir, number);
                return Err(corruption(&file, 0, None, "the segment names an impossible predecessor"));
            }
            match self.header(before.number)? {
                Some((found, its_checksum)) if found.salt == before.salt => {
                    (header, checksum) = (found, its_checksum);
                }
                // Reclaimed meanwhile; if not, that is damage.
                _ => return Ok(None),
            }
            (end, cut) = (Some(before.end), before.cut);
        }
        survey.path.reverse();
        Ok(Some(survey))
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let names = self.disk.list(&self.dir).map_err(|source| Error::io("list", &self.dir, None, source))?;
        Ok(names.iter().filter_map(|name| segment::number_of(name)).collect())
    }

    /// The header of a segment that has begun.
    fn header(&self, number: u64) -> Result<Option<(Header, u32)>> {
        let path = segment_path(&self.dir, number);
        let file = match self.disk.open(&path, Open::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| Error::io("open", &path, None, source))?,
        };
        // From the device: a header whose write has failed may stand in the page cache, and no opening will see it.
        let mut block = buffer(BLOCK_BYTES, &path)?;
        let (read, _) =
            file.read_device_at(&mut block, 0).map_err(|source| Error::io("read", &path, Some(0), source))?;
        match Header::parse(block.get(..read).unwrap_or_default()) {
            Parsed::Header(header, checksum) if header.number == number => {
                let is_own = header.store_id == self.anchor.store_id
                    && header.segment_bytes == self.anchor.segment_bytes;
                if is_own {
                    Ok(Some((header, checksum)))
                } else {
                    Err(corruption(&path, 0, None, "the segment belongs to another log"))
                }
            }
            Parsed::Newer(found) => Err(newer(found)),
            Parsed::Header(..) | Parsed::None => Ok(None),
        }
    }

    /// Whether a segment has begun behind `last`.
    pub(super) fn has_newer(&self, last: u64) -> Result<bool> {
        for number in self.numbers()?.into_iter().filter(|number| *number > last) {
            if self.header(number)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks at the frames of the newest segment that it has not seen yet. Those of the others are covered by its header.
    pub(super) fn scan(&mut self, path: &[SegmentUse]) -> Result<()> {
        let Some(last) = path.last() else { return Ok(()) };
        self.scanned = self.scanned.max(self.geometry.first_frame(last.number));
        self.scan.forget();
        loop {
            self.scan.read_until(self.scanned.plus(SCAN_BYTES));
            let Some(header) = self.scan.header_at(last, self.scanned)? else { break };
            self.durable = self.durable.max(header.durable);
            self.scanned = self.scanned.plus(header.padded_bytes() as u64);
        }
        if self.mutation == Some(Mutation::FollowPastDurable) {
            self.durable = self.durable.max(self.scanned);
        }
        Ok(())
    }

    pub(super) fn wait(&self, limit: Duration) {
        self.runtime.wait(&AtomicU32::new(0), 0, Some(limit));
    }
}

fn newer(found: u32) -> Error {
    Error::FormatVersion { found, supported: segment::FORMAT_VERSION..=segment::FORMAT_VERSION }
}

fn buffer(bytes: usize, path: &Path) -> Result<AlignedBuf> {
    AlignedBuf::zeroed(bytes).map_err(|source| Error::io("map memory for", path, None, source))
}

/// The file's beginning, as much as there is of it.
fn read_into<'a>(file: &dyn DiskFile, path: &Path, buf: &'a mut AlignedBuf) -> Result<&'a [u8]> {
    let read = file.read_at(buf, 0).map_err(|source| Error::io("read", path, Some(0), source))?;
    Ok(buf.get(..read).unwrap_or_default())
}
