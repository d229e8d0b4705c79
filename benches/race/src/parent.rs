//! The race itself: plans, interleaves, spawns, collects.

use crate::args::Args;
use crate::child::{Job, Phase, RESULT};
use crate::condition::Entrant;
use crate::contenders::{self, Contender};
use crate::drive::Measured;
use crate::machine::{self, Machine};
use crate::reopen::FILLED;
use crate::seen::Seen;
use crate::shelf::{Delivery, Order};
use crate::summary::Race;
use crate::workload::{Shelf, Workload};
use crate::{Result, benchmarks, cgroup, cold, meter, table};
use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// One table of the report.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) workload: Workload,
    pub(crate) threads: u16,
    pub(crate) field: Vec<Entrant>,
}

/// What one child did: a line of the JSON file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) workload: Workload,
    pub(crate) threads: u16,
    #[serde(flatten)]
    pub(crate) entrant: Entrant,
    pub(crate) repetition: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) measured: Option<Measured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        return list();
    }
    let cases = cases(args);
    if cases.is_empty() {
        return Err("none of the contenders asked for runs any of the workloads asked for; see --list".into());
    }
    // Files are opened before the race: an hour later is too late to find that they cannot be.
    let mut json = args.json.as_ref().map(|path| create(path)).transpose()?;
    if let Some(path) = &args.write {
        benchmarks::check(path)?;
    }
    let ground = Ground::prepare(args)?;
    let machine = Machine::look(&ground.dir)?;
    warn(&machine);
    let records = run_all(args, &cases, &ground, json.as_mut())?;
    let race = Race::new(&cases, &records, machine.shows_flushes());
    table::print(&race, &machine, args)?;
    if let Some(path) = &args.write {
        benchmarks::write(path, &race, &machine, args)?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "Contenders:")?;
    for contender in Contender::value_variants() {
        writeln!(out, "  {:16} {}", contender.name(), contender.about())?;
    }
    writeln!(out, "\nWorkloads:")?;
    for workload in Workload::value_variants() {
        let field: Vec<String> = contenders::field(*workload).iter().map(|entrant| entrant.name()).collect();
        let threads: Vec<String> = workload.threads_default().iter().map(ToString::to_string).collect();
        writeln!(out, "  {:16} {}", workload.name(), workload.about())?;
        writeln!(out, "  {:16}   threads {}: {}", "", threads.join(" "), field.join(", "))?;
    }
    Ok(())
}

