//! The rules of `seawall_wal::disk::queue`, held against `SimDisk` over many seeds: what they promise always holds, and
//! what they do not promise *can* fail to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use seawall_wal::disk::sim::{self, Fault};
use seawall_wal::disk::{Completion, Disk, DiskFile, Op, Open, Queue, SimDisk};
use seawall_wal::runtime::{Rng, Runtime, SimRuntime};
use seawall_wal::{AlignedBuf, OsDisk};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const BLOCK: usize = 4096;

/// A file `/f` of `blocks` durable blocks of ones.
fn with_file(disk: &Arc<SimDisk>, blocks: usize) -> Arc<dyn DiskFile> {
    let file = disk.open(Path::new("/f"), Open::CreateNew).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_durable_at(&vec![1; blocks * BLOCK], 0).unwrap();
    file
}

fn write(file: &Arc<dyn DiskFile>, block: usize, byte: u8, durable: bool) -> Op {
    let mut buf = AlignedBuf::zeroed(BLOCK).unwrap();
    buf.fill(byte);
    Op::Write { file: file.clone(), offset: (block * BLOCK) as u64, buf, len: BLOCK, durable }
}

fn read(file: &Arc<dyn DiskFile>, block: usize) -> Op {
    let (file, buf) = (file.clone(), AlignedBuf::zeroed(BLOCK).unwrap());
    Op::Read { file, offset: (block * BLOCK) as u64, buf, len: BLOCK, from_device: true }
}

fn reap(queue: &mut dyn Queue, min: usize) -> Vec<Completion> {
    let mut out = Vec::new();
    queue.reap(min, &mut out).unwrap();
    out
}

/// A block after the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Old,
    New,
    Torn,
}

fn left(after: &SimDisk, block: usize, new: u8) -> Left {
    let bytes = after.read_file("/f").unwrap();
    let block = &bytes[block * BLOCK..(block + 1) * BLOCK];
    assert!(block.iter().all(|byte| [1, new].contains(byte)), "neither old nor new");
    match (block.contains(&1), block.contains(&new)) {
        (true, true) => Left::Torn,
        (true, false) => Left::Old,
        _ => Left::New,
    }
}

#[test]
fn completions_come_in_any_order_and_each_once() {
    let mut orders = BTreeSet::new();
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file = with_file(&disk, 4);
        let mut queue = disk.queue(3).unwrap();
        let first = queue.submit((0..4).map(|block| write(&file, block, 9, false)).collect()).unwrap();
        assert_eq!(queue.in_flight(), 4);
        let mut order: Vec<u64> = Vec::new();
        while queue.in_flight() > 0 {
            let done = reap(&mut *queue, 1);
            assert!(!done.is_empty());
            order.extend(done.into_iter().map(|done| done.token - first));
        }
        let is_sorted = order.is_sorted();
        assert_eq!(disk.counts().contains_key("completed out of order"), !is_sorted, "{order:?}");
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 4);
        orders.insert(order);
        let again = queue.submit(vec![read(&file, 3)]).unwrap();
        assert_eq!(again, first + 4, "tokens are never used again");
        let done = reap(&mut *queue, usize::MAX).pop().unwrap();
        assert!(done.from_device && done.buf.unwrap().iter().all(|byte| *byte == 9));
    }
    assert!(orders.len() > 20, "every order of four, nearly: {}", orders.len());
}

/// Q3 and Q4: reaped is durable, in flight is anything.
#[test]
fn a_durable_write_is_promised_when_it_is_reaped() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let file = with_file(&disk, 6);
        let mut queue = disk.queue(8).unwrap();
        queue.submit((0..6).map(|block| write(&file, block, 2, true)).collect()).unwrap();
        let reaped: Vec<u64> = reap(&mut *queue, 3).into_iter().map(|done| done.token).collect();
        let after = disk.crash();
        for block in 0..6 {
            let left = left(&after, block, 2);
            if reaped.contains(&(block as u64)) {
                assert_eq!(left, Left::New, "seed {seed}: block {block} was acknowledged");
            } else {
                seen.insert(left);
            }
        }
        // Whatever was in flight has failed by now.
        assert!(reap(&mut *queue, usize::MAX).iter().all(|done| done.result.is_err()));
    }
    assert_eq!(seen, BTreeSet::from([Left::Old, Left::New, Left::Torn]));
}

/// Q2: a sync covers what was reaped before it was submitted; what was in flight beside it, or not.
#[test]
fn a_sync_covers_what_was_reaped_before_it() {
    let mut beside = BTreeSet::new();
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let file = with_file(&disk, 4);
        let mut queue = disk.queue(8).unwrap();
        let is_ordered = seed % 2 == 0;
        let writes: Vec<Op> = (0..4).map(|block| write(&file, block, 3, false)).collect();
        queue.submit(writes).unwrap();
        if is_ordered {
            assert_eq!(reap(&mut *queue, 4).len(), 4);
        }
        queue.submit(vec![Op::Sync { file: file.clone() }]).unwrap();
        assert!(reap(&mut *queue, usize::MAX).iter().all(|done| done.result.is_ok()));
        let after = disk.crash();
        for block in 0..4 {
            let left = left(&after, block, 3);
            assert!(!is_ordered || left == Left::New, "seed {seed}");
            beside.insert(left);
        }
    }
    assert_eq!(beside, BTreeSet::from([Left::Old, Left::New, Left::Torn]));
}

