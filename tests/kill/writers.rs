//! The process that is killed. A report is a line in one system call, on standard error, where the test harness says
//! nothing of its own.
//!
//! | report | meaning |
//! |---|---|
//! | `O`, `R` | the store is about to be opened; it is open |
//! | `B w n`, `P w n` | writer `w` begins commit `n`, and waits for it; begins it, and does not wait |
//! | `A w n` | commit `n` of writer `w` returned, or its ticket resolved: it is on the device |
//! | `W w n` | it returned, and the kernel has it |
//! | `C`, `D` | a checkpoint writes; it is done |
//! | `L lsn` | the log's end |

use super::bank::{self, WRITERS};
use super::process::Role;
use seawall::{Db, DbBuilder, Durability, Event, EventListener, Keyspace, Result, Ticket, TxOptions};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Tickets that a pipelining writer has open.
const PIPELINE: usize = 12;

struct Reports(File);

impl Reports {
    fn say(&self, line: &str) {
        if (&self.0).write_all(format!("{line}\n").as_bytes()).is_err() {
            // The parent has gone, and nobody would end this process.
            std::process::exit(0);
        }
    }
}

impl EventListener for Reports {
    fn event(&self, event: &Event) {
        if matches!(event, Event::CheckpointDone { .. }) {
            self.say("D");
        }
    }
}

/// Works until it is killed, on what `builder` opens.
pub(crate) fn run(role: &Role, builder: DbBuilder) {
    let pipe = File::from(std::io::stderr().as_fd().try_clone_to_owned().unwrap());
    let reports = Arc::new(Reports(pipe));
    let stages = Arc::clone(&reports);
    let on_stage = move |stage: &'static str| {
        if stage == "blocks written" {
            stages.say("C");
        }
    };
    reports.say("O");
    let builder = builder.events(reports.clone()).on_stage(Arc::new(on_stage));
    let db = builder.open().unwrap();
    let keyspaces = bank::keyspaces(&db).unwrap();
    let last = bank::last_sequences(&db, &keyspaces[0]).unwrap();
    reports.say("R");
    if role.name == "write" {
        for (writer, last) in last.into_iter().enumerate() {
            let (db, keyspaces, reports) = (db.clone(), keyspaces.clone(), Arc::clone(&reports));
            std::thread::spawn(move || {
                let writer = Writer { db, keyspaces, reports, writer };
                if writer.writer < WRITERS - 2 { writer.one_by_one(last) } else { writer.pipelined(last) }
            });
        }
    }
    loop {
        reports.say(&format!("L {}", db.stats().visible_lsn.0));
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Writer {
    db: Db,
    keyspaces: [Keyspace; 2],
    reports: Arc<Reports>,
    writer: usize,
}

impl Writer {
    fn say(&self, kind: char, sequence: u64) {
        self.reports.say(&format!("{kind} {} {sequence}", self.writer));
    }

    /// Mostly synced. What was given to the kernel survives a kill too; what is in memory need not, and is not
    /// acknowledged.
    fn one_by_one(&self, last: u64) {
        for sequence in last + 1.. {
            let durability = match sequence % 11 {
                4 => Durability::Memory,
                2 | 7 => Durability::Written,
                _ => Durability::Synced,
            };
            let is_waited_for = durability != Durability::Memory;
            self.say(if is_waited_for { 'B' } else { 'P' }, sequence);
            let options = TxOptions { durability: Some(durability), ..Default::default() };
            self.db
                .transact_with(options, |tx| bank::write(tx, &self.keyspaces, self.writer, sequence))
                .unwrap_or_else(|error| panic!("writer {}, commit {sequence}: {error}", self.writer));
            match durability {
                Durability::Synced => self.say('A', sequence),
                Durability::Written => self.say('W', sequence),
                _ => {}
            }
        }
    }

    fn pipelined(&self, last: u64) {
        let mut open: VecDeque<(u64, Ticket)> = VecDeque::new();
        for sequence in last + 1.. {
            self.say('P', sequence);
            let ticket = self.place(sequence).unwrap_or_else(|error| panic!("commit {sequence}: {error}"));
            open.push_back((sequence, ticket));
            if open.len() > PIPELINE
                && let Some((sequence, ticket)) = open.pop_front()
            {
                ticket.wait().unwrap();
                self.say('A', sequence);
            }
        }
    }

    /// No row is written by two writers, but a store with so little memory soon forgets what a transaction that meets
    /// a checkpoint would have to be compared with; then it is told to begin again.
    fn place(&self, sequence: u64) -> Result<Ticket> {
        loop {
            let mut transaction = self.db.begin();
            bank::write(&mut transaction, &self.keyspaces, self.writer, sequence)?;
            match transaction.commit_pipelined() {
                Err(error) if error.is_conflict() => {}
                placed => return placed,
            }
        }
    }
}
