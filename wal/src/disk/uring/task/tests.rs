//! What results make of a task, with the kernel's part played by the test.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may")]

use super::*;
use crate::disk::os::OsOptions;
use crate::disk::os::tests::{Dir, filled};
use crate::disk::{Disk, Io, Open, OsDisk};

const BLOCK: u64 = BLOCK_BYTES as u64;
const EIO: i32 = -5;
const EINTR: i32 = -4;
const EAGAIN: i32 = -11;
const EINVAL: i32 = -22;
const EOPNOTSUPP: i32 = -95;

fn open(dir: &Dir, method: DurableWrite) -> Arc<dyn DiskFile> {
    let options = OsOptions { durable_write: Some(method), io: Io::Auto, ..OsOptions::default() };
    let file = OsDisk::with(options).open(&dir.path("file"), Open::CreateNew).unwrap();
    file.allocate(0, 4 * BLOCK).unwrap();
    file
}

fn write(file: &Arc<dyn DiskFile>, bytes: usize, durable: bool) -> Task {
    let (file, buf) = (file.clone(), filled(7, bytes));
    Task::new(0, Op::Write { file, offset: BLOCK, buf, len: bytes, durable }).unwrap()
}

fn read(file: &Arc<dyn DiskFile>, bytes: usize) -> Task {
    let (file, buf) = (file.clone(), filled(0, bytes));
    Task::new(0, Op::Read { file, offset: 0, buf, len: bytes, from_device: true }).unwrap()
}

/// Plays the kernel: each request gets the next result. Gives the requests and the end.
fn play(mut task: Task, results: &[i32]) -> (Vec<(Way, Range<usize>)>, io::Result<usize>) {
    let mut results = results.iter();
    let mut asked = Vec::new();
    loop {
        match task.next() {
            Next::Done(result) => {
                assert!(results.next().is_none(), "{asked:?}: it ended early");
                return (asked, result);
            }
            Next::Request(request) => {
                assert_eq!(request.offset, task.offset + request.range.start as u64);
                assert_eq!(task.take_turn(&request, 1), Turn::Taken, "{request:?}");
                asked.push((request.way, request.range));
                task.absorb(*results.next().unwrap_or_else(|| panic!("{asked:?}: one request too many")));
            }
        }
    }
}

/// False, where there are no rings or no direct I/O, and these tests have nothing to say.
fn is_usable(file: &Arc<dyn DiskFile>) -> bool {
    let file = os_file(file.clone()).unwrap();
    file.ring_fd().is_some() && file.any_direct_fd().is_some() && file.reads_device()
}

#[test]
fn writes_go_on_where_they_stopped() {
    let dir = Dir::new();
    let file = open(&dir, DurableWrite::DirectDsync);
    if !is_usable(&file) {
        return;
    }
    let (asked, result) = play(write(&file, 8192, false), &[4096, EINTR, 4096]);
    assert_eq!(
        asked,
        [(Way::WriteDirect, 0..8192), (Way::WriteDirect, 4096..8192), (Way::WriteDirect, 4096..8192)]
    );
    assert_eq!(result.unwrap(), 8192);
    // Off the grid it goes on through the page cache.
    let (asked, _) = play(write(&file, 8192, false), &[512, 7680]);
    assert_eq!(asked, [(Way::WriteDirect, 0..8192), (Way::Write, 512..8192)]);
    let (asked, _) = play(write(&file, 8192, true), &[512, 7680]);
    assert_eq!(asked, [(Way::WriteDirectDsync, 0..8192), (Way::WriteDsync, 512..8192)]);
    let (_, result) = play(write(&file, 8192, true), &[4096, 0]);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WriteZero);
    let (_, result) = play(write(&file, 8192, true), &[4096, EIO]);
    assert_eq!(result.unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn refusals_lead_to_the_next_way_and_keep_the_promise() {
    for refusal in [EINVAL, EOPNOTSUPP] {
        let dir = Dir::new();
        let file = open(&dir, DurableWrite::DirectDsync);
        if !is_usable(&file) {
            return;
        }
        let (asked, result) = play(write(&file, 4096, true), &[refusal, refusal, 4096, 0]);
        let ways: Vec<Way> = asked.into_iter().map(|(way, _)| way).collect();
        assert_eq!(ways, [Way::WriteDirectDsync, Way::WriteDsync, Way::Write, Way::Sync]);
        assert_eq!(result.unwrap(), 4096);
        // It sticks.
        let (asked, _) = play(write(&file, 4096, true), &[4096, 0]);
        assert_eq!(asked, [(Way::Write, 0..4096), (Way::Sync, 4096..4096)]);
        assert_eq!(os_file(file.clone()).unwrap().method.get(), DurableWrite::WriteThenSync);
        // Plain direct I/O has an account of its own.
        let (asked, _) = play(write(&file, 4096, false), &[refusal, 4096]);
        assert_eq!(asked, [(Way::WriteDirect, 0..4096), (Way::Write, 0..4096)]);
        let (asked, _) = play(write(&file, 4096, false), &[4096]);
        assert_eq!(asked, [(Way::Write, 0..4096)]);
    }
}

/// What a log has measured holds for operations in a ring as it does for blocking calls; even for one that waits already.
#[test]
fn a_wish_is_listened_to() {
    let dir = Dir::new();
    let file = OsDisk::new().open(&dir.path("file"), Open::CreateNew).unwrap();
    file.allocate(0, 4 * BLOCK).unwrap();
    if !is_usable(&file) {
        return;
    }
    let ways = |task, results: &[i32]| -> Vec<Way> {
        play(task, results).0.into_iter().map(|(way, _)| way).collect()
    };
    assert_eq!(ways(write(&file, 4096, true), &[4096]), [Way::WriteDirectDsync]);
    file.prefer_durable_write(DurableWrite::Dsync);
    assert_eq!(ways(write(&file, 4096, true), &[4096]), [Way::WriteDsync]);
    let waiting = write(&file, 4096, true);
    file.prefer_durable_write(DurableWrite::WriteThenSync);
    assert_eq!(ways(waiting, &[4096, 0]), [Way::Write, Way::Sync]);
    // Whoever made the disk has chosen.
    std::fs::remove_file(dir.path("file")).unwrap();
    let file = open(&dir, DurableWrite::DirectDsync);
    file.prefer_durable_write(DurableWrite::WriteThenSync);
    assert_eq!(ways(write(&file, 4096, true), &[4096]), [Way::WriteDirectDsync]);
}

#[test]
fn reads_end_at_the_end_and_say_where_they_came_from() {
    let dir = Dir::new();
    let file = open(&dir, DurableWrite::DirectDsync);
    if !is_usable(&file) {
        return;
    }
    let (asked, result) = play(read(&file, 8 * BLOCK_BYTES), &[4096, 12288, 0]);
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|(way, _)| *way == Way::ReadDirect));
    assert_eq!(result.unwrap(), 4 * BLOCK_BYTES);
    file.set_len(BLOCK + 100).unwrap();
    let (asked, result) = play(read(&file, 8192), &[4196]);
    assert_eq!((asked.len(), result.unwrap()), (1, 4196));
    // A short read off the grid, before the end: all of it again, through the page cache.
    file.set_len(4 * BLOCK).unwrap();
    let (asked, result) = play(read(&file, 8192), &[512, 4096, 4096]);
    assert_eq!(asked, [(Way::ReadDirect, 0..8192), (Way::Read, 0..8192), (Way::Read, 4096..8192)]);
    assert_eq!(result.unwrap(), 8192);
    assert!(!os_file(file).unwrap().reads_device());
}

