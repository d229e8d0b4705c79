//! What a store says that nobody else has open.

use super::super::measure::units::show_bytes;
use super::super::ui::Unit;
use super::super::{Failure, Outcome, Ui};
use super::{DoctorArgs, Findings, ago};
use seawall::wal::disk::{Disk, OsDisk};
use seawall::{Db, Error, SlotState, SlotStatus};
use std::path::Path;
use std::time::Duration;

/// Near a limit is beyond so many tenths of it.
const NEAR_TENTHS: u128 = 8;

/// None where it cannot be opened: that is a finding then.
pub(super) fn examine(
    ui: &Ui,
    args: &DoctorArgs,
    dir: &Path,
    is_replica: bool,
    found: &mut Findings,
) -> Outcome<Option<Db>> {
    let db = match Db::builder(dir).create(false).read_only(true).open() {
        Ok(db) => db,
        Err(Error::Locked { .. }) => {
            let pid = OsDisk::new().lock_holder(&dir.join("data"));
            let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            found
                .note(
                    "open",
                    format!("{who} has the store open: its slots and transactions, only that one knows"),
                )
                .helps("ask it: `seawall doctor --of HOST:PORT`, or its --metrics-addr");
            return Ok(None);
        }
        Err(error @ Error::Corruption { .. }) => {
            found.damage("store", error.to_string());
            return Ok(None);
        }
        Err(error @ (Error::FormatVersion { .. } | Error::Io { .. })) => return Err(error.into()),
        Err(error) => {
            found.problem("store", format!("it cannot be opened: {error}"));
            return Ok(None);
        }
    };
    recovery(&db, found);
    slots(args, dir, &db.slots(), is_replica, found);
    retained(&db, found);
    prepared(args, dir, &db, found);
    if !args.quick {
        verify(ui, &db, found)?;
    }
    Ok(Some(db))
}

fn recovery(db: &Db, found: &mut Findings) {
    let recovery = db.recovery();
    found.note("I/O", format!("by {}: {}", recovery.backend, recovery.backend_reason));
    if let Some((file, offset)) = &recovery.dropped_tail {
        let says = format!(
            "the last process did not close the store: what it was writing at byte {offset} of {} is dropped; nobody was told \
             that it was committed",
            file.display()
        );
        found.note("log", says);
    }
    let (bytes, took) = (recovery.bytes, recovery.took);
    found.note("opening", format!("{} of log were read, in {took:.1?}", show_bytes(bytes)));
    // Of this one's own, which is the only one: whoever has the store open besides reads it as this does.
    let age = db.stats().oldest_snapshot_age;
    found.note(
        "snapshots",
        match age {
            Duration::ZERO => {
                "none: nobody has the store open for writing, and a snapshot ends with its process".to_owned()
            }
            age => format!("the oldest is {} old", ago(age)),
        },
    );
}

fn slots(args: &DoctorArgs, dir: &Path, slots: &[SlotStatus], is_replica: bool, found: &mut Findings) {
    for slot in slots {
        let (about, name, dir) = (format!("slot {}", slot.name), &slot.name, dir.display());
        let (kept, idle) = (show_bytes(slot.retained_bytes), ago(slot.idle));
        if slot.state == SlotState::Lost {
            found
                .problem(about, "it fell behind beyond its limits, and its log is gone: its replica needs a new image")
                .helps(format!(
                    "move the replica's store away, and start `seawall replica` on the empty place: that makes the slot anew; or \
                     `seawall slot drop {dir} {name}` if it does not come back"
                ));
            continue;
        }
        let limits = slot.options;
        let is_near = |value: u128, most: u128| value * 10 >= most * NEAR_TENTHS;
        let near = [
            limits
                .bytes_max
                .filter(|most| is_near(slot.retained_bytes.into(), (*most).into()))
                .map(show_bytes),
            limits.age_max.filter(|most| is_near(slot.idle.as_micros(), most.as_micros())).map(ago),
        ];
        let near: Vec<String> = near.into_iter().flatten().collect();
        if !near.is_empty() {
            let says = format!(
                "it keeps {kept} of log and was heard of {idle} ago: near its limit of {}, beyond which its replica needs a new \
                 image",
                near.join(" and ")
            );
            found
                .warning(about, says)
                .helps("bring its replica back; or drop the slot, and create it with larger limits");
        } else if slot.state == SlotState::Extended || slot.idle >= args.silence {
            let limit = match limits.bytes_max {
                Some(most) => format!("up to {} are kept", show_bytes(most)),
                None => "nothing limits what it keeps".to_owned(),
            };
            let says = format!("it keeps {kept} of log, and was heard of {idle} ago; {limit}");
            found.warning(about, says).helps(format!(
                "bring its replica back; `seawall slot drop {dir} {name}` releases the log, and that replica then needs a new image"
            ));
        } else {
            found.note(about, format!("it keeps {kept} of log, and was heard of {idle} ago"));
        }
    }
    if is_replica && slots.is_empty() {
        found.note("slots", "none: no replica follows this one");
    }
}

