//! Bugs that real engines shipped (`docs/failure-model.md`), looked for in a replica's log. Each test is itself tried: on a
//! log, or a disk, that has the bug it must fail.

use super::*;
use seawall_wal::disk::sim::NameHabit;
use seawall_wal::disk::{Backend, DiskFile};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which names a disk forgets to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgets {
    /// None.
    Nothing,
    /// Those of new files.
    New,
    /// Those that old segments were renamed to.
    Renamed,
}

/// A disk on which names are not synced, once a file came to its name in a certain way.
#[derive(Debug)]
struct Forgetful {
    inner: Arc<SimDisk>,
    forgets: Forgets,
    has_begun: AtomicBool,
}

impl Disk for Forgetful {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open(path, how)
    }
    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        let was_segment = source.extension().is_some_and(|extension| extension == "log");
        let is_it = match self.forgets {
            Forgets::Nothing => false,
            Forgets::New => !was_segment,
            Forgets::Renamed => was_segment,
        };
        self.has_begun.fetch_or(is_it, Ordering::SeqCst);
        self.inner.rename(source, target)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.has_begun.load(Ordering::SeqCst) { Ok(()) } else { self.inner.sync_dir(dir) }
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }
    fn lock_holder(&self, path: &Path) -> Option<u32> {
        self.inner.lock_holder(path)
    }
    fn describe(&self, dir: &Path) -> Backend {
        self.inner.describe(dir)
    }
}

/// What a power cut leaves that keeps nothing it need not keep: it must open, and hold what was acknowledged.
fn check_kept(disk: &Arc<SimDisk>, all: &[(Lsn, Vec<u8>)], acked: Lsn) -> std::result::Result<(), String> {
    disk.set_crash_style(Some(CrashStyle::KeepNone));
    let after = disk.crash_copy();
    disk.set_crash_style(None);
    let kept = options(&after).replica(true).open(DIR).map_err(|error| error.to_string())?;
    let found: Vec<_> = kept.read(..).map_err(|error| error.to_string())?.collect();
    let last = all.iter().rfind(|(lsn, _)| *lsn < acked).map(|(lsn, _)| *lsn);
    let newest = match found.last() {
        Some(Ok(record)) => Some(record.lsn),
        Some(Err(error)) => return Err(error.to_string()),
        None => None,
    };
    if newest < last || kept.durable_lsn() < acked {
        return Err(format!("{last:?} was acknowledged, the last that was kept is {newest:?}"));
    }
    Ok(())
}

/// A replica is shipped a segment's worth at a time, and after each acknowledgement the power fails; with `gives_back` its
/// older log is released meanwhile, so that its files are used again. How many files were made, and how many used again.
fn names_are_kept(forgets: Forgets, gives_back: bool) -> std::result::Result<(u64, u64), String> {
    let primary = open(&SimDisk::new(1));
    let sim = new_replica(&primary, 2);
    sim.set_name_habit(NameHabit::Strict);
    let disk: Arc<dyn Disk> =
        Arc::new(Forgetful { inner: Arc::clone(&sim), forgets, has_begun: AtomicBool::new(false) });
    let replica = options(&sim).disk(disk).replica(true).open(DIR).map_err(|error| error.to_string())?;
    for round in 0..24 {
        primary.commit(vec![round; 30_000]).unwrap();
        ship_all(&primary, &replica, &mut Rng::new(round.into()));
        let acked = replica.durable_lsn();
        assert_eq!(acked, primary.durable_lsn());
        check_kept(&sim, &records(&primary), acked)?;
        if gives_back && round % 6 == 5 {
            replica.truncate_before(acked).unwrap();
            while replica.step().unwrap() {}
        }
    }
    let stats = replica.stats();
    Ok((stats.segments_created, stats.segments_recycled))
}

#[test]
fn bug_02_the_name_of_a_replicas_new_segment_not_synced() {
    let (created, _) = names_are_kept(Forgets::Nothing, false).unwrap();
    assert!(created >= 8, "{created} files were made");
    let missed = names_are_kept(Forgets::New, false);
    assert!(missed.is_err(), "a disk that forgets the names of new files is not noticed: {missed:?}");
}

#[test]
fn bug_03_a_segment_renamed_for_a_shipped_header_without_a_directory_sync() {
    let (_, recycled) = names_are_kept(Forgets::Nothing, true).unwrap();
    assert!(recycled >= 4, "{recycled} files were used again");
    let missed = names_are_kept(Forgets::Renamed, true);
    assert!(missed.is_err(), "a disk that forgets renamed files is not noticed: {missed:?}");
}

/// A replica takes one piece after the other; what it says is durable a power cut right then must leave.
fn acknowledged_is_kept(seed: u64, mutation: Option<Mutation>) -> std::result::Result<(), String> {
    let primary = open(&SimDisk::new(seed));
    let sim = new_replica(&primary, seed + 100);
    let replica = options(&sim).mutation(mutation).replica(true).open(DIR).unwrap();
    let mut rng = Rng::new(seed);
    let mut acked = Lsn::ZERO;
    for _ in 0..4 {
        write(&primary, &mut rng, 4);
        let all = records(&primary);
        let mut shipper = primary.ship(replica.tail().place).unwrap();
        while let Some(piece) = shipper.next_piece(PIECE).unwrap() {
            let received = replica.accept(&piece).unwrap();
            // Received is not durable, and nobody is told that it is.
            assert_eq!(replica.durable_lsn(), acked);
            assert!(received >= acked);
            if rng.chance(1, 2) {
                acked = replica.sync_replica().unwrap();
                assert_eq!(acked, received);
                check_kept(&sim, &all, acked)?;
            }
        }
        acked = replica.sync_replica().unwrap();
        check_kept(&sim, &all, acked)?;
    }
    Ok(())
}

#[test]
fn bug_34_a_replica_acknowledges_before_its_own_sync() {
    for seed in 0..10 {
        acknowledged_is_kept(seed, None).unwrap();
        let missed = acknowledged_is_kept(seed, Some(Mutation::AcknowledgeReceived));
        assert!(
            missed.is_err(),
            "seed {seed}: a replica that acknowledges what it has received is not noticed"
        );
    }
}
