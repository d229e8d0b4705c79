//! The log under torture: see the [parent module](super).

mod client;
mod cut;
mod follower;
mod model;

use super::{MutantDisk, SeedReport};
use client::Client;
use follower::{Follower, Look};
use model::Model;
use seawall_wal::disk::Disk;
use seawall_wal::disk::sim::{Damage, Fault, Op};
use seawall_wal::mutation::Mutation;
use seawall_wal::runtime::{Rng, Runtime, SimRuntime, Thread};
use seawall_wal::{Error, Lsn, Next, Outcome, Pin, SimDisk, Wal};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const DIR: &str = "/store/log";
/// A log that is left alone for so long rests.
const RESTING: Duration = Duration::from_secs(1);
const SEGMENT_BYTES: u64 = 64 << 10;

/// The names of the deliberate mistakes that this layer can make, each of which some seed must notice.
pub fn mutations() -> Vec<&'static str> {
    // What the engine's data file needs is its own layer's concern.
    let disk = MutantDisk::names().filter(|name| !name.contains("data") && !name.contains("superblock"));
    Mutation::ALL.iter().map(|mutation| mutation.name()).chain(disk).collect()
}

/// What must have been met when many seeds were run.
pub fn required() -> Vec<String> {
    // A promise beyond the end, or a broken header, takes damage at rest; both are dealt out below.
    let rows = seawall_wal::recovery::TABLE.iter().map(|row| format!("recovery: {}", row.name));
    let disk = [
        "crash",
        "torn write",
        "dropped write",
        "reordered",
        "kept write",
        "lost name",
        "power cut",
        "full",
        "short write",
        "pages dropped by a failed sync",
        "completed out of order",
        "power lost with operations in flight",
    ];
    let log = [
        "rotation",
        "recycled segment",
        "sealed",
        "reclaimed",
        "record cut over frames",
        "power cut while opening",
        "power cut while creating",
        "killed",
        "closed",
        "poisoned",
        "no space",
        "resumed",
        "resumed after a failed write",
        "rewritten",
        "several threads",
        "cut",
        "cut through a batch",
        "cut in an older segment",
        "power cut while cutting",
        "followed",
        "followed from elsewhere",
        "followed from elsewhere beside threads",
        "follower told of a cut",
        "follower left behind",
        "damaged at rest",
        "damage refused",
    ];
    rows.chain(disk.iter().map(|name| format!("disk: {name}")))
        .chain(log.iter().map(|name| format!("log: {name}")))
        .collect()
}

struct Torture {
    seed: u64,
    rng: Rng,
    runtime: Arc<SimRuntime>,
    disk: Arc<SimDisk>,
    mutation: Option<String>,
    model: Arc<Mutex<Model>>,
    report: SeedReport,
    threads: bool,
    was_created: bool,
    traced: usize,
}

/// Runs one seed.
///
/// # Errors
/// What was found, in words.
pub fn run(seed: u64, mutation: Option<&str>) -> Result<SeedReport, String> {
    let mut rng = Rng::new(seed ^ 0x10_6106);
    let runtime = SimRuntime::new(rng.next_u64());
    let threads = rng.chance(1, 10);
    let disk = if threads {
        SimDisk::with_runtime(rng.next_u64(), runtime.clone())
    } else {
        SimDisk::new(rng.next_u64())
    };
    disk.set_trace(super::is_tracing());
    disk.set_direct(!rng.chance(1, 4));
    runtime.set_clock_jumps(rng.chance(1, 4));
    let mut torture = Torture {
        seed,
        rng,
        runtime,
        disk,
        mutation: mutation.map(str::to_owned),
        model: Arc::default(),
        report: SeedReport::default(),
        threads,
        was_created: false,
        traced: 0,
    };
    let outcome = torture.lives();
    torture.keep_trace();
    outcome.map_err(|what| torture.report.failure(&what))?;
    torture.count_disk();
    torture.report.trace_hash = torture.disk.trace_hash() ^ torture.runtime.trace_hash().rotate_left(1);
    Ok(torture.report)
}

impl Torture {
    fn lives(&mut self) -> Result<(), String> {
        let lives = 2 + self.rng.below(4);
        for life in 0..lives {
            self.plan_faults(life);
            let Some(wal) = self.open()? else { return Ok(()) };
            if self.threads && self.rng.chance(3, 4) {
                self.report.hit("log: several threads");
                self.work_in_threads(&wal)?;
            } else {
                self.work(&wal)?;
            }
            self.end(wal)?;
            if self.rng.chance(1, 6) && self.damage()? {
                return Ok(());
            }
        }
        self.disk.clear_faults();
        self.disk.set_capacity(u64::MAX);
        let wal = self.open()?;
        drop(wal);
        Ok(())
    }