fn cases(args: &Args) -> Vec<Case> {
    let mut cases = Vec::new();
    for workload in Workload::value_variants().iter().copied() {
        if !args.workloads.is_empty() && !args.workloads.contains(&workload) {
            continue;
        }
        let threads = if args.threads.is_empty() || workload.is_single() {
            workload.threads_default()
        } else {
            &args.threads
        };
        let asked = |entrant: &Entrant| args.only.is_empty() || args.only.contains(&entrant.contender);
        let field: Vec<Entrant> = contenders::field(workload).into_iter().filter(asked).collect();
        if !field.is_empty() {
            cases.extend(threads.iter().map(|&threads| Case { workload, threads, field: field.clone() }));
        }
    }
    cases
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

fn warn(machine: &Machine) {
    match machine.flushes_idle_per_s {
        Some(flushes) if flushes > 5.0 => {
            eprintln!(
                "warning: others flush this device {flushes:.0} times a second: figures will be disturbed"
            );
        }
        _ if !machine.shows_flushes() => {
            eprintln!(
                "warning: this device does not show flushes: whether contenders flush cannot be checked"
            );
        }
        _ => {}
    }
}

/// Where stores are made, this process's alone.
struct Ground {
    dir: PathBuf,
    _lock: File,
}

impl Ground {
    fn prepare(args: &Args) -> Result<Ground> {
        let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/race-stores");
        let dir = args.dir.clone().map_or(default, |dir| dir.join("race-stores"));
        let cannot = |error: std::io::Error| format!("cannot make stores in {}: {error}", dir.display());
        fs::create_dir_all(&dir).map_err(cannot)?;
        let file_system = machine::file_system_of(&dir)?;
        if file_system.is_memory() {
            return Err(format!(
                "{} is on {}, which is memory, not a disk: name a directory of a disk with --dir",
                dir.display(),
                file_system.name
            )
            .into());
        }
        let lock = File::create(dir.join("lock")).map_err(cannot)?;
        if lock.try_lock().is_err() {
            return Err(format!("another race runs in {}", dir.display()).into());
        }
        for left in fs::read_dir(&dir)?.flatten().filter(|entry| entry.path().is_dir()) {
            fs::remove_dir_all(left.path())?;
        }
        Ok(Ground { dir, _lock: lock })
    }
}

fn run_all(args: &Args, cases: &[Case], ground: &Ground, mut json: Option<&mut File>) -> Result<Vec<Record>> {
    let total: usize =
        cases.iter().map(|case| case.field.len()).sum::<usize>() * usize::from(args.repetitions());
    let mut records = Vec::with_capacity(total);
    let mut keep = |record: Record| -> Result<()> {
        records.push(record.clone());
        eprintln!("[{}/{total}] {}", records.len(), table::progress(&record));
        if let Some(json) = json.as_mut() {
            writeln!(json, "{}", serde_json::to_string(&record)?)?;
        }
        Ok(())
    };
    for case in cases.iter().filter(|case| case.workload.shelf().is_none()) {
        for repetition in 1..=args.repetitions() {
            for &entrant in &case.field {
                let outcome = run_one(args, case, entrant, ground).map_err(|error| error.to_string());
                keep(Record::new(case.workload, case.threads, entrant, repetition, outcome))?;
            }
        }
    }
    for shelf in Shelf::ALL {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.workload.shelf() == Some(shelf)).collect();
        let mut field: Vec<Entrant> = Vec::new();
        for entrant in cases.iter().flat_map(|case| &case.field) {
            if !field.contains(entrant) {
                field.push(*entrant);
            }
        }
        for repetition in 1..=args.repetitions() {
            for &entrant in &field {
                let asked = cases.iter().filter(|case| case.field.contains(&entrant));
                let asked: Vec<(Workload, u16)> = asked.map(|case| (case.workload, case.threads)).collect();
                let (rows, update_s, cases) = (args.rows_there(), args.update_s(), asked.clone());
                let order = Order { shelf, rows, update_s, own_bytes: 0, cases };
                let delivery = run_shelf(args, entrant, order, ground).unwrap_or_else(|error| {
                    asked.iter().map(|case| (case.0, case.1, Err(error.to_string()))).collect()
                });
                for (workload, threads, outcome) in delivery {
                    keep(Record::new(workload, threads, entrant, repetition, outcome))?;
                }
            }
        }
    }
    Ok(records)
}

impl Record {
    fn new(
        workload: Workload,
        threads: u16,
        entrant: Entrant,
        repetition: u16,
        outcome: std::result::Result<Measured, String>,
    ) -> Record {
        let (measured, error) = match outcome {
            Ok(measured) => (Some(measured), None),
            Err(error) => (None, Some(error)),
        };
        Record { workload, threads, entrant, repetition, measured, error }
    }
}

/// How long a child may load and measure.
const SHELF_PATIENCE: Duration = Duration::from_secs(7200);

/// Loads a store, measures all that is ordered on it, and opens it again if that is.
fn run_shelf(args: &Args, entrant: Entrant, order: Order, ground: &Ground) -> Result<Delivery> {
    let opens = order.cases.iter().any(|(workload, _)| *workload == Workload::ColdOpen);
    let bytes = order.rows * crate::shelf::ROW_BYTES;
    let limit = order.shelf.memory(bytes).saturating_add(cgroup::BESIDE_BYTES);
    let job = Job {
        entrant,
        workload: Workload::Load,
        threads: 1,
        window_s: args.window_s(),
        dir: ground.dir.join(format!("{:?}-{}", order.shelf, entrant.dir_name()).to_lowercase()),
        phase: Phase::Shelf,
        log_bytes: 0,
        order: Some(order.clone()),
        cgroup: args.cgroup.clone().filter(|_| limit < bytes).map(|dir| (dir, limit)),
    };
    fs::create_dir(&job.dir)?;
    let outcome = if entrant.contender == Contender::Device {
        finish(&Job { phase: Phase::ShelfOpen, ..job.clone() }, SHELF_PATIENCE)
            .map(|measured| vec![(Workload::MultiGet4x, 1, Ok(measured))])
    } else {
        finish(&job, SHELF_PATIENCE).and_then(|mut delivery: Delivery| {
            if opens {
                meter::settle(&job.dir)?;
                cold::forget(&job.dir)?;
                let opened = finish(&Job { phase: Phase::ShelfOpen, ..job.clone() }, SHELF_PATIENCE);
                delivery.push((Workload::ColdOpen, 1, opened.map_err(|error| error.to_string())));
            }
            Ok(delivery)
        })
    };
    fs::remove_dir_all(&job.dir)?;
    meter::settle(&ground.dir)?;
    outcome
}