#[test]
fn faults_strike_operations_one_by_one_and_are_counted() {
    let disk = SimDisk::new(5);
    let file = with_file(&disk, 8);
    disk.fail(Fault::eio(sim::Op::Write).at_call(3));
    let mut queue = disk.queue(4).unwrap();
    queue.submit((0..8).map(|block| write(&file, block, 4, false)).collect()).unwrap();
    let done = reap(&mut *queue, 8);
    assert_eq!(done.iter().filter(|done| done.result.is_err()).count(), 1, "Q6");
    assert_eq!(disk.counts()["eio"], 1);
    disk.fail(Fault::dropped_sync());
    queue.submit(vec![Op::Sync { file: file.clone() }]).unwrap();
    assert!(reap(&mut *queue, 1)[0].result.is_err());
    // The power fails while operations are in flight: they fail, and so does all that comes later.
    disk.fail(Fault::power_cut().at_call(2));
    queue.submit((0..3).map(|block| write(&file, block, 5, true)).collect()).unwrap();
    let done = reap(&mut *queue, 3);
    assert_eq!(done.len(), 3);
    assert!(done.iter().filter(|done| done.result.is_err()).count() >= 2);
    assert!(!disk.has_power());
    queue.submit(vec![read(&file, 0)]).unwrap();
    assert!(reap(&mut *queue, 1)[0].result.is_err());
}

#[test]
fn a_crash_with_operations_in_flight_is_counted() {
    let hit = (0..20).filter(|seed| {
        let disk = SimDisk::new(*seed);
        let file = with_file(&disk, 8);
        let mut queue = disk.queue(8).unwrap();
        queue.submit((0..8).map(|block| write(&file, block, 4, false)).collect()).unwrap();
        let _after = disk.crash();
        let counts = disk.counts();
        drop(queue);
        assert_eq!(
            disk.crash().counts().get("power lost with operations in flight").copied().unwrap_or(0),
            { counts.get("power lost with operations in flight").copied().unwrap_or(0) }
        );
        counts.contains_key("power lost with operations in flight")
    });
    assert!(hit.count() > 15);
}

#[test]
fn a_seed_is_one_history() {
    let run = |seed| {
        let runtime = SimRuntime::new(seed);
        let disk = match seed % 2 {
            0 => SimDisk::new(seed),
            _ => SimDisk::with_runtime(seed, runtime.clone()),
        };
        let file = with_file(&disk, 16);
        let mut rng = Rng::new(seed);
        let mut queue = disk.queue(1 + rng.below(8) as usize).unwrap();
        let mut tokens = Vec::new();
        for _ in 0..20 {
            let ops = (0..rng.below(6)).map(|_| match rng.below(4) {
                0 => Op::Sync { file: file.clone() },
                1 => read(&file, rng.below(16) as usize),
                kind => write(&file, rng.below(16) as usize, rng.below(256) as u8, kind == 2),
            });
            queue.submit(ops.collect()).unwrap();
            tokens.extend(reap(&mut *queue, rng.below(5) as usize).into_iter().map(|done| done.token));
        }
        drop(queue);
        (tokens, disk.trace_hash(), runtime.trace_hash())
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// In simulated time, too, what is in flight together takes little longer than one.
#[test]
fn operations_in_flight_share_their_time() {
    let time_for = |depth: usize| {
        let runtime = SimRuntime::new(3);
        let disk = SimDisk::with_runtime(3, runtime.clone());
        let file = with_file(&disk, 16);
        let mut queue = disk.queue(depth).unwrap();
        let before = runtime.now();
        queue.submit((0..16).map(|block| write(&file, block, 6, true)).collect()).unwrap();
        assert!(reap(&mut *queue, 16).iter().all(|done| done.result.is_ok()));
        runtime.now() - before
    };
    assert!(time_for(16) * 4 < time_for(1), "{:?} and {:?}", time_for(16), time_for(1));
}

/// Q8.
#[test]
fn a_queue_with_operations_in_flight_stays_with_its_thread() {
    let disk = SimDisk::new(8);
    let file = with_file(&disk, 2);
    let mut queue = disk.queue(2).unwrap();
    queue.submit(vec![write(&file, 0, 7, false)]).unwrap();
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| queue.reap(1, &mut Vec::new()).unwrap_err());
        assert_eq!(elsewhere.join().unwrap().kind(), std::io::ErrorKind::InvalidInput);
    });
    assert_eq!(reap(&mut *queue, 1).len(), 1);
    std::thread::scope(|scope| {
        scope.spawn(|| queue.submit(vec![write(&file, 1, 7, false)]).unwrap());
    });
}

/// Q7: what is dropped unreaped has happened or not, and leaves the file usable.
#[test]
fn a_dropped_queue_leaves_its_file_to_others() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = with_file(&disk, 4);
        let mut queue = disk.queue(4).unwrap();
        queue.submit((0..4).map(|block| write(&file, block, 8, true)).collect()).unwrap();
        drop(queue);
        assert_eq!(Arc::strong_count(&file), 1);
        for block in 0..4 {
            let mut bytes = [0; 1];
            file.read_at(&mut bytes, (block * BLOCK) as u64).unwrap();
            seen.insert(bytes[0]);
        }
        file.sync_data().unwrap();
    }
    assert_eq!(seen, BTreeSet::from([1, 8]));
}

#[test]
fn files_of_another_disk_are_served_too() {
    let (disk, other) = (SimDisk::new(1), SimDisk::new(2));
    let file = with_file(&other, 1);
    for mut queue in [disk.queue(2).unwrap(), OsDisk::new().queue(2).unwrap()] {
        queue.submit(vec![write(&file, 0, 2, true), Op::Sync { file: file.clone() }]).unwrap();
        assert!(reap(&mut *queue, 2).iter().all(|done| done.result.is_ok()));
    }
    assert_eq!(other.read_file("/f").unwrap()[0], 2);
}
