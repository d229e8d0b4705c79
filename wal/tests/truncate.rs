//! Cutting a log's end off: what is left, what is said of it, what readers meet, and what may never come back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use seawall_wal::disk::sim::{CrashStyle, Damage, Fault, Op};
use seawall_wal::mutation::Mutation;
use seawall_wal::runtime::Rng;
use seawall_wal::{
    Durability, Error, Lsn, Next, Record, Repair, Runtime, SimDisk, SimRuntime, Ticket, Wal, WalOptions,
    WalReader,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SEGMENT: u64 = 64 << 10;
const DIR: &str = "/log";
const SHORT: Duration = Duration::from_millis(1);

fn options(disk: &Arc<SimDisk>) -> WalOptions {
    Wal::options()
        .segment_bytes(SEGMENT)
        .disk(disk.clone())
        .runtime(SimRuntime::new(disk.trace_hash()))
        .background(false)
}

fn open(disk: &Arc<SimDisk>) -> Wal {
    options(disk).open(DIR).unwrap()
}

fn new() -> (Arc<SimDisk>, Wal) {
    let disk = SimDisk::new(1);
    let wal = open(&disk);
    (disk, wal)
}

fn records(wal: &Wal) -> Vec<Record> {
    wal.read(..).unwrap().map(Result::unwrap).collect()
}

fn brief(records: &[Record]) -> Vec<(Lsn, Lsn, Vec<u8>)> {
    records.iter().map(|record| (record.lsn, record.end, record.payload.to_vec())).collect()
}

/// What is left after a kill, and after a power cut that keeps no more than it must.
fn reopened(disk: &Arc<SimDisk>) -> [Arc<SimDisk>; 2] {
    disk.set_crash_style(Some(CrashStyle::KeepNone));
    let barely = disk.crash_copy();
    disk.set_crash_style(Some(CrashStyle::KeepAll));
    [barely, disk.crash_copy()]
}

fn file(number: u64) -> String {
    format!("{DIR}/{number:016x}.log")
}

/// Batches, records that no frame holds, segments: some forty records.
fn mixed(seed: u64) -> (Arc<SimDisk>, Wal, Vec<Record>) {
    let disk = SimDisk::new(seed);
    let wal = open(&disk);
    let mut rng = Rng::new(seed);
    for n in 0..24u8 {
        let len = [10, 300, 5_000, 30_000, 70_000, 150_000][rng.below(6) as usize];
        let mut bytes = vec![n; len];
        rng.fill(&mut bytes);
        if rng.chance(1, 3) {
            wal.append_batch(&[&bytes[..], &[n; 200], &vec![n; rng.below(50_000) as usize]]).unwrap();
        } else {
            wal.commit_with(&bytes, Durability::Written).unwrap();
        }
        if rng.chance(1, 3) {
            wal.sync().unwrap();
        }
    }
    wal.sync().unwrap();
    let all = records(&wal);
    (disk, wal, all)
}

/// At the beginning, at the end and between any two records: exactly those before are left, in this process, in the
/// next and after a power cut; what comes next stands behind all that ever was.
#[test]
fn a_log_is_cut_anywhere() {
    for seed in 0..3 {
        let (disk, wal, all) = mixed(seed);
        drop(wal);
        assert!(all.len() > 24);
        for left in 0..=all.len() {
            let at = all.get(left).map_or(all.last().unwrap().end, |record| record.lsn);
            let again = disk.crash_copy();
            let wal = open(&again);
            let what = format!("seed {seed}, {left} of {} left, at {at}", all.len());
            let before = wal.next_lsn();
            wal.truncate_after(at).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(brief(&records(&wal)), brief(&all[..left]), "{what}");
            assert_eq!(wal.durable_lsn(), at, "{what}");
            assert_eq!(wal.written_lsn(), at, "{what}");
            assert_eq!(wal.reserved_lsn(), at, "{what}");
            assert!(wal.next_lsn() >= before, "{what}");
            assert_eq!(wal.sync().unwrap(), at);
            for next in reopened(&again) {
                let wal = open(&next);
                assert_eq!(brief(&records(&wal)), brief(&all[..left]), "{what}, again");
                assert!(wal.durable_lsn() <= at.max(wal.next_lsn()));
                assert!(wal.commit(b"next").unwrap() > all.last().unwrap().lsn, "{what}");
                assert_eq!(records(&wal).len(), left + 1);
                let reader = WalReader::open_with(DIR, Lsn::ZERO, &options(&next)).unwrap();
                assert_eq!(reader.count(), left + 1, "{what}, read beside it");
            }
            let next = wal.commit(b"next").unwrap();
            assert!(next > all.last().unwrap().lsn, "{what}");
            assert!(wal.durable_lsn() > next);
            for disk in reopened(&again) {
                let wal = open(&disk);
                let found = records(&wal);
                assert_eq!(brief(&found[..left]), brief(&all[..left]), "{what}, and went on");
                assert_eq!(found[left].payload, b"next", "{what}");
                assert_eq!(found.len(), left + 1);
            }
        }
    }
}

/// Again and again, at random places, with work between, ends and power cuts.
#[test]
fn cut_upon_cut() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let (mut disk, mut wal, mut all) = mixed(seed);
        for round in 0..8 {
            let left = rng.below(all.len() as u64 + 1) as usize;
            let at = all.get(left).map_or(wal.next_lsn(), |record| record.lsn);
            wal.truncate_after(at).unwrap();
            all.truncate(left);
            for n in 0..rng.below(5) {
                wal.commit(vec![n as u8; rng.below(90_000) as usize]).unwrap();
            }
            if rng.chance(1, 4) && !all.is_empty() {
                let first = all[rng.below(all.len() as u64) as usize].lsn;
                wal.truncate_before(first).unwrap();
            }
            let found = records(&wal);
            let reclaimed = all.iter().take_while(|record| record.lsn < wal.first_lsn()).count();
            all.drain(..reclaimed);
            let lsns = |records: &[Record]| records.iter().map(|r| (r.lsn, r.end)).collect::<Vec<_>>();
            assert!(
                found.len() >= all.len(),
                "seed {seed}, round {round}, cut at {at}, from {}: {:?} of {:?}",
                wal.first_lsn(),
                lsns(&found),
                lsns(&all)
            );
            assert_eq!(brief(&found[..all.len()]), brief(&all), "seed {seed}, round {round}");
            all = found;
            disk = match rng.below(3) {
                0 => continue,
                1 => {
                    wal.close().unwrap();
                    disk
                }
                _ => disk.crash(),
            };
            wal = open(&disk);
            assert_eq!(brief(&records(&wal)), brief(&all), "seed {seed}, round {round}, again");
        }
    }
}