fn run_one(args: &Args, case: &Case, entrant: Entrant, ground: &Ground) -> Result<Measured> {
    let name = format!("{}-{}-{}", case.workload.name(), case.threads, entrant.dir_name());
    let job = Job {
        entrant,
        workload: case.workload,
        threads: case.threads,
        window_s: args.window_s(),
        dir: ground.dir.join(name),
        phase: Phase::Measure,
        log_bytes: args.log_bytes_of(case.workload),
        order: None,
        cgroup: None,
    };
    fs::create_dir(&job.dir)?;
    let outcome = measure(&job);
    fs::remove_dir_all(&job.dir)?;
    // The files' end, and the discards that it may mean, belong to nobody's window.
    meter::settle(&ground.dir)?;
    outcome
}

fn measure(job: &Job) -> Result<Measured> {
    let window = Duration::from_secs_f64(job.window_s);
    let patience = window * 10 + Duration::from_secs(300);
    if !job.workload.is_opening() {
        return finish(job, patience);
    }
    let filled = fill_and_kill(job, patience)?;
    meter::settle(&job.dir)?;
    if job.workload != Workload::Recovery {
        return finish(&Job { phase: Phase::Reopen, ..job.clone() }, patience);
    }
    cold::forget(&job.dir)?;
    let read: Measured = finish(&Job { phase: Phase::Read, ..job.clone() }, patience)?;
    cold::forget(&job.dir)?;
    let opened: Measured = finish(&Job { phase: Phase::Reopen, ..job.clone() }, patience)?;
    let seen =
        Seen { read_bytes_per_s: read.seen.read_bytes_per_s, log_bytes: filled.log_bytes, ..opened.seen };
    Ok(Measured { seen, ..opened })
}

/// What the killed store had counted.
fn fill_and_kill(job: &Job, patience: Duration) -> Result<Seen> {
    let mut filler = spawn(&Job { phase: Phase::Fill, ..job.clone() })?;
    let filled = line(&mut filler, FILLED, patience);
    // SIGKILL: it has no say in it.
    filler.kill()?;
    filler.wait()?;
    Ok(serde_json::from_str(&filled.map_err(|error| format!("{error}{}", last_words(job)))?)?)
}

/// Lets a child come to its end, and gives what it found.
fn finish<T: DeserializeOwned>(job: &Job, patience: Duration) -> Result<T> {
    let mut child = spawn(job)?;
    let result = line(&mut child, RESULT, patience);
    if result.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    // Whoever was killed says nothing; how it ended does.
    let result = result.map_err(|error| format!("{error} ({status}){}", last_words(job)))?;
    Ok(serde_json::from_str(&result)?)
}

fn spawn(job: &Job) -> Result<Child> {
    let errors = File::create(job.dir.join("stderr"))?;
    let child = Command::new(std::env::current_exe()?)
        .arg("child")
        .arg(serde_json::to_string(job)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()?;
    Ok(child)
}

/// Waits for the line of a child's output that begins so, and gives the rest of it.
fn line(child: &mut Child, begins: &'static str, patience: Duration) -> Result<String> {
    let output = child.stdout.take().ok_or("the child has no output")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
            if let Some(rest) = line.strip_prefix(begins) {
                // Nobody listens any more if the patience is at its end.
                let _ = sender.send(rest.to_owned());
            }
        }
    });
    receiver.recv_timeout(patience).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("not done after {patience:?}").into(),
        RecvTimeoutError::Disconnected => "ended without a result".into(),
    })
}

fn is_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|space| space.f_bavail * space.f_frsize < 1 << 20)
}

/// What a failed child said last.
fn last_words(job: &Job) -> String {
    let text = fs::read_to_string(job.dir.join("stderr")).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    match last {
        Some(line) => format!(": {}", line.strip_prefix("race: ").unwrap_or(line)),
        // It could not even say so.
        None if is_full(&job.dir) => ": the disk is full".to_owned(),
        None => String::new(),
    }
}
