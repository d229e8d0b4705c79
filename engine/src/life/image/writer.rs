//! Making a store of an image.

use super::progress::{BYTES, Progress};
use super::{ImageInfo, ImagePiece, values_in_doubt};
use crate::life::open::{DATA_NAME, DATA_NEW_NAME, LOG_NAME, open_locked};
use crate::options::{DbBuilder, Options};
use crate::tree::TreeStore;
use crate::tree::image::is_run;
use crate::{Error, Result};
use seawall_wal::disk::{Open, crashsafe, read_exact_at};
use seawall_wal::{DiskFile, History, ReplicaStart, Wal, WalOptions, create_replica};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How far the copy came, while there is no store yet.
pub(crate) const PROGRESS_NAME: &str = "image";

/// So much is synced at a time.
const SYNC_BYTES: u64 = 64 << 20;

/// The cache of the check at the end, in bytes.
const CACHE_BYTES: usize = 8 << 20;

/// Writes an image into a directory, and makes a replica's store of it. It may be left at any moment, be it by a power cut:
/// begun again with the same image it goes on about where it was; another image begins from the start.
///
/// An example is at [`Db::image`](crate::Db::image).
pub struct ImageWriter {
    options: Options,
    info: ImageInfo,
    /// `data.new`, locked.
    file: Arc<dyn DiskFile>,
    /// All before is written.
    offset: u64,
    /// All before is on the device, and the file `image` says so.
    done: u64,
}

impl ImageWriter {
    /// What the image is of that was begun in this directory, if one was and is not finished.
    ///
    /// # Errors
    /// `Io`; `Corruption` if what is noted there of it is damaged.
    pub fn begun(builder: &DbBuilder) -> Result<Option<ImageInfo>> {
        let options = builder.clone().options()?;
        read_progress(&options)?.map(|progress| ImageInfo::from_superblock(&progress.superblock)).transpose()
    }

    /// Begins, or goes on, in the directory that `builder` names, on the disk that it has.
    ///
    /// # Errors
    /// `BadInput` if the directory holds a store, a log, or anything else that no image left there; `Locked`, `NoSpace`,
    /// `Io`.
    pub fn begin(builder: &DbBuilder, info: &ImageInfo) -> Result<ImageWriter> {
        let options = builder.clone().options()?;
        let (disk, dir) = (&*options.disk, &options.path);
        crashsafe::create_dir_all(disk, dir)
            .map_err(|source| Error::io("create directory", dir, None, source))?;
        let found = refuse_foreign(&options)?;
        let progress = read_progress(&options)?.filter(|progress| progress.superblock == info.superblock());
        let path = dir.join(DATA_NEW_NAME);
        let is_there = found.iter().any(|name| name == DATA_NEW_NAME);
        let done = match progress {
            Some(progress) if is_there => progress.done,
            _ => {
                // Before a byte of the file changes, nothing says any more what it held.
                write_progress(&options, info, 0)?;
                0
            }
        };
        let file = open_locked(disk, &path, if is_there { Open::ReadWrite } else { Open::CreateNew })?;
        let len = file.len().map_err(|source| Error::io("length", &path, None, source))?;
        let done = if len >= done { done } else { 0 };
        if done == 0 {
            file.set_len(0).map_err(|source| Error::io("cut", &path, Some(0), source))?;
        }
        Ok(ImageWriter { info: info.clone(), file, offset: done, done, options })
    }

    /// From where on pieces are wanted.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Everything below this is on the device.
    pub fn durable_offset(&self) -> u64 {
        self.done
    }

    /// Writes the next piece; about every 64 MiB all of them are made durable.
    ///
    /// # Errors
    /// `BadInput` for a piece that is not of whole blocks, or behind one that was written already; `NoSpace`, `Io`: then
    /// begin again.
    pub fn write(&mut self, piece: &ImagePiece) -> Result<()> {
        let (offset, end) = (piece.offset, piece.end());
        if !is_run(&(offset..end)) || offset < self.offset {
            let what =
                format!("bytes {offset} to {end} are no piece of an image that has come to {}", self.offset);
            return Err(Error::BadInput(what));
        }
        self.file
            .write_at(&piece.bytes, offset)
            .map_err(|source| Error::io("write", &self.path(), Some(offset), source))?;
        self.offset = end;
        if self.offset - self.done >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    /// Makes durable what was written, and that it was.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: then begin again.
    pub fn sync(&mut self) -> Result<()> {
        self.sync_file()?;
        write_progress(&self.options, &self.info, self.offset)?;
        self.done = self.offset;
        Ok(())
    }

    /// All pieces were written: checks every block of the copy against its checksum, makes an empty log for it, of a replica
    /// that follows the `epoch` with this `history`, and gives the store its name. From then on it is a replica's store.
    ///
    /// # Errors
    /// `Corruption` if a block is missing or damaged: then only a new copy helps, and the directory is to be emptied;
    /// `NoSpace`, `Io`: then begin again.
    pub fn finish(mut self, epoch: u64, history: &History) -> Result<()> {
        self.sync()?;
        let (path, dir) = (self.path(), self.options.path.clone());
        let superblock = &self.info.superblock;
        superblock.install(&*self.file, &path)?;
        let len = self.file.len().map_err(|source| Error::io("length", &path, None, source))?;
        if len < superblock.file_bytes {
            let lengthened = self.file.set_len(superblock.file_bytes);
            lengthened.map_err(|source| Error::io("lengthen", &path, None, source))?;
        }
        self.sync_file()?;
        self.verify()?;
        self.make_log(epoch, history)?;
        let disk = &*self.options.disk;
        crashsafe::rename(disk, &path, &dir.join(DATA_NAME))
            .map_err(|source| Error::io("rename", &path, None, source))?;
        let progress = dir.join(PROGRESS_NAME);
        crashsafe::remove(disk, &progress).map_err(|source| Error::io("remove", &progress, None, source))
    }

    fn path(&self) -> PathBuf {
        self.options.path.join(DATA_NEW_NAME)
    }

    fn sync_file(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::io("sync", &self.path(), None, source))
    }

