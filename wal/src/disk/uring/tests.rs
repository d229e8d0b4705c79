//! Queues on the real file system: every flavour of ring that this machine grants, and blocking calls beside them.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods, reason = "a test may")]

use super::*;
use crate::buf::AlignedBuf;
use crate::disk::os::tests::{Dir, filled};
use crate::disk::os::{DurableWrite, OsOptions};
use crate::disk::queue::BlockingQueue;
use crate::disk::{BLOCK_BYTES, Disk, DiskFile, Io, Open, OsDisk};
use crate::runtime::Rng;
use std::path::Path;
use std::sync::Arc;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A queue of each kind, named.
fn queues(depth: usize) -> Vec<(String, Box<dyn Queue>)> {
    let mut all: Vec<(String, Box<dyn Queue>)> =
        vec![("blocking".to_owned(), Box::new(BlockingQueue::default()))];
    for flavour in Flavour::ALL {
        match UringQueue::new(flavour, depth) {
            Ok(queue) => all.push((flavour.to_string(), Box::new(queue))),
            Err(error) => eprintln!("{flavour}: not here ({error})"),
        }
    }
    all
}

fn has_rings() -> bool {
    probe().inspect_err(|why| eprintln!("skipped: {why}")).is_ok()
}

fn new_file(dir: &Path, name: &str, method: DurableWrite, blocks: u64) -> Arc<dyn DiskFile> {
    let options = OsOptions { durable_write: Some(method), ..OsOptions::default() };
    let file = OsDisk::with(options).open(&dir.join(name), Open::CreateNew).unwrap();
    file.allocate(0, blocks * BLOCK).unwrap();
    file
}

fn write(file: &Arc<dyn DiskFile>, offset: u64, buf: AlignedBuf, len: usize, durable: bool) -> Op {
    Op::Write { file: file.clone(), offset, buf, len, durable }
}

fn read(file: &Arc<dyn DiskFile>, offset: u64, len: usize, from_device: bool) -> Op {
    Op::Read { file: file.clone(), offset, buf: AlignedBuf::zeroed(len).unwrap(), len, from_device }
}

fn reap_all(queue: &mut dyn Queue) -> Vec<Completion> {
    let mut out = Vec::new();
    queue.reap(usize::MAX, &mut out).unwrap();
    assert_eq!(queue.in_flight(), 0);
    out
}

/// Random operations, many more than the depth, on disjoint ranges, against a model of the file.
fn against_a_model(queue: &mut dyn Queue, file: &Arc<dyn DiskFile>, seed: u64) {
    const SLOTS: u64 = 32;
    const SLOT_BYTES: u64 = 4 * BLOCK;
    let mut rng = Rng::new(seed);
    let mut model = vec![0_u8; (SLOTS * SLOT_BYTES) as usize];
    for _ in 0..12 {
        let mut ops = Vec::new();
        let mut expected = Vec::new();
        for slot in 0..SLOTS {
            let is_aligned = rng.chance(2, 3);
            let (at, len) = if is_aligned {
                (rng.below(3) * BLOCK, (1 + rng.below(2)) * BLOCK)
            } else {
                (rng.below(BLOCK), 1 + rng.below(2 * BLOCK))
            };
            let (start, len) = ((slot * SLOT_BYTES + at) as usize, len.min(SLOT_BYTES - at) as usize);
            match rng.below(8) {
                0 => ops.push(Op::Sync { file: file.clone() }),
                1..=3 => ops.push(read(file, start as u64, len, rng.chance(1, 2))),
                kind => {
                    let byte = rng.below(255) as u8 + 1;
                    model[start..start + len].fill(byte);
                    ops.push(write(file, start as u64, filled(byte, len), len, kind > 5));
                }
            }
            expected.push((start, len));
        }
        let first = queue.submit(ops).unwrap();
        let mut done = Vec::new();
        while queue.in_flight() > 0 {
            let before = done.len();
            let min = (1 + rng.below(8) as usize).min(queue.in_flight());
            queue.reap(min, &mut done).unwrap();
            assert!(done.len() - before >= min);
        }
        let mut tokens: Vec<u64> = done.iter().map(|done| done.token - first).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, (0..SLOTS).collect::<Vec<u64>>(), "each completes once");
        for done in done {
            let (start, len) = expected[(done.token - first) as usize];
            match done.buf {
                None => assert_eq!(done.result.unwrap(), 0),
                Some(buf) => {
                    assert_eq!(done.result.unwrap(), len);
                    // A slot that was read was not written in this round.
                    assert_eq!(buf[..len], model[start..start + len]);
                }
            }
        }
    }
    let mut found = vec![0; model.len()];
    assert_eq!(file.read_at(&mut found, 0).unwrap(), model.len());
    assert!(found == model);
}