#[test]
fn impossible_positions_are_refused_and_change_nothing() {
    let (_disk, wal, all) = mixed(5);
    let end = wal.next_lsn();
    let bad = [Lsn::ZERO, Lsn(wal.first_lsn().0 - 1), end.plus(1), Lsn::MAX]
        .into_iter()
        .chain(all.iter().flat_map(|record| [record.lsn.plus(1), Lsn(record.end.0 - 1)]))
        .filter(|lsn| all.iter().all(|record| record.lsn != *lsn && record.end != *lsn));
    for lsn in bad {
        let refused = wal.truncate_after(lsn);
        assert!(matches!(refused, Err(Error::BadInput(_))), "{lsn}: {refused:?}");
    }
    for lsn in [end, all.last().unwrap().end, wal.durable_lsn()] {
        wal.truncate_after(lsn).unwrap();
    }
    assert_eq!((wal.next_lsn(), brief(&records(&wal))), (end, brief(&all)));
    wal.clone().close().unwrap();
    assert!(matches!(wal.truncate_after(end), Err(Error::Closed)));
}

#[test]
fn an_empty_log_and_a_read_only_one() {
    let (disk, wal) = new();
    wal.truncate_after(wal.first_lsn()).unwrap();
    wal.truncate_after(wal.next_lsn()).unwrap();
    let lsn = wal.commit(b"one").unwrap();
    wal.truncate_after(wal.first_lsn()).unwrap();
    assert!(records(&wal).is_empty());
    assert!(wal.commit(b"two").unwrap() > lsn);
    wal.close().unwrap();
    let wal = options(&disk).read_only(true).open(DIR).unwrap();
    assert!(matches!(wal.truncate_after(wal.first_lsn()), Err(Error::ReadOnly)));
}

