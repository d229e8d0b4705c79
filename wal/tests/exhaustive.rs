//! Every call to the disk, of short histories of a log, as the place where the power fails, or where the call does.
//!
//! Bounded exhaustive crash testing found 24 of 26 known file-system bugs within three operations (B3, OSDI 2018). Here a
//! history is run once to count its calls to the disk, and then once for each call and each kind of fault:
//!
//! - *the power fails* at it, and each kind of crash leaves what it may, under both habits of names; recovery is cut
//!   short as well, at every call of its own for the shortest history, at some for the others;
//! - *the call fails*: `EIO`, a full disk, a write cut short, a sync that drops its pages. The client goes on as far as
//!   it is let, then it is killed, or the power fails.
//!
//! Afterwards the log must open, and hold exactly the first n records, n at least all that was acknowledged; it must take
//! another record, and show that one, too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::mem_forget,
    reason = "a test fails by panicking, and says what it counted"
)]

#[path = "exhaustive/model.rs"]
mod model;
#[path = "exhaustive/workload.rs"]
mod workload;

use model::Model;
use seawall_wal::SimDisk;
use seawall_wal::Wal;
use seawall_wal::disk::sim::{CrashStyle, Fault, NameHabit, Op};
use seawall_wal::mutation::Mutation;
use std::panic::catch_unwind;
use std::sync::Arc;
use workload::{DIR, RESUMED, RESUMES, Step, WORKLOADS, Workload, options, play};

const HABITS: [NameHabit; 2] = [NameHabit::Strict, NameHabit::Ext4];
/// The random ones differ each time.
const STYLES: [CrashStyle; 7] = [
    CrashStyle::KeepAll,
    CrashStyle::KeepNone,
    CrashStyle::Prefix,
    CrashStyle::Prefix,
    CrashStyle::Random,
    CrashStyle::Random,
    CrashStyle::Random,
];
/// One more record, and an end.
const AFTERWARDS: [Step; 1] = [Step::Commit(50, seawall_wal::Durability::Synced)];

/// How many calls the steps make.
fn measure(workload: &Workload, habit: NameHabit) -> u64 {
    let (disk, mut model) = workload.prepare(habit).unwrap();
    let before = disk.calls();
    play(&disk, workload.steps, &mut model).unwrap();
    assert!(model.next > workload.before.len() as u64, "{}", workload.name);
    disk.calls() - before
}

/// How many calls were made to fail.
fn failed_calls(disk: &SimDisk) -> u64 {
    let names = ["eio", "full", "short read", "short write", "dropped sync"];
    disk.counts().iter().filter(|(name, _)| names.contains(name)).map(|(_, count)| count).sum()
}

/// The state that a power cut leaves.
fn crashed(disk: &SimDisk, style: CrashStyle) -> Arc<SimDisk> {
    disk.set_crash_style(Some(style));
    disk.crash_copy()
}

/// The log opens, with all that was promised, and goes on.
fn settled(disk: Arc<SimDisk>, mut model: Model) -> Result<(), String> {
    disk.clear_faults();
    let wal: Wal = options(&disk).open(DIR).map_err(|error| format!("does not open: {error}"))?;
    model.compare(&wal)?;
    std::mem::forget(wal);
    let disk = disk.kill();
    let records = model.records.len();
    play(&disk, &AFTERWARDS, &mut model)?;
    if model.durable != records + 1 {
        return Err("takes no record any more".to_owned());
    }
    let disk = crashed(&disk, CrashStyle::KeepNone);
    let wal = options(&disk).open(DIR).map_err(|error| format!("does not open again: {error}"))?;
    model.compare(&wal)
}

/// Cuts the power at call `at` of the steps; what a client knew then.
fn cut_at(workload: &Workload, habit: NameHabit, at: u64) -> Result<(Arc<SimDisk>, Model), String> {
    let (disk, mut model) = workload.prepare(habit)?;
    disk.fail(Fault::power_cut().at_call(at));
    play(&disk, workload.steps, &mut model)?;
    assert!(!disk.has_power(), "the power fails at each of the calls");
    Ok((disk, model.cut()))
}

/// Every call of a recovery is a place where the power fails again, or every `stride`th.
fn cut_recovery(disk: &Arc<SimDisk>, model: &Model, stride: u64) -> Result<u64, String> {
    let mut states = 0;
    for at in (1..).step_by(stride as usize) {
        let again = crashed(disk, CrashStyle::KeepAll);
        again.fail(Fault::power_cut().at_call(at));
        let mut model = model.clone();
        play(&again, &[], &mut model)?;
        if again.has_power() {
            break;
        }
        let style = if at % 2 == 0 { CrashStyle::KeepNone } else { CrashStyle::Random };
        let context = |what| format!("recovery's call {at}, {style:?}: {what}");
        settled(crashed(&again, style), model.cut()).map_err(context)?;
        states += 1;
    }
    Ok(states)
}