    fn plan_faults(&mut self, life: u64) {
        let within = if life == 0 { 60 } else { 150 };
        let at = 1 + self.rng.below(within);
        let log = ".log";
        self.disk.set_copy_on_write(self.rng.chance(1, 8));
        match self.rng.below(13) {
            0..=4 => self.disk.fail(Fault::power_cut().at_call(at)),
            5 => self.disk.fail(Fault::eio(Op::Any).at_call(at).once()),
            6 => self.disk.fail(Fault::dropped_sync().path_contains(log).at_call(1 + at / 12).once()),
            7 => self.disk.fail(Fault::eio(Op::WriteDurable).at_call(1 + at / 6).once()),
            8 => self.disk.fail(Fault::short(Op::Write).at_call(1 + at / 6).once()),
            9 => self.disk.set_capacity((3 + self.rng.below(8)) * SEGMENT_BYTES),
            10 => {
                let op = if self.rng.chance(2, 3) { Op::WriteDurable } else { Op::Write };
                self.disk.fail(Fault::full(op).at_call(1 + at / 6));
            }
            _ => {}
        }
    }

    fn options(&self) -> seawall_wal::WalOptions {
        let disk = MutantDisk::wrap(self.disk.clone(), self.mutation.as_deref());
        Wal::options()
            .segment_bytes(SEGMENT_BYTES)
            .disk(disk)
            .runtime(self.runtime.clone())
            .background(self.threads)
            .mutation(self.mutation.as_deref().and_then(Mutation::named))
    }

    /// Opens the log, however often the power fails on the way, and compares everything in it with the model.
    fn open(&mut self) -> Result<Option<Wal>, String> {
        for attempt in 0.. {
            match self.options().open(DIR) {
                Ok(wal) => {
                    self.was_created = true;
                    self.say(|| format!("opened: {:?}", wal.recovery()));
                    let recovery = wal.recovery().clone();
                    self.report.hit(format!("recovery: {}", recovery.row));
                    self.report.add("recovery: segment complete", recovery.segments_complete);
                    self.report.add("log: rewritten", u64::from(recovery.rewritten));
                    if recovery.outcome == Outcome::AcknowledgedLoss {
                        return Err("acknowledged loss without having asked for it".to_owned());
                    }
                    match self.compare(&wal) {
                        Ok(()) => return Ok(Some(wal)),
                        Err(_) if !self.disk.has_power() => {}
                        Err(Compared::Read(error)) if attempt < 8 => self.forgive(&error)?,
                        Err(Compared::Read(error)) => return Err(format!("reading after opening: {error}")),
                        Err(Compared::Differs(what)) => return Err(what),
                    }
                    self.kill(wal);
                }
                Err(error) => {
                    // A sync of the opening failed, and may have dropped what was only written.
                    let mut model = self.model();
                    model.written = model.durable;
                    drop(model);
                    self.say(|| format!("not opened: {error}"));
                    self.forgive(&error)?;
                }
            }
            if !self.disk.has_power() {
                self.report.hit(if self.was_created {
                    "log: power cut while opening"
                } else {
                    "log: power cut while creating"
                });
                self.power_on_again();
                self.model().written = Lsn::ZERO;
                if attempt < 3 && self.rng.chance(1, 2) {
                    let at = 1 + self.rng.below(40);
                    self.disk.fail(Fault::power_cut().at_call(at));
                }
            } else {
                self.disk.clear_faults();
                self.disk.set_capacity(u64::MAX);
            }
            if attempt > 12 {
                return Err("the log does not open".to_owned());
            }
        }
        Ok(None)
    }

    /// An error that a fault explains.
    fn forgive(&self, error: &Error) -> Result<(), String> {
        let by_fault = match error {
            Error::Io { .. } | Error::NoSpace | Error::Poisoned(_) => true,
            _ => !self.disk.has_power(),
        };
        if by_fault { Ok(()) } else { Err(format!("the log refuses to open: {error}")) }
    }

    fn compare(&mut self, wal: &Wal) -> Result<(), Compared> {
        let mut found = Vec::new();
        for record in wal.read(..).map_err(Compared::Read)? {
            let record = record.map_err(Compared::Read)?;
            found.push((record.lsn, record.payload.to_vec()));
        }
        let first = wal.first_lsn();
        let mut model = self.model.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        model.check(first, &found).map_err(Compared::Differs)?;
        // What was shown once must never be gone again.
        let end = wal.recovery().end;
        let keep = found.len();
        let lost: Vec<Lsn> = model.records.range(first..).skip(keep).map(|(lsn, _)| *lsn).collect();
        for lsn in lost {
            model.records.remove(&lsn);
        }
        model.durable = end;
        model.written = end;
        model.may_end = None;
        self.report.hit("log: compared");
        Ok(())
    }