/// What has its place is acknowledged before it is dropped; what comes afterwards is behind it.
#[test]
fn tickets_resolve_first() {
    let (_disk, wal) = new();
    let kept = wal.commit(b"kept").unwrap();
    let tickets: Vec<Ticket> = (0..3).map(|_| wal.commit_pipelined(b"dropped").unwrap()).collect();
    wal.append(b"dropped, and nobody asked").unwrap();
    let at = tickets[0].lsn();
    wal.truncate_after(at).unwrap();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    let behind = wal.commit_pipelined(b"behind").unwrap();
    assert!(behind.lsn() > at);
    behind.wait().unwrap();
    let found: Vec<_> = records(&wal).iter().map(|record| record.payload.to_vec()).collect();
    assert_eq!((found, kept < at), (vec![b"kept".to_vec(), b"behind".to_vec()], true));
}

#[test]
fn followers_before_the_cut_go_on_and_those_behind_are_told() {
    let (_disk, wal) = new();
    let lsns: Vec<Lsn> = (0..6u8).map(|n| wal.commit(vec![n; 30_000]).unwrap()).collect();
    let mut shown: Vec<WalReader> = (0..7).map(|_| wal.follow(Lsn::ZERO).unwrap()).collect();
    for (n, follower) in shown.iter_mut().enumerate() {
        assert_eq!(follower.by_ref().take(n).count(), n);
    }
    let mut reader = wal.read(..).unwrap();
    let mut short = wal.read(..lsns[3]).unwrap();
    let mut late = wal.follow(lsns[4]).unwrap();
    let [before, behind] = [lsns[2], lsns[4]].map(|lsn| wal.pin("test", lsn).unwrap());
    wal.truncate_after(lsns[3]).unwrap();
    wal.commit(b"instead").unwrap();
    for (n, follower) in shown.iter_mut().enumerate() {
        if n > 3 {
            let told = follower.next_timeout(SHORT);
            assert!(matches!(told, Err(Error::Truncated { at }) if at == lsns[3]), "{n}: {told:?}");
            assert!(follower.next().is_none(), "after an error there is no more");
            continue;
        }
        let rest: Vec<u8> = follower.by_ref().take(4 - n).map(|record| record.unwrap().payload[0]).collect();
        let expected: Vec<u8> = (n as u8..3).chain([b'i']).collect();
        assert_eq!(rest, expected, "{n}");
        assert!(matches!(follower.next_timeout(SHORT).unwrap(), Next::TimedOut));
    }
    assert!(matches!(late.next_timeout(SHORT), Err(Error::Truncated { .. })));
    assert_eq!(reader.by_ref().take(3).filter(|record| record.is_ok()).count(), 3);
    assert!(matches!(reader.next(), Some(Err(Error::Truncated { .. }))), "its part was cut short");
    assert_eq!(short.by_ref().filter(|record| record.is_ok()).count(), 3);
    assert!(matches!(wal.follow(lsns[4]), Err(Error::Truncated { .. })), "nothing stands there any more");
    before.advance(lsns[3]).unwrap();
    assert!(matches!(behind.advance(wal.durable_lsn()), Err(Error::Truncated { .. })));
}