fn retained(db: &Db, found: &mut Findings) {
    let stats = db.stats();
    let mut holders = stats.log_retained;
    holders.sort_by_key(|holder| holder.lsn);
    match holders.first() {
        Some(first) => {
            let says = format!(
                "{} are kept: by {}, from LSN {} on ({})",
                show_bytes(stats.log_bytes),
                first.who,
                first.lsn,
                show_bytes(first.bytes)
            );
            found.note("retained log", says);
        }
        None => {
            let says = format!(
                "{} are kept, from the last checkpoint on: what opening needs; the rest is released by whoever opens it for writing",
                show_bytes(stats.log_bytes)
            );
            found.note("retained log", says);
        }
    }
}

fn prepared(args: &DoctorArgs, dir: &Path, db: &Db, found: &mut Findings) {
    let in_doubt: Vec<_> = db.prepared().collect();
    let dir = dir.display();
    match in_doubt.iter().max_by_key(|prepared| prepared.age()) {
        None => {
            found.note("prepared", "no transaction waits for its outcome");
        }
        Some(oldest) => {
            let (count, age) = (in_doubt.len(), ago(oldest.age()));
            let keys: u64 = in_doubt.iter().map(seawall::Prepared::locked_keys).sum();
            let says = format!(
                "transactions that wait for their outcome: {count}; they hold {keys} keys; the oldest is {} and waits for {age}",
                oldest.xid()
            );
            if oldest.age() >= args.prepared_age {
                found.warning("prepared", says).helps(format!(
                    "bring their coordinator back; only if it is lost for good, `seawall txn list {dir}` and then commit or \
                     rollback by hand, as the other stores of the transaction have done"
                ));
            } else {
                found.note("prepared", says);
            }
        }
    }
    let by_hand = db.heuristics().count();
    if by_hand > 0 {
        let says = format!("transactions that were ended by hand, and are not forgotten: {by_hand}");
        found.warning("heuristics", says).helps(format!(
            "hold each against what its other stores have done, then `seawall txn forget {dir} XID`; its coordinator is told \
             meanwhile"
        ));
    }
}

fn verify(ui: &Ui, db: &Db, found: &mut Findings) -> Outcome {
    let bar = ui.progress(Some(0), Unit::Blocks);
    let report = db.verify(|progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let report = match report {
        Ok(report) => report,
        Err(error @ Error::Corruption { .. }) => {
            found.damage("store", error.to_string());
            return Ok(());
        }
        Err(error) => return Err(Failure::from(error)),
    };
    for problem in &report.problems {
        found.damage("store", problem);
    }
    for note in &report.notes {
        found.note("store", note);
    }
    if report.problems.is_empty() {
        let says = format!(
            "{} blocks and {} log records were read: all are whole",
            report.blocks, report.log_records
        );
        found.note("store", says);
    }
    Ok(())
}