#[test]
fn every_queue_does_what_the_model_does() {
    for method in DurableWrite::ALL {
        let dir = Dir::new();
        for (seed, (name, mut queue)) in queues(8).into_iter().enumerate() {
            let file = new_file(&dir.path(""), &name.replace(' ', "-"), method, 128);
            against_a_model(&mut *queue, &file, seed as u64);
        }
    }
}

/// A file system without direct I/O, on older kernels, and with it on newer ones.
#[test]
fn queues_work_in_memory_too() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        return;
    }
    let dir = Dir::below(shm);
    for (name, mut queue) in queues(4) {
        let file = new_file(&dir.path(""), &name.replace(' ', "-"), DurableWrite::DirectDsync, 128);
        against_a_model(&mut *queue, &file, 1);
    }
}

/// Several queues on one file, each in a thread of its own, syncing in each other's way.
#[test]
fn several_threads_stress_one_file() {
    if !has_rings() {
        return;
    }
    let dir = Dir::new();
    for method in [DurableWrite::DirectDsync, DurableWrite::Dsync] {
        let file = new_file(&dir.path(""), &format!("{method}").replace(' ', ""), method, 64);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let file = &file;
                scope.spawn(move || {
                    let mut queue = UringQueue::new(probe().unwrap(), 8).unwrap();
                    for round in 0..60 {
                        let byte = (thread * 60 + round) as u8;
                        let mut ops: Vec<Op> = (0..16)
                            .map(|block| {
                                let offset = (thread * 16 + block) * BLOCK;
                                write(file, offset, filled(byte, BLOCK_BYTES), BLOCK_BYTES, block % 3 == 0)
                            })
                            .collect();
                        ops.push(Op::Sync { file: file.clone() });
                        ops.push(Op::Sync { file: file.clone() });
                        queue.submit(ops).unwrap();
                        assert!(reap_all(&mut queue).into_iter().all(|done| done.result.is_ok()));
                        let reads = (0..16).map(|block| {
                            read(file, (thread * 16 + block) * BLOCK, BLOCK_BYTES, block % 2 == 0)
                        });
                        queue.submit(reads.collect()).unwrap();
                        for done in reap_all(&mut queue) {
                            assert!(done.buf.unwrap().iter().all(|found| *found == byte));
                        }
                    }
                });
            }
        });
    }
}

/// The kernel writes into a read's buffer until it is done: memory given back before would change under its next
/// owner.
#[test]
fn memory_outlives_a_queue_that_is_dropped() {
    let dir = Dir::new();
    let file = new_file(&dir.path(""), "file", DurableWrite::DirectDsync, 256);
    file.write_at(&[0xAA; 256 * BLOCK_BYTES], 0).unwrap();
    file.sync_data().unwrap();
    for flavour in Flavour::ALL {
        for round in 0..50_u64 {
            let Ok(mut queue) = UringQueue::new(flavour, 16) else { break };
            let ops = (0..32).map(|n| read(&file, (n * 5 + round) % 200 * BLOCK, 8 * BLOCK_BYTES, true));
            queue.submit(ops.collect()).unwrap();
            let mut done = Vec::new();
            queue.reap((round % 3) as usize, &mut done).unwrap();
            let begun = queue.in_kernel();
            if round % 2 == 0 {
                drop(queue);
            } else {
                let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                    let _queue = queue;
                    std::panic::resume_unwind(Box::new("with I/O in flight"));
                }));
                assert!(panicked.is_err());
            }
            assert!(begun > 0 || round > 0, "nothing was in flight");
            // The same addresses, most likely.
            let fresh: Vec<AlignedBuf> =
                (0..32).map(|_| AlignedBuf::zeroed(8 * BLOCK_BYTES).unwrap()).collect();
            std::thread::yield_now();
            assert!(fresh.iter().all(|buf| buf.iter().all(|byte| *byte == 0)));
        }
    }
    assert_eq!(Arc::strong_count(&file), 1, "operations that are over have let go of their file");
}

