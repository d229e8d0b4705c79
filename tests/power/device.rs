//! A block device whose power can be cut afterwards, at any moment of its life.
//!
//! A file system in user space holds one file; a loop device stands on it, and a file system of the kernel on that. Each
//! write arrives here, and each flush. A write is answered some time later by another thread, so that more than one is on its
//! way; a flush vouches for the writes that had been answered when it arrived, and for no other: what a drive with a volatile
//! cache promises. [`Device::image`] is what is left when the power goes.

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, Session, WriteFlags,
};
use seawall::wal::runtime::Rng;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of every device: what the most demanding file system wants.
pub(crate) const LEN: u64 = 320 << 20;
const PAGE: usize = 4096;
const DISK: INodeNo = INodeNo(2);
const DISK_NAME: &str = "disk";
/// How long attributes may be kept: they never change.
const TTL: Duration = Duration::from_secs(3600);

/// A device's bytes; pages that are not here are zeros. A copy is cheap.
#[derive(Clone, Default)]
pub(crate) struct Content(BTreeMap<u64, Arc<[u8; PAGE]>>);

impl Content {
    pub(crate) fn of(file: &Path) -> Content {
        let (mut file, mut content) = (File::open(file).unwrap(), Content::default());
        let mut page = [0; PAGE];
        for number in 0.. {
            if file.read(&mut page[..1]).unwrap() == 0 {
                break;
            }
            file.read_exact(&mut page[1..]).unwrap();
            if page != [0; PAGE] {
                content.0.insert(number, Arc::new(page));
            }
        }
        content
    }

    /// Into a file with holes, for a loop device.
    pub(crate) fn write_to(&self, path: &Path) {
        let file = File::create(path).unwrap();
        file.set_len(LEN).unwrap();
        for (number, page) in &self.0 {
            file.write_all_at(&page[..], number * PAGE as u64).unwrap();
        }
    }

    fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = (offset % PAGE as u64) as usize;
            let (here, rest) = bytes.split_at(bytes.len().min(PAGE - within));
            let page = self.0.entry(offset / PAGE as u64).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + here.len()].copy_from_slice(here);
            offset += here.len() as u64;
            bytes = rest;
        }
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            let within = (at % PAGE as u64) as usize;
            let here = (len - bytes.len()).min(PAGE - within);
            match self.0.get(&(at / PAGE as u64)) {
                Some(page) => bytes.extend_from_slice(&page[within..within + here]),
                None => bytes.resize(bytes.len() + here, 0),
            }
        }
        bytes
    }
}

struct Write {
    /// The events before it.
    at: usize,
    offset: u64,
    bytes: Box<[u8]>,
    is_answered: bool,
    /// The flush that vouches for it.
    flushed_at: Option<usize>,
}

#[derive(Default)]
struct State {
    content: Content,
    writes: Vec<Write>,
    /// Those without a flush, in order.
    unflushed: Vec<usize>,
    /// The events before each flush that had something to vouch for.
    flushes: Vec<usize>,
}

/// What survives of writes that no flush vouches for.
#[derive(Clone, Copy, Debug)]
enum Survive {
    None,
    All,
    /// Of each write all, nothing, or any of its sectors.
    Some,
}

/// A running device; it ends when it is dropped, which must be after whatever stands on it.
pub(crate) struct Device {
    before: Content,
    state: Arc<Mutex<State>>,
    clock: Arc<AtomicUsize>,
    dir: PathBuf,
    session: Option<BackgroundSession>,
}

impl Device {
    /// At `dir`, with these bytes. Fails where a file system in user space cannot be had.
    pub(crate) fn start(dir: &Path, before: Content, seed: u64) -> std::io::Result<Device> {
        let state = Arc::new(Mutex::new(State { content: before.clone(), ..State::default() }));
        let (clock, (answers, written)) = (Arc::new(AtomicUsize::new(0)), channel());
        let answering = Arc::clone(&state);
        std::thread::spawn(move || answer(&written, &answering, Rng::new(seed)));
        let disk = Disk { state: Arc::clone(&state), clock: Arc::clone(&clock), answers };
        let session = Session::new(disk, dir, &Config::default())?.spawn()?;
        Ok(Device { before, state, clock, dir: dir.to_owned(), session: Some(session) })
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join(DISK_NAME)
    }