    fn work(&mut self, wal: &Wal) -> Result<(), String> {
        let mut pins: Vec<Pin> = Vec::new();
        let mut follower = None;
        let mut client = Client {
            wal: wal.clone(),
            model: self.model.clone(),
            rng: self.rng.fork(),
            runtime: self.runtime.clone(),
        };
        for _ in 0..2 + self.rng.below(40) {
            match self.rng.below(27) {
                0 => {
                    let before = wal.first_lsn();
                    let lsn = client.some_lsn();
                    client.note(&wal.truncate_before(lsn).map(|_| ()))?;
                    self.report.add("log: reclaimed", u64::from(wal.first_lsn() > before));
                }
                1 => pins.extend(wal.pin("torture", wal.first_lsn()).ok()),
                2 => drop(pins.pop()),
                3 if self.rng.chance(1, 2) => self.rest(wal, &client)?,
                3..=5 => client.note(&wal.step().map(|_| ()))?,
                7 if self.rng.chance(1, 2) => self.cut(wal, &mut client, &mut follower)?,
                8 | 9 => self.follow(wal, &mut follower)?,
                6 => self.resume(wal),
                _ => client.step()?,
            }
            if !self.disk.has_power() {
                break;
            }
        }
        Ok(())
    }

    /// Leaves the log alone for long enough to give files back.
    fn rest(&mut self, wal: &Wal, client: &Client) -> Result<(), String> {
        let files = || self.disk.list(Path::new(DIR)).map_or(0, |names| names.len());
        let before = files();
        client.note(&wal.step().map(|_| ()))?;
        self.runtime.advance(RESTING);
        client.note(&wal.step().map(|_| ()))?;
        let has_rested = files() < before;
        self.report.add("log: files given back at rest", u64::from(has_rested));
        Ok(())
    }

    /// Makes room, and asks the log to go on.
    fn resume(&mut self, wal: &Wal) {
        let has_failed = matches!(wal.make_room(0), Err(Error::Poisoned(_)));
        if !self.model().no_space && !has_failed {
            return;
        }
        self.disk.set_capacity(u64::MAX);
        if wal.resume().is_err() {
            return;
        }
        self.report.hit("log: resumed");
        let mut model = self.model();
        model.no_space = false;
        if has_failed {
            // All that has its place, whatever was said of it.
            let end = model.records.keys().next_back().map_or(Lsn::ZERO, |last| last.plus(1));
            (model.durable, model.written, model.poisoned) = (model.durable.max(end), end, false);
            drop(model);
            self.report.hit("log: resumed after a failed write");
        }
    }

    fn follow(&mut self, wal: &Wal, follower: &mut Option<Follower>) -> Result<(), String> {
        if follower.is_none() {
            let elsewhere = self.rng.chance(2, 3).then(|| self.options());
            *follower = Follower::begin(wal, Path::new(DIR), elsewhere.as_ref(), &self.model())?;
        }
        let Some(looking) = follower else { return Ok(()) };
        let most = 1 + self.rng.below(12);
        let look = {
            let mut model = self.model.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            looking.look(wal, &mut model, most)?
        };
        let name = match look {
            Look::Shown(0) => return Ok(()),
            Look::Shown(_) if looking.is_elsewhere() => "log: followed from elsewhere",
            Look::Shown(_) => "log: followed",
            Look::ToldOfCut => "log: follower told of a cut",
            Look::LeftBehind => "log: follower left behind",
            Look::Failed => "log: follower failed",
        };
        self.report.hit(name);
        if !matches!(look, Look::Shown(_)) {
            *follower = None;
        }
        Ok(())
    }

    /// A thread that follows the log's files, for a while.
    fn follow_in_thread(
        &mut self,
        wal: &Wal,
        failed: &Arc<Mutex<Option<String>>>,
    ) -> Option<Box<dyn Thread>> {
        let mut reader = seawall_wal::WalReader::follow_with(DIR, wal.first_lsn(), &self.options()).ok()?;
        self.report.hit("log: followed from elsewhere beside threads");
        let (model, failed) = (self.model.clone(), failed.clone());
        let mut looks = self.rng.below(60);
        let body = move || {
            while looks > 0 {
                looks -= 1;
                let what = match reader.next_timeout(Duration::from_micros(200)) {
                    // A header on the disk may say so a moment before the writer has told anybody: it survives all
                    // the same.
                    Ok(Next::Record(record)) => {
                        let mut model = model.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                        model.durable = model.durable.max(record.lsn.plus(1));
                        continue;
                    }
                    Ok(Next::TimedOut) => continue,
                    Err(Error::Io { .. }) | Ok(_) => return,
                    Err(error) => format!("following: {error}"),
                };
                failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(what);
                return;
            }
        };
        self.runtime.spawn("follower", Box::new(body)).ok()
    }