/// A follower that sleeps is woken: to be told, or to go on.
#[test]
fn sleeping_followers_are_woken() {
    for seed in 0..20 {
        let runtime = SimRuntime::new(seed);
        let disk = SimDisk::with_runtime(seed, runtime.clone());
        let options = Wal::options().segment_bytes(SEGMENT).disk(disk).runtime(runtime.clone());
        let wal = options.open(DIR).unwrap();
        wal.commit(b"kept").unwrap();
        let lsn = wal.commit(b"dropped").unwrap();
        let told = Arc::new(AtomicBool::new(false));
        let follower = wal.follow(Lsn::ZERO).unwrap();
        let told_in = told.clone();
        let body = move || {
            let errors = follower.filter_map(Result::err).collect::<Vec<_>>();
            told_in.store(matches!(errors[..], [Error::Truncated { .. }]), Ordering::SeqCst);
        };
        let thread = runtime.spawn("follower", Box::new(body)).unwrap();
        let committers: Vec<_> = (0..2u8)
            .map(|i| {
                let wal = wal.clone();
                let body = move || (0..5).for_each(|n| assert!(wal.commit(vec![i; n * 9_000]).is_ok()));
                runtime.spawn("committer", Box::new(body)).unwrap()
            })
            .collect();
        // By then the follower has shown it, or not; at the latest the next cut it has.
        wal.truncate_after(lsn).unwrap();
        for committer in committers {
            assert!(!committer.join(), "seed {seed}");
        }
        runtime.sleep(Duration::from_secs(1));
        wal.truncate_after(wal.first_lsn()).unwrap();
        assert!(!thread.join() && told.load(Ordering::SeqCst), "seed {seed}");
        assert!(records(&wal).is_empty());
        wal.close().unwrap();
    }
}

/// Files of dropped segments are used again, and what stands in them is not.
#[test]
fn recycled_files_bring_nothing_back() {
    let (disk, wal) = new();
    let kept = wal.commit(vec![1; 100]).unwrap();
    for _ in 0..8 {
        wal.commit(vec![2; 50_000]).unwrap();
    }
    let at = records(&wal)[1].lsn;
    wal.truncate_after(at).unwrap();
    for n in 0..8 {
        wal.commit(vec![3; 50_000]).unwrap();
        for disk in reopened(&disk) {
            let found = records(&open(&disk));
            assert_eq!(found[0].lsn, kept);
            assert!(found[1..].iter().all(|record| record.payload[0] == 3) && found.len() == n + 2);
        }
    }
    assert!(wal.stats().segments_recycled > 0);
}

/// The header that cuts the log is damaged at rest: what it dropped does not come back, the log is refused.
fn a_damaged_cut_is_refused(mutation: Option<Mutation>) -> bool {
    let disk = SimDisk::new(3);
    let wal = options(&disk).mutation(mutation).open(DIR).unwrap();
    wal.commit(b"kept").unwrap();
    let at = wal.commit(b"dropped").unwrap();
    wal.truncate_after(at).unwrap();
    let number = wal.next_lsn().0 / SEGMENT;
    let disk = disk.kill();
    disk.damage(file(number), &Damage::Flip { offset: 70, mask: 4 }).unwrap();
    match options(&disk).open(DIR) {
        Err(Error::Corruption { .. }) => true,
        Err(error) => panic!("{error}"),
        Ok(wal) => {
            assert_eq!(records(&wal).len(), 2);
            false
        }
    }
}

#[test]
fn a_cut_does_not_heal_by_damage() {
    assert!(a_damaged_cut_is_refused(None));
    assert!(!a_damaged_cut_is_refused(Some(Mutation::CutWithoutAnchor)), "the mistake goes unnoticed");
}

/// The power fails before the anchor says so: the next opening does.
#[test]
fn the_next_opening_vouches_for_a_cut() {
    let mut cuts = 0;
    for call in 1..60 {
        let (disk, wal) = new();
        wal.commit(b"kept").unwrap();
        let at = wal.commit(b"dropped").unwrap();
        disk.fail(Fault::power_cut().at_call(call));
        let cut = wal.truncate_after(at);
        if cut.is_ok() {
            assert!(call > 8);
            break;
        }
        for disk in [disk.crash(), disk.crash()] {
            let wal = open(&disk);
            let left = records(&wal).len();
            let number = wal.next_lsn().0 / SEGMENT;
            let disk = disk.kill();
            if left == 1 {
                cuts += 1;
                disk.damage(file(number), &Damage::Flip { offset: 70, mask: 4 }).unwrap();
                assert!(matches!(options(&disk).open(DIR), Err(Error::Corruption { .. })), "call {call}");
            }
        }
    }
    assert!(cuts > 0);
}