    fn verify(&self) -> Result<()> {
        let (path, disk) = (self.path(), Arc::clone(&self.options.disk));
        let (store, root) = TreeStore::open(disk, Arc::clone(&self.file), &path, CACHE_BYTES, true)?;
        let report = store.verify(&root, &mut |_, _| {})?;
        if let Some(problem) = report.problems.first() {
            let what = format!("the image is not whole: {problem}");
            return Err(Error::Corruption { file: path, offset: 0, lsn: None, what });
        }
        for value in values_in_doubt(&store, &root)? {
            for piece in value.pieces() {
                store.read_piece(&piece)?;
            }
        }
        Ok(())
    }

    /// A log that an attempt before this one made is replaced: there is no store that it could belong to.
    fn make_log(&self, epoch: u64, history: &History) -> Result<()> {
        let (disk, dir) = (&*self.options.disk, self.options.path.join(LOG_NAME));
        let io = |op: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| Error::io(op, &path, None, source)
        };
        if disk.exists(&dir).map_err(io("look for", &dir))? {
            for name in disk.list(&dir).map_err(io("list", &dir))? {
                let path = dir.join(name);
                disk.remove(&path).map_err(io("remove", &path))?;
            }
            disk.sync_dir(&dir).map_err(io("sync directory", &dir))?;
        }
        let ImageInfo { store_id, segment_bytes, checkpoint_lsn: first, .. } = self.info;
        let covered = first.max(self.info.superblock.applied_lsn);
        let start = ReplicaStart { store_id, segment_bytes, first, covered, epoch, history: *history };
        Ok(create_replica(&dir, &log_options(&self.options), &start)?)
    }
}

impl std::fmt::Debug for ImageWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ImageWriter { options, offset, done, .. } = self;
        let mut f = f.debug_struct("ImageWriter");
        f.field("path", &options.path).field("offset", offset).field("done", done).finish_non_exhaustive()
    }
}

/// For a log that nobody writes yet, or any more.
pub(crate) fn log_options(options: &Options) -> WalOptions {
    let (disk, runtime) = (Arc::clone(&options.disk), Arc::clone(&options.runtime));
    Wal::options().disk(disk).runtime(runtime).background(false)
}

/// The names in the directory, if none of them is anybody else's.
fn refuse_foreign(options: &Options) -> Result<Vec<String>> {
    let dir = &options.path;
    let names = options.disk.list(dir).map_err(|source| Error::io("list", dir, None, source))?;
    let refuse = |what: String| Err(Error::BadInput(format!("{} holds {what}", dir.display())));
    if names.iter().any(|name| name == DATA_NAME) {
        return refuse("a store already".to_owned());
    }
    let temporary = crashsafe::temporary_name(Path::new(PROGRESS_NAME));
    let is_begun = names.iter().any(|name| name == PROGRESS_NAME);
    let is_own = |name: &String| match name.as_str() {
        // Without the other, these may be what is left of a store.
        DATA_NEW_NAME | LOG_NAME => is_begun,
        name => name == PROGRESS_NAME || Path::new(name) == temporary,
    };
    match names.iter().find(|name| !is_own(name)) {
        Some(name) => refuse(format!("{name}, which is no part of an image; use an empty directory")),
        None => Ok(names),
    }
}

fn read_progress(options: &Options) -> Result<Option<Progress>> {
    let path = options.path.join(PROGRESS_NAME);
    let io = |op, source| Error::io(op, &path, None, source);
    if !options.disk.exists(&path).map_err(|source| io("look for", source))? {
        return Ok(None);
    }
    let file = options.disk.open(&path, Open::Read).map_err(|source| io("open", source))?;
    if file.len().map_err(|source| io("length", source))? != BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; BYTES];
    read_exact_at(&*file, &mut bytes, 0).map_err(|source| io("read", source))?;
    Ok(Progress::decode(&bytes))
}

fn write_progress(options: &Options, info: &ImageInfo, done: u64) -> Result<()> {
    let path = options.path.join(PROGRESS_NAME);
    let progress = Progress { done, superblock: info.superblock().to_vec() };
    crashsafe::write_new(&*options.disk, &path, &progress.encode())
        .map_err(|source| Error::io("replace", &path, None, source))
}
