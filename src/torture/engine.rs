//! The engine under torture: see the [parent module](super).

mod client;
mod model;

use super::{MutantDisk, SeedReport};
use client::Client;
use model::{Contents, History};
use seawall_engine::mutation::Mutation;
use seawall_engine::{Db, Entry, Error, Keyspace, ReadMode, Readable, Snapshot};
use seawall_wal::disk::sim::{CHANGED_UNDER_VIEW, Damage, Fault, Op};
use seawall_wal::runtime::{Rng, SimRuntime, Thread};
use seawall_wal::{Lsn, Runtime, SimDisk, WalReader};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

const DIR: &str = "/home/store";
const SEGMENT_BYTES: u64 = 64 << 10;
/// Keyspaces that clients use.
const KEYSPACES: [&str; 3] = ["accounts", "blobs", "c"];

/// The names of the deliberate mistakes that this layer can make.
pub fn mutations() -> Vec<&'static str> {
    // One of isolation is enough here: the others are for the engine's own test of histories.
    let is_told = |mutation: &&Mutation| {
        **mutation == Mutation::SkipValidation
            || !Mutation::ISOLATION.contains(mutation)
                && !Mutation::PREPARED.contains(mutation)
                && !Mutation::STREAMS.contains(mutation)
    };
    let own = Mutation::ALL.iter().filter(is_told).map(|mutation| mutation.name());
    own.chain(MutantDisk::names()).collect()
}

/// What must have been met when many seeds were run.
pub fn required() -> Vec<String> {
    let disk = [
        "crash",
        "torn write",
        "dropped write",
        "reordered",
        "kept write",
        "lost name",
        "power cut",
        "full",
        "completed out of order",
        "power lost with operations in flight",
        "mapped",
    ];
    let engine = [
        "checkpoint",
        "checkpoint: blocks written",
        "checkpoint: blocks synced",
        "checkpoint: superblock written",
        "power cut in a checkpoint",
        "power cut while opening",
        "power cut while creating",
        "killed",
        "closed",
        "poisoned",
        "no space",
        "conflict",
        "keyspace dropped",
        "old snapshot compared",
        "several threads",
        "verified",
        "damaged at rest",
        "damage refused",
        "large value",
        "range removed",
        "added",
        "adds side by side",
        "keyspace made in a transaction",
        "keyspace dropped in a transaction",
        "recovery folded",
        "compressed leaf",
        "keyspace compressed",
        "folded under memory pressure",
        "writers slowed",
        "free space used again",
        "free space returned",
        "resumed",
        "resumed after a failed write",
        "opened mapped",
        "mapped row kept",
    ];
    disk.iter()
        .map(|name| format!("disk: {name}"))
        .chain(engine.iter().map(|name| format!("engine: {name}")))
        .collect()
}

struct Torture {
    rng: Rng,
    runtime: Arc<SimRuntime>,
    disk: Arc<SimDisk>,
    mutation: Option<String>,
    history: Arc<Mutex<History>>,
    report: SeedReport,
    stages: Arc<Stages>,
    threads: bool,
    /// Small enough, at times, for recovery to fold.
    replay_bytes: Option<u64>,
    /// Small enough, mostly, for blocks to be read from the disk again.
    memory_budget: usize,
    /// Small enough, at times, for writers to be slowed and folds to press.
    deltas_bytes: Option<u64>,
    read_mode: ReadMode,
    was_created: bool,
    traced: usize,
}