/// Q8, and what it leaves open.
#[test]
fn a_queue_goes_to_another_thread_when_it_is_idle() {
    for (name, mut queue) in queues(8) {
        let dir = Dir::new();
        let file = new_file(&dir.path(""), "file", DurableWrite::DirectDsync, 64);
        let ops = || (0..8).map(|n| read(&file, n * 2 * BLOCK, BLOCK_BYTES, true)).collect::<Vec<Op>>();
        queue.submit(ops()).unwrap();
        assert_eq!(reap_all(&mut *queue).len(), 8);
        let again = ops();
        let mut queue = std::thread::spawn(move || {
            queue.submit(again).unwrap();
            assert_eq!(reap_all(&mut *queue).len(), 8);
            queue
        })
        .join()
        .unwrap();
        queue.submit(ops()).unwrap();
        assert_eq!(reap_all(&mut *queue).len(), 8, "{name}: and back");
    }
    let Ok(mut queue) = UringQueue::new(Flavour::OneThread, 8) else { return };
    let dir = Dir::new();
    let file = new_file(&dir.path(""), "file", DurableWrite::DirectDsync, 64);
    queue.submit((0..8).map(|n| read(&file, n * BLOCK, BLOCK_BYTES, true)).collect()).unwrap();
    assert!(queue.in_kernel() > 0);
    let (queue, error) = std::thread::spawn(move || {
        let mut out = Vec::new();
        let error = queue.reap(1, &mut out).unwrap_err();
        (queue, error)
    })
    .join()
    .unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    // A drop where it cannot wait keeps what the kernel may still use.
    std::thread::spawn(move || drop(queue)).join().unwrap();
    assert!(Arc::strong_count(&file) > 1);
}

#[test]
fn files_of_other_disks_are_served_by_their_own_methods() {
    let sim = crate::SimDisk::new(1);
    let file = sim.open(Path::new("/file"), Open::CreateNew).unwrap();
    for (_, mut queue) in queues(2) {
        queue
            .submit(vec![write(&file, 0, filled(9, 4096), 4096, true), Op::Sync { file: file.clone() }])
            .unwrap();
        assert!(reap_all(&mut *queue).into_iter().all(|done| done.result.is_ok()));
        queue.submit(vec![read(&file, 0, 8192, false)]).unwrap();
        let done = reap_all(&mut *queue).pop().unwrap();
        assert_eq!(done.result.unwrap(), 4096);
        assert_eq!(done.buf.unwrap()[..4096], [9; 4096]);
    }
}

#[test]
fn the_choice_is_reported() {
    let dir = Dir::new();
    let with = |io| OsDisk::try_with(OsOptions { io, ..OsOptions::default() });
    let backend = with(Io::Blocking).unwrap().describe(&dir.path(""));
    assert_eq!(backend.name, "blocking");
    assert!(backend.reason.starts_with("blocking calls were asked for"), "{}", backend.reason);
    match probe() {
        Ok(flavour) => {
            let backend = with(Io::Uring).unwrap().describe(&dir.path(""));
            assert_eq!(backend.name, "uring");
            assert!(backend.reason.starts_with(&flavour.to_string()), "{}", backend.reason);
        }
        Err(why) => assert!(with(Io::Uring).unwrap_err().to_string().contains(&why)),
    }
}