    fn work_in_threads(&mut self, wal: &Wal) -> Result<(), String> {
        let failed = Arc::new(Mutex::new(None));
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads: Vec<Box<dyn Thread>> = Vec::new();
        if self.rng.chance(1, 2) {
            threads.extend(self.follow_in_thread(wal, &failed));
        }
        for i in 0..2 + self.rng.below(3) {
            let mut client = Client {
                wal: wal.clone(),
                model: self.model.clone(),
                rng: self.rng.fork(),
                runtime: self.runtime.clone(),
            };
            let (failed, stop, steps) = (failed.clone(), stop.clone(), 1 + self.rng.below(12));
            let body = Box::new(move || {
                for _ in 0..steps {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Err(what) = client.step() {
                        stop.store(true, Ordering::Relaxed);
                        failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(what);
                    }
                }
            });
            threads
                .push(self.runtime.spawn(&format!("client-{i}"), body).map_err(|error| error.to_string())?);
        }
        for thread in threads {
            if thread.join() {
                return Err("a client panicked".to_owned());
            }
        }
        let failed = failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        failed.map_or(Ok(()), Err)
    }

    /// Ends a life: power cut, kill, or clean close.
    fn end(&mut self, wal: Wal) -> Result<(), String> {
        let stats = wal.stats();
        self.report.add("log: rotation", stats.rotations);
        self.report.add("log: recycled segment", stats.segments_recycled);
        self.report.add("log: sealed", stats.seals);
        let (poisoned, no_space, cut) = {
            let mut model = self.model();
            let seen = (model.poisoned, model.no_space, model.cut);
            (model.poisoned, model.no_space, model.cut) = (false, false, false);
            seen
        };
        self.report.add("log: poisoned", u64::from(poisoned));
        self.report.add("log: no space", u64::from(no_space));
        self.report.add("log: record cut over frames", u64::from(cut));
        match if self.disk.has_power() { self.rng.below(3) } else { 0 } {
            0 => {
                if self.disk.has_power() && self.rng.chance(1, 2) {
                    // The keeper's threads may be anywhere: the power goes first, then they end.
                    self.disk.fail(Fault::power_cut());
                }
                let next = self.disk.crash();
                drop(wal);
                self.go_on_with(next);
                self.model().written = Lsn::ZERO;
                self.report.hit("log: power lost");
            }
            1 => self.kill(wal),
            _ => {
                let closed = wal.close();
                self.say(|| format!("closed: {closed:?}"));
                let mut model = self.model();
                if closed.is_ok() {
                    let end = model.records.keys().next_back().map_or(Lsn::ZERO, |lsn| Lsn(lsn.0 + 1));
                    model.durable = model.durable.max(end);
                    drop(model);
                    self.report.hit("log: closed");
                } else {
                    model.written = model.durable;
                }
            }
        }
        self.disk.set_capacity(u64::MAX);
        Ok(())
    }

    /// Ends the process as `kill -9` does: nothing more reaches the disk, and nothing on it is lost.
    fn kill(&mut self, wal: Wal) {
        self.keep_trace();
        if matches!(wal.make_room(0), Err(Error::Poisoned(_))) {
            // A sync of the log's own threads has failed, and may have dropped what was only written.
            let mut model = self.model();
            model.written = model.durable;
        }
        let next = self.disk.kill();
        drop(wal);
        self.disk = next;
        self.say(|| "killed".to_owned());
        self.report.hit("log: killed");
    }