/// All cuts of one workload; recovery's own at every `stride`th call, for every `among`th state.
fn cut_everywhere(workload: &Workload, stride: u64, among: u64) -> Result<u64, String> {
    let mut states = 0;
    for habit in HABITS {
        let calls = measure(workload, habit);
        for at in 1..=calls {
            let context = |what| {
                format!("{}, {habit:?}, the power fails at call {at} of {calls}: {what}", workload.name)
            };
            let (disk, model) = cut_at(workload, habit, at).map_err(context)?;
            for (i, style) in STYLES.iter().enumerate() {
                let context = |what| context(format!("{style:?}: {what}"));
                let left = crashed(&disk, *style);
                settled(crashed(&left, CrashStyle::KeepAll), model.clone()).map_err(context)?;
                states += 1;
                if (at + i as u64).is_multiple_of(among) {
                    states += cut_recovery(&left, &model, stride).map_err(context)?;
                }
            }
        }
    }
    Ok(states)
}

/// One call fails, every one in turn.
fn fail_everywhere(workload: &Workload, name: &str, fault: impl Fn(u64) -> Fault) -> Result<u64, String> {
    for at in 1.. {
        let context = |what| format!("{}, {name} {at}: {what}", workload.name);
        let (disk, mut model) = workload.prepare(NameHabit::Strict)?;
        disk.fail(fault(at));
        play(&disk, workload.steps, &mut model).map_err(context)?;
        if failed_calls(&disk) == 0 {
            return Ok(at - 1);
        }
        for style in [CrashStyle::KeepAll, CrashStyle::KeepNone, CrashStyle::Random] {
            settled(crashed(&disk, style), model.cut())
                .map_err(|what| context(format!("then the power fails, {style:?}: {what}")))?;
        }
        settled(disk.kill(), model).map_err(|what| context(format!("then it is killed: {what}")))?;
    }
    Ok(0)
}

/// Every kind of failing call; how many calls failed.
fn fail_in_every_way(workload: &Workload) -> Result<u64, String> {
    type Kind = (&'static str, fn() -> Fault);
    let kinds: [Kind; 6] = [
        ("EIO", || Fault::eio(Op::Any)),
        ("EIO for ever", || Fault::eio(Op::Any).forever()),
        ("full disk", || Fault::full(Op::Any)),
        ("full disk for ever", || Fault::full(Op::Any).forever()),
        ("short", || Fault::short(Op::Any)),
        ("dropped sync", Fault::dropped_sync),
    ];
    let mut failed = 0;
    for (name, kind) in kinds {
        let calls = fail_everywhere(workload, name, |at| kind().at_call(at))?;
        assert!(calls > 0, "{}: {name} meets no call", workload.name);
        failed += calls;
    }
    Ok(failed)
}

#[test]
fn the_power_fails_at_every_call_and_at_every_call_of_the_recovery() {
    let states = cut_everywhere(&WORKLOADS[0], 1, 1).unwrap();
    assert!(states > 10_000, "{states}");
}

#[test]
fn the_power_fails_at_every_call() {
    for workload in &WORKLOADS[1..] {
        let states = cut_everywhere(workload, 5, 11).unwrap();
        println!("{}: {states} states", workload.name);
    }
}

#[test]
fn every_call_fails() {
    for workload in &WORKLOADS {
        let calls = fail_in_every_way(workload).unwrap();
        println!("{}: {calls} calls", workload.name);
    }
}

/// The disk is full at each call that can tell, once or twice, and the client asks the log to go on.
#[test]
fn every_call_finds_no_room_and_the_log_goes_on() {
    RESUMES.set(true);
    for workload in &WORKLOADS {
        fail_everywhere(workload, "full, then room", |at| Fault::full(Op::Any).at_call(at)).unwrap();
    }
    assert!(RESUMED.get() > 30, "only {} logs went on", RESUMED.get());
    workload::MISTAKE.set(Some(Mutation::ForgetUnwritten));
    let is_noticed = WORKLOADS.iter().any(|workload| {
        let found = catch_unwind(|| fail_everywhere(workload, "", |at| Fault::full(Op::Any).at_call(at)));
        !matches!(found, Ok(Ok(_)))
    });
    assert!(is_noticed, "frames that found no room are forgotten, and nobody notices");
}

/// Each step that is left out, and each check that looks away, is noticed.
#[test]
fn mistakes_are_noticed() {
    let mutations = [
        Mutation::DurableWriteAsBarrier,
        Mutation::HeaderEarly,
        Mutation::RetrySync,
        Mutation::ReclaimBeforeAnchor,
        Mutation::GoOnBehindTornTail,
        Mutation::GoOnAfterFailure,
        Mutation::AcknowledgeWritten,
        Mutation::CutLazily,
    ];
    for mutation in mutations {
        workload::MISTAKE.set(Some(mutation));
        let found = WORKLOADS.iter().find_map(|workload| {
            let found =
                catch_unwind(|| fail_in_every_way(workload).and_then(|_| cut_everywhere(workload, 5, 11)));
            found.unwrap_or_else(|_| Err("a panic".to_owned())).err()
        });
        let found = found.unwrap_or_else(|| panic!("{mutation:?} goes unnoticed"));
        println!("{mutation:?}: {found}");
    }
}
