//! The engine under torture: see the [parent module](super).

mod branches;
mod client;
mod compare;
mod damage;
mod model;
mod work;

use super::{MutantDisk, SeedReport};
use compare::{Compared, PIECE_BYTES, STREAMED_MIN, contents};
use model::History;
use seawall_engine::mutation::{Mutation, Noticed};
use seawall_engine::{Db, Error, ReadMode, Spilling};
use seawall_wal::disk::sim::{CHANGED_UNDER_VIEW, Fault, Op};
use seawall_wal::runtime::{Rng, SimRuntime};
use seawall_wal::{Lsn, SimDisk, WalReader};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use work::Held;

const DIR: &str = "/home/store";
const SEGMENT_BYTES: u64 = 64 << 10;
/// Keyspaces that clients use.
const KEYSPACES: [&str; 3] = ["accounts", "blobs", "c"];

/// The names of the deliberate mistakes that this layer can make.
pub fn mutations() -> Vec<&'static str> {
    let is_told = |mutation: &&Mutation| matches!(mutation.noticed(), Noticed::Torture(_));
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
        "recovery wrote a run",
        "opened with runs",
        "runs beside trees",
        "runs folded",
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
        "rolled back",
        "leaves filled",
        "several folds under memory pressure",
        "space nearly full",
        "old snapshot compared behind checkpoints",
        "old snapshot held over a crash",
        "streamed value: in the log",
        "streamed value: one piece",
        "streamed value: several pieces",
        "streamed value replaced",
        "streamed value removed",
        "streamed value removed with its range",
        "streamed value dropped with its keyspace",
        "stream failed",
        "stream rolled back",
        "reader compared behind checkpoints",
        "reader held over a crash",
        "prepared",
        "prepared with what it has read",
        "prepared committed",
        "prepared rolled back",
        "keyspace made by a prepared transaction",
        "prepared with streamed values",
        "refused for what is prepared",
        "xid given twice refused",
        "opposite outcome refused",
        "heuristic outcome",
        "heuristic outcome forgotten",
        "outcome asked for again",
        "in doubt after a crash",
        "in doubt at a checkpoint",
        "in doubt, and recovery folded",
        "in doubt, and power cut while opening",
        "ended by an operator before a crash",
        "damaged compressed leaf",
        "damaged compressed leaf refused",
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
    spilling: Spilling,
    was_created: bool,
    held: Held,
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
    let threads = rng.chance(1, 5);
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
        spilling: Spilling::Weighed,
        was_created: false,
        held: Held::default(),
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
            10 if self.rng.chance(1, 2) => self.disk.set_capacity((5 + self.rng.below(10)) * SEGMENT_BYTES),
            10 => {
                let paths = self.disk.paths();
                let used: u64 = paths
                    .iter()
                    .filter_map(|path| self.disk.read_file(path))
                    .map(|bytes| bytes.len() as u64)
                    .sum();
                self.disk.set_capacity(used + self.rng.below(8) * (16 << 10));
                self.report.hit("engine: space nearly full");
            }
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
            .spilling(self.spilling)
            .disk(disk)
            .runtime(self.runtime.clone())
            .background(self.threads)
            .stream(STREAMED_MIN, PIECE_BYTES)
            .on_stage(Arc::new(move |stage| stages.passed(stage)))
            .mutation(self.mutation.as_deref().and_then(Mutation::named))
    }

    /// Opens the store, however often the power fails on the way, and compares everything in it with the model.
    fn open(&mut self) -> Result<Db, String> {
        for attempt in 0..14 {
            self.memory_budget = if self.threads || !self.rng.chance(1, 3) { 1 << 20 } else { 16 << 20 };
            self.replay_bytes = self.rng.chance(1, 3).then_some(20_000);
            self.deltas_bytes = (self.threads && self.rng.chance(2, 3))
                .then(|| if self.rng.chance(1, 2) { 10_000 } else { 40_000 });
            self.spilling = match (self.rng.below(6), 1 + self.rng.below(4) as u32) {
                (0 | 1, _) => Spilling::Weighed,
                (2 | 3, most) => Spilling::Below(most),
                (_, part) => Spilling::Rolling(part),
            };
            self.read_mode = if self.rng.chance(1, 3) { ReadMode::Mapped } else { ReadMode::Cached };
            match self.builder().open() {
                Ok(db) => {
                    self.was_created = true;
                    let has_folded = db.stats().checkpoint_bytes > 0;
                    if has_folded {
                        self.report.hit("engine: recovery folded");
                    }
                    match (db.stats().runs, has_folded && self.spilling != Spilling::Weighed) {
                        (0, _) => {}
                        (_, true) => self.report.hit("engine: recovery wrote a run"),
                        (_, false) => self.report.hit("engine: opened with runs"),
                    }
                    if db.stats().read_mode == ReadMode::Mapped {
                        self.report.hit("engine: opened mapped");
                    }
                    self.say(|| format!("opened: {:?}", db.recovery()));
                    match self.compare_recovered(&db) {
                        Ok(()) => {
                            self.count_in_doubt(has_folded);
                            return Ok(db);
                        }
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
            if self.history().base_is_in_doubt() {
                self.report.hit("engine: in doubt, and power cut while opening");
            }
            self.power_on_again();
            if attempt < 3 && self.rng.chance(1, 2) {
                let at = 1 + self.rng.below(60);
                self.disk.fail(Fault::power_cut().at_call(at));
            }
        }
        Err("the store does not open".to_owned())
    }

    /// What recovery has brought back of prepared transactions.
    fn count_in_doubt(&mut self, has_folded: bool) {
        let (mut open, mut ended) = (0, 0);
        for branch in self.history().branches.values() {
            *if branch.ended.is_some() { &mut ended } else { &mut open } += 1;
        }
        self.report.add("engine: in doubt after a crash", open);
        self.report.add("engine: ended by an operator before a crash", ended);
        if has_folded {
            self.report.add("engine: in doubt, and recovery folded", open);
        }
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

    /// Ends a life: power cut, kill, or clean close.
    fn end(&mut self, db: Db) -> Result<(), String> {
        let stats = db.stats();
        self.report.add("engine: writers slowed", stats.commits_slowed);
        self.report.add("engine: free space returned", stats.space_returned);
        if self.deltas_bytes.is_some() {
            self.report.add("engine: folded under memory pressure", stats.checkpoints);
            self.report.add("engine: several folds under memory pressure", u64::from(stats.checkpoints >= 3));
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
                self.let_go(true)?;
            }
            1 => {
                self.kill(db);
                self.let_go(true)?;
            }
            _ => {
                self.let_go(false)?;
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