    /// Damages one file of a log that was closed cleanly, or left idle. True if the seed ends here.
    fn damage(&mut self) -> Result<bool, String> {
        self.disk.clear_faults();
        self.disk.set_capacity(u64::MAX);
        let Some(wal) = self.open()? else { return Ok(true) };
        // Opening may have planned another cut.
        self.disk.clear_faults();
        for _ in 0..self.rng.below(6) {
            let mut client = Client {
                wal: wal.clone(),
                model: self.model.clone(),
                rng: self.rng.fork(),
                runtime: self.runtime.clone(),
            };
            client.step()?;
        }
        let unsettled = self.rng.chance(1, 4);
        if unsettled {
            // The last group's loss cannot be told from its never having been written: anything may be refused or
            // cut here, but what is shown must be a beginning of the truth.
            self.kill(wal);
            let mut model = self.model();
            (model.durable, model.written) = (Lsn::ZERO, Lsn::ZERO);
        } else if self.rng.chance(1, 2) {
            wal.close().map_err(|error| format!("closing: {error}"))?;
        } else {
            // As sure as a clean close: everything is synced, and the seal says so.
            wal.sync().map_err(|error| format!("syncing: {error}"))?;
            while wal.step().map_err(|error| format!("sealing: {error}"))? {}
            self.kill(wal);
        }
        let last = self.model().records.keys().next_back().copied();
        let paths: Vec<String> = self
            .disk
            .paths()
            .into_iter()
            .filter(|path| path.starts_with(DIR.trim_start_matches('/')))
            .collect();
        // One in four hits the header of one of the newest segments: spares come last.
        let newest = self.rng.chance(1, 4);
        let among = if newest { paths.len().min(4) } else { paths.len() } as u64;
        let path = &paths[paths.len() - 1 - self.rng.below(among) as usize];
        let bytes = self.disk.read_file(path).map_or(0, |bytes| bytes.len() as u64);
        let block = |rng: &mut Rng| rng.below(bytes / 4096 + 1).min((bytes / 4096).saturating_sub(1));
        let damage = match self.rng.below(6) {
            _ if newest => Some(Damage::Flip { offset: self.rng.below(120), mask: 1 << self.rng.below(8) }),
            0 => Some(Damage::Flip { offset: self.rng.below(bytes), mask: 1 << self.rng.below(8) }),
            1 => Some(Damage::ZeroBlock(block(&mut self.rng))),
            2 => Some(Damage::SwapBlocks(block(&mut self.rng), block(&mut self.rng))),
            3 => Some(Damage::Truncate(self.rng.below(bytes))),
            4 => Some(Damage::Unreadable(0..bytes.min(8192))),
            _ => None,
        };
        match &damage {
            Some(damage) => self.disk.damage(path, damage).map_err(|error| error.to_string())?,
            None => self.disk.remove_durably(path).map_err(|error| error.to_string())?,
        }
        self.report.hit("log: damaged at rest");
        match self.options().open(DIR) {
            Err(Error::Corruption { .. } | Error::Io { .. } | Error::FormatVersion { .. }) => {
                self.report.hit("log: damage refused");
                self.count_refused_row();
            }
            Err(error) => return Err(format!("{damage:?} of {path} is reported as: {error}")),
            Ok(wal) => match self.compare(&wal) {
                Err(Compared::Read(_)) => self.report.hit("log: damage refused"),
                Err(Compared::Differs(what)) => return Err(format!("{damage:?} of {path}: {what}")),
                Ok(()) => {
                    // Every record is covered: none may be missing.
                    if !unsettled && self.model().records.keys().next_back().copied() != last {
                        return Err(format!("{damage:?} of {path}: a shorter history, in silence"));
                    }
                }
            },
        }
        Ok(true)
    }

    /// Which row refused, read from a salvage of the same damage.
    fn count_refused_row(&mut self) {
        let salvage =
            self.options().repair(seawall_wal::Repair::TruncateAtFirstError).read_only(true).open(DIR);
        if let Ok(wal) = salvage {
            self.report.hit(format!("recovery: {}", wal.recovery().row));
        }
    }

    fn power_on_again(&mut self) {
        let next = self.disk.crash();
        self.go_on_with(next);
    }

    fn go_on_with(&mut self, next: Arc<SimDisk>) {
        self.keep_trace();
        self.say(|| "power lost".to_owned());
        self.disk = next;
        self.traced = 0;
    }

    fn count_disk(&mut self) {
        for (name, n) in self.disk.counts() {
            self.report.add(format!("disk: {name}"), n);
        }
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if super::is_tracing() {
            self.keep_trace();
            self.report.trace.push(format!("-- {}", what()));
        }
    }

    /// Takes over what the disk traced since.
    fn keep_trace(&mut self) {
        if super::is_tracing() {
            let lines = self.disk.trace();
            let seen = self.traced.min(lines.len());
            self.report.trace.extend(lines[seen..].iter().map(|line| format!("   {line}")));
            self.traced = lines.len();
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

enum Compared {
    Read(Error),
    Differs(String),
}

impl std::fmt::Debug for Torture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Torture({})", self.seed)
    }
}