#[test]
fn what_would_block_is_punted() {
    let dir = Dir::new();
    let file = open(&dir, DurableWrite::DirectDsync);
    let mut task = write(&file, 4096, false);
    let Next::Request(request) = task.next() else { panic!("no request") };
    assert!(!request.is_punted);
    assert_eq!(task.take_turn(&request, 1), Turn::Taken);
    task.absorb(EAGAIN);
    let Next::Request(request) = task.next() else { panic!("no request") };
    assert!(request.is_punted);
    // A second time it is an error, not a loop.
    assert_eq!(task.take_turn(&request, 1), Turn::Taken);
    task.absorb(EAGAIN);
    assert!(matches!(task.next(), Next::Done(Err(_))));
}

/// Bug class 14, with a ring: whoever's sync failed, nobody's succeeds later.
#[test]
fn a_failed_sync_is_never_forgotten() {
    let sync = |file: &Arc<dyn DiskFile>| Task::new(0, Op::Sync { file: file.clone() }).unwrap();
    for (method, results) in
        [(DurableWrite::Dsync, [EIO].as_slice()), (DurableWrite::WriteThenSync, &[4096, EIO])]
    {
        let dir = Dir::new();
        let file = open(&dir, method);
        if !is_usable(&file) {
            return;
        }
        play(sync(&file), &[0]).1.unwrap();
        play(write(&file, 4096, true), results).1.unwrap_err();
        let again = play(sync(&file), &[]).1.unwrap_err();
        assert!(again.to_string().contains("an earlier sync"), "{again}");
        file.sync_data().unwrap_err();
    }
    // A blocking sync fails while a ring's is on its way: its success is not believed.
    let dir = Dir::new();
    let file = open(&dir, DurableWrite::DirectDsync);
    let mut task = sync(&file);
    let Next::Request(request) = task.next() else { panic!("no request") };
    assert_eq!(task.take_turn(&request, 1), Turn::Taken);
    let failed: io::Result<()> = os_file(file).unwrap().note_sync(Err(io::Error::from_raw_os_error(5)));
    failed.unwrap_err();
    task.absorb(0);
    assert!(matches!(task.next(), Next::Done(Err(_))));
}

#[test]
fn one_sync_at_a_time() {
    let dir = Dir::new();
    let file = open(&dir, DurableWrite::DirectDsync);
    if !is_usable(&file) {
        return;
    }
    let sync = || Task::new(0, Op::Sync { file: file.clone() }).unwrap();
    let (mut first, mut second, mut third) = (sync(), sync(), sync());
    let request = |task: &mut Task| match task.next() {
        Next::Request(request) => request,
        Next::Done(result) => panic!("{result:?}"),
    };
    let asked = request(&mut first);
    assert_eq!(first.take_turn(&asked, 1), Turn::Taken);
    let asked = request(&mut second);
    assert_eq!(second.take_turn(&asked, 1), Turn::Wait, "the queue's own sync is on its way");
    let asked = request(&mut third);
    assert_eq!(third.take_turn(&asked, 2), Turn::Never, "another queue's is");
    assert_eq!(third.finish_blocking().unwrap(), 0);
    drop(first);
    let asked = request(&mut second);
    assert_eq!(second.take_turn(&asked, 1), Turn::Taken, "a task that went away gave its turn back");
}

#[test]
fn impossible_operations_are_told_apart() {
    let dir = Dir::new();
    let file = open(&dir, DurableWrite::DirectDsync);
    let too_long =
        Op::Write { file: file.clone(), offset: 0, buf: filled(0, 4096), len: 4097, durable: true };
    let too_far = Op::Read { file, offset: u64::MAX, buf: filled(0, 4096), len: 1, from_device: false };
    for op in [too_long, too_far] {
        let (asked, result) = play(Task::new(0, op).unwrap(), &[]);
        assert!(asked.is_empty());
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
