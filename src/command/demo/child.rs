//! The process that is killed: writers, each reporting on standard output what was acknowledged.
//!
//! A line a report: `A writer sequence commit_us`, after the commit's return, in one system call; `S commits syncs`
//! now and then. The process ends when the pipe does.

use super::bank::Bank;
use crate::command::measure::random::Random;
use crate::command::{Failure, Outcome};
use clap::Args;
use seawall::Db;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const STATS_EVERY: Duration = Duration::from_millis(25);

/// Runs writers until killed.
#[derive(Debug, Args)]
pub(crate) struct ChildArgs {
    store: PathBuf,
    writers: u32,
}

pub(crate) fn run(args: ChildArgs) -> Outcome {
    let db = Db::builder(&args.store).create(false).open()?;
    let bank = Bank::open(&db)?;
    // `Stdout` has a buffer and a lock; reports are to be single system calls.
    let pipe = std::io::stdout().as_fd().try_clone_to_owned();
    let pipe = File::from(pipe.map_err(|error| Failure::output(&error))?);
    let pipe = Arc::new(pipe);
    let (failed, failure) = mpsc::channel();
    for writer in 0..args.writers {
        let (db, bank, pipe, failed) = (db.clone(), bank.clone(), Arc::clone(&pipe), failed.clone());
        std::thread::spawn(move || {
            if let Err(failure) = write(&db, &bank, &pipe, writer) {
                // Only the first failure is waited for.
                let _ = failed.send(failure);
            }
        });
    }
    // A writer fails when the store refuses, or when the parent has gone: the process ends with the first.
    loop {
        match failure.recv_timeout(STATS_EVERY) {
            Ok(failure) => return Err(failure),
            Err(_) => {
                let stats = db.stats();
                report(&pipe, &format!("S {} {}\n", stats.commits, stats.syncs))?;
            }
        }
    }
}

fn write(db: &Db, bank: &Bank, pipe: &File, writer: u32) -> Outcome {
    let mut random = Random::new();
    for sequence in bank.last_sequence(writer)? + 1.. {
        let start = Instant::now();
        db.transact(|transaction| bank.transfer(transaction, &mut random, writer, sequence))?;
        let commit_us = start.elapsed().as_micros();
        report(pipe, &format!("A {writer} {sequence} {commit_us}\n"))?;
    }
    Ok(())
}

/// Lines are far shorter than `PIPE_BUF`: those of several threads do not mix.
fn report(mut pipe: &File, line: &str) -> Outcome {
    pipe.write_all(line.as_bytes()).map_err(|error| Failure::output(&error))
}