    /// Writes and flushes so far. What a flush vouches for is in every image cut at a clock that was read after the flush.
    pub(crate) fn clock(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.clock)
    }

    /// A moment before `end`: half of them just before a flush, when most is at risk.
    pub(crate) fn cut(&self, end: usize, rng: &mut Rng) -> usize {
        let state = self.state.lock().unwrap();
        let flushes = state.flushes.partition_point(|flush| *flush < end) as u64;
        if flushes > 0 && rng.chance(1, 2) {
            state.flushes[rng.below(flushes) as usize]
        } else {
            1 + rng.below(end as u64) as usize
        }
    }

    /// What is left if the power goes after so many writes and flushes, and sectors are written whole or not at all.
    pub(crate) fn image(&self, cut: usize, sector: usize, rng: &mut Rng) -> Content {
        let survive = match rng.below(4) {
            0 => Survive::None,
            1 => Survive::All,
            _ => Survive::Some,
        };
        let (mut content, state) = (self.before.clone(), self.state.lock().unwrap());
        for write in state.writes.iter().take_while(|write| write.at < cut) {
            let is_safe = write.flushed_at.is_some_and(|flush| flush < cut);
            match survive {
                _ if is_safe => content.write(write.offset, &write.bytes),
                Survive::None => {}
                Survive::All => content.write(write.offset, &write.bytes),
                Survive::Some => match rng.below(3) {
                    0 => {}
                    1 => content.write(write.offset, &write.bytes),
                    _ => {
                        let sectors = write.bytes.chunks(sector).enumerate();
                        for (n, bytes) in sectors.filter(|_| rng.chance(1, 2)) {
                            content.write(write.offset + (n * sector) as u64, bytes);
                        }
                    }
                },
            }
        }
        content
    }

    /// Writes that no flush vouched for at this cut.
    pub(crate) fn at_risk(&self, cut: usize) -> usize {
        let state = self.state.lock().unwrap();
        let seen = state.writes.iter().take_while(|write| write.at < cut);
        seen.filter(|write| write.flushed_at.is_none_or(|flush| flush >= cut)).count()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let ended = self.session.take().map(BackgroundSession::umount_and_join);
        if let Some(Err(error)) = ended {
            println!("the device at {} does not end: {error}", self.dir.display());
        }
    }
}

/// Answers writes a little later, and not in their order.
fn answer(written: &Receiver<(usize, ReplyWrite)>, state: &Mutex<State>, mut rng: Rng) {
    while let Ok(first) = written.recv() {
        std::thread::sleep(Duration::from_micros(rng.below(150)));
        let mut waiting: Vec<_> = std::iter::once(first).chain(written.try_iter()).collect();
        while !waiting.is_empty() {
            let (number, reply) = waiting.swap_remove(rng.below(waiting.len() as u64) as usize);
            let len = {
                let write = &mut state.lock().unwrap().writes[number];
                write.is_answered = true;
                write.bytes.len()
            };
            reply.written(len as u32);
        }
    }
}

struct Disk {
    state: Arc<Mutex<State>>,
    clock: Arc<AtomicUsize>,
    answers: Sender<(usize, ReplyWrite)>,
}

fn attributes(number: INodeNo) -> FileAttr {
    let (kind, size) = if number == DISK { (FileType::RegularFile, LEN) } else { (FileType::Directory, 0) };
    FileAttr {
        ino: number,
        size,
        blocks: size / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == DISK_NAME {
            reply.entry(&TTL, &attributes(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(number));
    }

    /// Nothing of it stays in the kernel's cache.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = u64::from(size).min(LEN.saturating_sub(offset));
        let bytes = self.state.lock().unwrap().content.read(offset, len as usize);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let number = {
            let mut state = self.state.lock().unwrap();
            state.content.write(offset, data);
            let at = self.clock.fetch_add(1, Ordering::SeqCst);
            let number = state.writes.len();
            state.writes.push(Write { at, offset, bytes: data.into(), is_answered: false, flushed_at: None });
            state.unflushed.push(number);
            number
        };
        // It is there as long as the session is.
        let _ = self.answers.send((number, reply));
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        {
            let mut state = self.state.lock().unwrap();
            let at = self.clock.fetch_add(1, Ordering::SeqCst);
            let State { writes, unflushed, flushes, .. } = &mut *state;
            if !unflushed.is_empty() {
                flushes.push(at);
            }
            unflushed.retain(|number| {
                let write = &mut writes[*number];
                if write.is_answered {
                    write.flushed_at = Some(at);
                }
                !write.is_answered
            });
        }
        reply.ok();
    }
}