/// Counts the stages of checkpoints.
#[derive(Default)]
struct Stages(Mutex<BTreeMap<&'static str, u64>>);

impl Stages {
    fn passed(&self, stage: &'static str) {
        let mut stages = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *stages.entry(stage).or_default() += 1;
    }
}

/// Runs one seed.
///
/// # Errors
/// What was found, in words.
pub fn run(seed: u64, mutation: Option<&str>) -> Result<SeedReport, String> {
    let mut rng = Rng::new(seed ^ 0xe6e6);
    let runtime = SimRuntime::new(rng.next_u64());
    let threads = rng.chance(1, 6);
    let disk = if threads {
        SimDisk::with_runtime(rng.next_u64(), runtime.clone())
    } else {
        SimDisk::new(rng.next_u64())
    };
    disk.set_trace(super::is_tracing());
    disk.set_direct(!rng.chance(1, 4));
    runtime.set_clock_jumps(rng.chance(1, 4));
    let mut torture = Torture {
        rng,
        runtime,
        disk,
        mutation: mutation.map(str::to_owned),
        history: Arc::default(),
        report: SeedReport::default(),
        stages: Arc::default(),
        threads,
        replay_bytes: None,
        memory_budget: 1 << 20,
        deltas_bytes: None,
        read_mode: ReadMode::Cached,
        was_created: false,
        traced: 0,
    };
    let outcome = torture.lives();
    torture.keep_trace();
    outcome.map_err(|what| torture.report.failure(&what))?;
    torture.count();
    torture.looked_on().map_err(|what| torture.report.failure(&what))?;
    torture.report.trace_hash = torture.disk.trace_hash() ^ torture.runtime.trace_hash().rotate_left(1);
    Ok(torture.report)
}

impl Torture {
    fn lives(&mut self) -> Result<(), String> {
        for life in 0..2 + self.rng.below(3) {
            self.plan_faults(life);
            let db = self.open()?;
            if self.threads {
                self.report.hit("engine: several threads");
                self.work_in_threads(&db)?;
            } else {
                self.work(&db)?;
            }
            self.end(db)?;
            if self.rng.chance(1, 5) && self.damage()? {
                return Ok(());
            }
        }
        self.calm();
        let db = self.open()?;
        self.verify(&db)?;
        drop(db);
        Ok(())
    }

    /// Nobody's bytes changed under their eyes: on a real disk, those of readers of a mapped file would have.
    fn looked_on(&self) -> Result<(), String> {
        match self.disk.counts().get(CHANGED_UNDER_VIEW) {
            Some(times) => Err(format!("{CHANGED_UNDER_VIEW}, {times} times")),
            None => Ok(()),
        }
    }

    fn calm(&self) {
        self.disk.clear_faults();
        self.disk.set_capacity(u64::MAX);
    }

    fn plan_faults(&mut self, life: u64) {
        let within = if life == 0 { 80 } else { 250 };
        let at = 1 + self.rng.below(within);
        self.disk.set_copy_on_write(self.rng.chance(1, 8));
        match self.rng.below(15) {
            0..=5 => self.disk.fail(Fault::power_cut().at_call(at)),
            6 => self.disk.fail(Fault::eio(Op::Any).at_call(at).once()),
            7 => self.disk.fail(Fault::dropped_sync().at_call(1 + at / 20).once()),
            8 => self.disk.fail(Fault::eio(Op::WriteDurable).at_call(1 + at / 6).once()),
            9 => self.disk.fail(Fault::short(Op::Write).at_call(1 + at / 6).once()),
            10 => self.disk.set_capacity((5 + self.rng.below(10)) * SEGMENT_BYTES),
            11 => {
                let op = if self.rng.chance(2, 3) { Op::WriteDurable } else { Op::Write };
                self.disk.fail(Fault::full(op).path_contains(".log").at_call(1 + at / 12));
            }
            _ => {}
        }
    }

    fn builder(&self) -> seawall_engine::DbBuilder {
        let disk = MutantDisk::wrap(self.disk.clone(), self.mutation.as_deref());
        let stages = self.stages.clone();
        Db::builder(DIR)
            .segment_bytes(SEGMENT_BYTES)
            .memory_budget(self.memory_budget)
            .replay_bytes(self.replay_bytes)
            .deltas_bytes(self.deltas_bytes)
            .read_mode(self.read_mode)
            .disk(disk)
            .runtime(self.runtime.clone())
            .background(self.threads)
            .on_stage(Arc::new(move |stage| stages.passed(stage)))
            .mutation(self.mutation.as_deref().and_then(Mutation::named))
    }

    /// Opens the store, however often the power fails on the way, and compares everything in it with the model.
    fn open(&mut self) -> Result<Db, String> {
        for attempt in 0..14 {
            self.memory_budget = if self.threads || !self.rng.chance(1, 3) { 1 << 20 } else { 16 << 20 };
            self.replay_bytes = self.rng.chance(1, 3).then_some(20_000);
            self.deltas_bytes = (self.threads && self.rng.chance(1, 2)).then_some(40_000);
            self.read_mode = if self.rng.chance(1, 3) { ReadMode::Mapped } else { ReadMode::Cached };
            match self.builder().open() {
                Ok(db) => {
                    self.was_created = true;
                    if db.stats().checkpoint_bytes > 0 {
                        self.report.hit("engine: recovery folded");
                    }
                    if db.stats().read_mode == ReadMode::Mapped {
                        self.report.hit("engine: opened mapped");
                    }
                    self.say(|| format!("opened: {:?}", db.recovery()));
                    match self.compare_recovered(&db) {
                        Ok(()) => return Ok(db),
                        Err(_) if !self.disk.has_power() => {}
                        Err(Compared::Read(error)) => self.forgive(&error)?,
                        Err(Compared::Differs(what)) => return Err(what),
                    }
                    self.kill(db);
                }
                Err(error) => {
                    self.say(|| format!("not opened: {error}"));
                    self.history().forget_written();
                    self.forgive(&error)?;
                }
            }
            if self.disk.has_power() {
                self.calm();
                continue;
            }
            let opening = if self.was_created { "opening" } else { "creating" };
            self.report.hit(format!("engine: power cut while {opening}"));
            self.power_on_again();
            if attempt < 3 && self.rng.chance(1, 2) {
                let at = 1 + self.rng.below(60);
                self.disk.fail(Fault::power_cut().at_call(at));
            }
        }
        Err("the store does not open".to_owned())
    }

    /// An error that a fault explains.
    fn forgive(&self, error: &Error) -> Result<(), String> {
        let by_fault = match error {
            Error::Io { .. } | Error::NoSpace | Error::Poisoned(_) => true,
            _ => !self.disk.has_power(),
        };
        if by_fault { Ok(()) } else { Err(format!("the store refuses to open: {error}")) }
    }

    /// The contents must be those after exactly the first n commits, n covering every promise.
    fn compare_recovered(&mut self, db: &Db) -> Result<(), Compared> {
        let found = contents(db).map_err(Compared::Read)?;
        self.history().recovered(&found).map_err(Compared::Differs)?;
        self.report.hit("engine: compared");
        Ok(())
    }

    fn work(&mut self, db: &Db) -> Result<(), String> {
        let mut client = self.client(db);
        let mut snapshots: Vec<(Snapshot, Handles, Contents)> = Vec::new();
        let mut kept: Vec<(Entry, Vec<u8>)> = Vec::new();
        for _ in 0..3 + self.rng.below(50) {
            match self.rng.below(30) {
                0..=2 => self.checkpoint(db)?,
                3 | 7 => {
                    // What is visible now is what every commit so far made of it.
                    let snapshot = db.snapshot();
                    let expected = self.history().now();
                    let handles = match handles(db, expected.keys()) {
                        Ok(handles) => handles,
                        Err(Error::Io { .. }) => continue,
                        Err(error) => return Err(format!("opening keyspaces: {error}")),
                    };
                    compare_snapshot(&snapshot, &handles, &expected, "now")?;
                    // They outlive their snapshot, and are compared when all is done.
                    let rows = handles.iter().flat_map(|ks| snapshot.range(ks, ..).take(2));
                    kept.extend(rows.filter_map(Result::ok).map(|row| (row.clone(), row.1.to_vec())));
                    snapshots.push((snapshot, handles, expected));
                }
                4 | 8 if !snapshots.is_empty() => {
                    let at = self.rng.below(snapshots.len() as u64) as usize;
                    let (snapshot, handles, expected) = snapshots.swap_remove(at);
                    // Meanwhile the tree has gone on, and would like its blocks.
                    for _ in 0..self.rng.below(4) {
                        client.step()?;
                        self.checkpoint(db)?;
                    }
                    self.compare_old(&snapshot, &handles, &expected)?;
                }
                5 if self.rng.chance(1, 3) => self.verify(db)?,
                6 | 9 => self.resume(db),
                _ => client.step()?,
            }
            if !self.disk.has_power() {
                break;
            }
        }
        self.add_counts(&client.counts);
        if let Some(((key, _), _)) = kept.iter().find(|((_, value), copy)| value != copy) {
            return Err(format!("a row that was kept has changed: {}", key.escape_ascii()));
        }
        if self.read_mode == ReadMode::Mapped {
            self.report.add("engine: mapped row kept", kept.len() as u64);
        }
        if self.disk.has_power() {
            for (snapshot, handles, expected) in &snapshots {
                self.compare_old(snapshot, handles, expected)?;
            }
        }
        Ok(())
    }

    /// Makes room, and asks the store to go on.
    fn resume(&mut self, db: &Db) {
        let (no_space, has_failed) = {
            let history = self.history();
            (history.no_space, history.has_failed)
        };
        if !no_space && !has_failed {
            return;
        }
        self.disk.set_capacity(u64::MAX);
        if db.resume().is_err() {
            return;
        }
        self.history().no_space = false;
        self.report.hit("engine: resumed");
        if has_failed {
            self.history().went_on();
            self.report.hit("engine: resumed after a failed write");
        }
    }

    /// What it shows stays, whatever was dropped since.
    fn compare_old(
        &mut self,
        snapshot: &Snapshot,
        handles: &Handles,
        expected: &Contents,
    ) -> Result<(), String> {
        if !self.history().poisoned {
            compare_snapshot(snapshot, handles, expected, "an old snapshot")?;
            self.report.hit("engine: old snapshot compared");
        }
        Ok(())
    }

    fn client(&mut self, db: &Db) -> Client {
        Client::new(db.clone(), self.history.clone(), self.rng.fork(), self.runtime.clone(), self.threads)
    }

    fn add_counts(&mut self, counts: &BTreeMap<&'static str, u64>) {
        for (name, n) in counts {
            self.report.add(format!("engine: {name}"), *n);
        }
    }

    fn checkpoint(&mut self, db: &Db) -> Result<(), String> {
        let attempted = self.history().attempted();
        let before = db.stats();
        match db.checkpoint() {
            Ok(checkpoint) => {
                self.history().promise_all(attempted);
                let is_longer = db.stats().data_file_bytes > before.data_file_bytes;
                if checkpoint.bytes > 0 && before.free_bytes > 0 && !is_longer {
                    self.report.hit("engine: free space used again");
                }
                self.report.hit("engine: checkpoint");
                Ok(())
            }
            Err(error) => {
                if !self.disk.has_power() {
                    self.report.hit("engine: power cut in a checkpoint");
                }
                self.history().note(&error)
            }
        }
    }

    fn verify(&mut self, db: &Db) -> Result<(), String> {
        // A planned read error is no finding.
        self.disk.clear_faults();
        match db.verify(|_| {}) {
            Ok(report) if report.problems.is_empty() => {
                self.report.hit("engine: verified");
                self.report.add("engine: compressed leaf", report.leaves_compressed);
                Ok(())
            }
            Ok(_) if !self.disk.has_power() => Ok(()),
            Ok(report) => Err(format!("verify finds: {}", report.problems.join("; "))),
            Err(Error::Io { .. } | Error::Poisoned(_)) => Ok(()),
            Err(_) if !self.disk.has_power() => Ok(()),
            Err(error) => Err(format!("verify fails: {error}")),
        }
    }

    fn work_in_threads(&mut self, db: &Db) -> Result<(), String> {
        for name in KEYSPACES {
            if let Err(error) = self.client(db).create(name) {
                return self.history().note(&error);
            }
        }
        let failed: Arc<Mutex<Option<String>>> = Arc::default();
        let counts: Arc<Mutex<BTreeMap<&'static str, u64>>> = Arc::default();
        let mut threads: Vec<Box<dyn Thread>> = Vec::new();
        for i in 0..2 + self.rng.below(3) {
            let mut client = self.client(db);
            let (failed, counts, steps) = (failed.clone(), counts.clone(), 2 + self.rng.below(16));
            let body = Box::new(move || {
                for _ in 0..steps {
                    if let Err(what) = client.step() {
                        failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(what);
                        break;
                    }
                }
                let mut counts = counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                client.counts.iter().for_each(|(name, n)| *counts.entry(name).or_default() += n);
            });
            threads
                .push(self.runtime.spawn(&format!("client-{i}"), body).map_err(|error| error.to_string())?);
        }
        for _ in 0..self.rng.below(3) {
            self.runtime.yield_point();
            self.checkpoint(db)?;
        }
        for thread in threads {
            if thread.join() {
                return Err("a client panicked".to_owned());
            }
        }
        let counts = std::mem::take(&mut *counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        self.add_counts(&counts);
        let failed = failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        failed.map_or(Ok(()), Err)
    }

    /// Ends a life: power cut, kill, or clean close.
    fn end(&mut self, db: Db) -> Result<(), String> {
        let stats = db.stats();
        self.report.add("engine: writers slowed", stats.commits_slowed);
        self.report.add("engine: free space returned", stats.space_returned);
        if self.deltas_bytes.is_some() {
            self.report.add("engine: folded under memory pressure", stats.checkpoints);
        }
        let (poisoned, no_space) = {
            let mut history = self.history();
            let seen = (history.poisoned, history.no_space);
            (history.poisoned, history.no_space, history.has_failed) = (false, false, false);
            seen
        };
        self.report.add("engine: poisoned", u64::from(poisoned));
        self.report.add("engine: no space", u64::from(no_space));
        match if self.disk.has_power() { self.rng.below(3) } else { 0 } {
            0 => {
                let next = self.disk.crash();
                drop(db);
                self.go_on_with(next);
                self.report.hit("engine: power lost");
            }
            1 => self.kill(db),
            _ => {
                let attempted = self.history().attempted();
                match db.close() {
                    Ok(()) => {
                        self.history().promise_all(attempted);
                        self.report.hit("engine: closed");
                        self.read_log()?;
                    }
                    Err(error) => {
                        self.say(|| format!("not closed: {error}"));
                        self.history().forget_written();
                    }
                }
            }
        }
        self.disk.set_capacity(u64::MAX);
        Ok(())
    }

    /// Whoever looks at the log of a sound store finds it sound, from its beginning to its end.
    fn read_log(&mut self) -> Result<(), String> {
        self.calm();
        let options = seawall_wal::Wal::options().disk(self.disk.clone()).runtime(self.runtime.clone());
        let reader = WalReader::open_with(format!("{DIR}/log"), Lsn::ZERO, &options);
        let mut reader = reader.map_err(|error| format!("the log alone: {error}"))?;
        while reader.next_ref().map_err(|error| format!("reading the log alone: {error}"))?.is_some() {}
        Ok(())
    }

    fn kill(&mut self, db: Db) {
        self.keep_trace();
        let next = self.disk.kill();
        drop(db);
        self.disk = next;
        self.say(|| "killed".to_owned());
        self.report.hit("engine: killed");
    }

    /// Damages one file of a store that was closed cleanly. True if the seed ends here.
    fn damage(&mut self) -> Result<bool, String> {
        self.calm();
        let db = self.open()?;
        // Opening may have planned another cut.
        self.calm();
        let expected = self.history().now();
        if let Err(error) = db.close() {
            return Err(format!("closing: {error}"));
        }
        let paths: Vec<String> =
            self.disk.paths().into_iter().filter(|path| path.contains("store/")).collect();
        let path = &paths[self.rng.below(paths.len() as u64) as usize];
        let bytes = self.disk.read_file(path).map_or(0, |bytes| bytes.len() as u64);
        let blocks = (bytes / 4096).max(1);
        let damage = match self.rng.below(7) {
            0 | 1 => Some(Damage::Flip { offset: self.rng.below(bytes), mask: 1 << self.rng.below(8) }),
            2 => Some(Damage::ZeroBlock(self.rng.below(blocks))),
            3 => Some(Damage::SwapBlocks(self.rng.below(blocks), self.rng.below(blocks))),
            4 => Some(Damage::Truncate(self.rng.below(bytes))),
            5 => Some(Damage::Unreadable(0..bytes.min(8192))),
            _ => None,
        };
        match &damage {
            Some(damage) => self.disk.damage(path, damage).map_err(|error| error.to_string())?,
            None => self.disk.remove_durably(path).map_err(|error| error.to_string())?,
        }
        self.say(|| format!("{damage:?} of {path}"));
        self.report.hit("engine: damaged at rest");
        match self.builder().create(false).open() {
            Err(Error::Corruption { .. } | Error::Io { .. } | Error::FormatVersion { .. }) => {
                self.report.hit("engine: damage refused");
            }
            Err(error) => return Err(format!("{damage:?} of {path} is reported as: {error}")),
            Ok(db) => match contents(&db) {
                Err(Error::Corruption { .. } | Error::Io { .. }) => {
                    self.report.hit("engine: damage refused");
                    // And verify names it.
                    let report = db.verify(|_| {});
                    if report.is_ok_and(|report| report.problems.is_empty()) {
                        return Err(format!("{damage:?} of {path}: reads fail, and verify finds nothing"));
                    }
                }
                Err(error) => return Err(format!("{damage:?} of {path} is reported as: {error}")),
                Ok(found) if found == expected => {
                    let _ = db.verify(|_| {});
                }
                Ok(found) => {
                    let what = model::difference(&expected, &found);
                    return Err(format!("{damage:?} of {path} changed what is read: {what}"));
                }
            },
        }
        Ok(true)
    }

    fn power_on_again(&mut self) {
        let next = self.disk.crash();
        self.go_on_with(next);
    }

    fn go_on_with(&mut self, next: Arc<SimDisk>) {
        self.keep_trace();
        self.history().forget_written();
        self.disk = next;
        self.traced = 0;
        self.say(|| "power lost".to_owned());
    }

    fn count(&mut self) {
        for (name, n) in self.disk.counts() {
            self.report.add(format!("disk: {name}"), n);
        }
        let stages = self.stages.clone();
        for (stage, n) in stages.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter() {
            self.report.add(format!("engine: checkpoint: {stage}"), *n);
        }
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if super::is_tracing() {
            self.keep_trace();
            self.report.trace.push(format!("-- {}", what()));
        }
    }

    fn keep_trace(&mut self) {
        if super::is_tracing() {
            let mut lines = self.disk.trace();
            let new = lines.split_off(self.traced.min(lines.len()));
            self.traced += new.len();
            self.report.trace.extend(new.iter().map(|line| format!("   {line}")));
            let said = std::mem::take(&mut self.history().said);
            self.report.trace.extend(said.iter().map(|line| format!("-- {line}")));
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

enum Compared {
    Read(Error),
    Differs(String),
}

/// Everything in the store.
fn contents(db: &Db) -> Result<Contents, Error> {
    let names = db.keyspace_names()?;
    contents_of(&db.snapshot(), &handles(db, names.iter())?)
}

/// By these, rows of keyspaces can be asked for that are dropped since.
type Handles = Vec<Keyspace>;

fn handles<'a>(db: &Db, names: impl Iterator<Item = &'a String>) -> Result<Handles, Error> {
    names.filter_map(|name| db.open_keyspace(name).transpose()).collect()
}

fn compare_snapshot(
    snapshot: &Snapshot,
    handles: &Handles,
    expected: &Contents,
    which: &str,
) -> Result<(), String> {
    match contents_of(snapshot, handles) {
        Ok(found) if found == *expected => Ok(()),
        Ok(found) => Err(format!("{which} differs: {}", model::difference(expected, &found))),
        Err(Error::Io { .. }) => Ok(()),
        Err(error) => Err(format!("reading {which}: {error}")),
    }
}

/// Everything that a snapshot sees in these keyspaces; forward, and checked backward.
fn contents_of(snapshot: &Snapshot, handles: &Handles) -> Result<Contents, Error> {
    let mut contents = Contents::new();
    for ks in handles {
        let name = ks.name();
        let mut rows = BTreeMap::new();
        for row in snapshot.range(ks, ..) {
            let (key, value) = row?;
            rows.insert(key.to_vec(), value.to_vec());
        }
        let mut backward = BTreeMap::new();
        for row in snapshot.range(ks, ..).rev() {
            let (key, value) = row?;
            backward.insert(key.to_vec(), value.to_vec());
        }
        if rows != backward {
            return Err(Error::BadInput(format!("keyspace {name} differs read backward")));
        }
        let keys: Vec<&Vec<u8>> = rows.keys().rev().collect();
        let at_once = snapshot.multi_get(ks, &keys)?;
        if !at_once.iter().rev().map(|value| value.as_deref()).eq(rows.values().map(|value| Some(&**value))) {
            return Err(Error::BadInput(format!("keyspace {name} differs read by many keys at once")));
        }
        contents.insert(name.to_owned(), rows);
    }
    Ok(contents)
}