/// An owner that has applied what was dropped is refused; one that has not goes on, whatever it knew to be durable.
#[test]
fn an_owner_that_is_ahead_is_refused() {
    let (disk, wal) = new();
    wal.commit(b"applied").unwrap();
    let replay = wal.barrier().unwrap();
    let first = wal.commit(b"kept").unwrap();
    let dropped = wal.commit(b"dropped").unwrap();
    let ahead = wal.barrier().unwrap();
    let known = wal.durable_lsn();
    wal.truncate_after(dropped).unwrap();
    let behind = wal.barrier().unwrap();
    let disk = disk.kill();
    let at = |replay: Lsn, known: Lsn| {
        let read_only = options(&disk).read_only(true).start(replay, known);
        read_only.open(DIR).map(|wal| wal.read(replay..).unwrap().count())
    };
    assert_eq!(at(replay, known).unwrap(), 1);
    assert_eq!(at(first, known).map_err(|_| ()), at(first, known).map_err(|_| ()));
    assert_eq!(at(behind, known).unwrap(), 0);
    assert!(matches!(at(ahead, known), Err(Error::Corruption { .. })));
}

#[test]
fn a_full_disk_refuses_a_cut_and_changes_nothing() {
    let (disk, wal) = new();
    let at = wal.commit(b"one").unwrap();
    disk.set_capacity(SEGMENT + (12 << 10));
    assert!(matches!(wal.truncate_after(at), Err(Error::NoSpace)));
    assert_eq!(records(&wal).len(), 1);
    wal.commit(b"two").unwrap();
    disk.set_capacity(u64::MAX);
    wal.truncate_after(at).unwrap();
    assert!(records(&wal).is_empty());
}

/// The header may be there, or not: the log says no more, and reopening decides.
#[test]
fn a_failed_header_poisons() {
    let mut left = [0; 2];
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let wal = open(&disk);
        let at = wal.commit(b"one").unwrap();
        disk.fail(Fault::eio(Op::WriteDurable).path_contains("urgent"));
        assert!(matches!(wal.truncate_after(at), Err(Error::Io { .. })));
        assert!(matches!(wal.commit(b"two"), Err(Error::Poisoned(_))));
        assert!(matches!(wal.truncate_after(at), Err(Error::Poisoned(_))));
        disk.clear_faults();
        left[records(&open(&disk.kill())).len()] += 1;
    }
    assert!(left[0] > 0 && left[1] > 0, "{left:?}");
}

/// A damaged record behind the cut is cut off; one before it is still found.
#[test]
fn damage_and_cuts() {
    let (disk, wal) = new();
    wal.commit(vec![1; 5_000]).unwrap();
    let at = wal.commit(vec![2; 5_000]).unwrap();
    wal.commit(vec![3; 5_000]).unwrap();
    wal.truncate_after(at).unwrap();
    wal.commit(vec![4; 5_000]).unwrap();
    let disk = disk.kill();
    // Dropped bytes are nobody's.
    disk.damage(file(1), &Damage::Flip { offset: 4096 * 4, mask: 1 }).unwrap();
    assert_eq!(records(&open(&disk)).len(), 2);
    let disk = disk.kill();
    disk.damage(file(1), &Damage::Flip { offset: 4096 + 2000, mask: 1 }).unwrap();
    assert!(matches!(options(&disk).open(DIR), Err(Error::Corruption { .. })));
    let salvaged = options(&disk).repair(Repair::TruncateAtFirstError).open(DIR).unwrap();
    assert!(records(&salvaged).is_empty());
}
