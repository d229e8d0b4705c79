//! A store driven by a coordinator of your own, in XA's terms: `cargo run --example own_coordinator [DIR]`
//!
//! Two stores, and a file of decisions: a transaction is committed once its name is in the file, and durable there. Whatever a
//! crash leaves prepared is looked up in it.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, with a file of its own"
)]
use seawall::{Db, Prepared, Readable, Vote, Xid};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;

/// One line for each transaction that was committed. None of one that was not: presumed abort.
struct Decisions {
    file: File,
    committed: Vec<String>,
}

impl Decisions {
    fn open(path: PathBuf) -> std::io::Result<Decisions> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line that was torn by a crash was not acknowledged.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let committed = whole.map(|line| line.trim().to_owned()).collect();
        // What follows begins on a line of its own.
        file.write_all(b"\n")?;
        Ok(Decisions { file, committed })
    }

    fn commit(&mut self, gtrid: &str) -> std::io::Result<()> {
        self.file.write_all(format!("{gtrid}\n").as_bytes())?;
        self.file.sync_data()?;
        self.committed.push(gtrid.to_owned());
        Ok(())
    }

    fn has(&self, xid: &Xid) -> bool {
        self.committed.iter().any(|gtrid| gtrid.as_bytes() == xid.gtrid())
    }
}

/// XA's recover: after a crash, before anything else.
fn recover(db: &Db, decisions: &Decisions) -> seawall::Result<u32> {
    let mut ended = 0;
    for prepared in db.prepared() {
        if decisions.has(prepared.xid()) {
            prepared.commit()?
        } else {
            prepared.rollback()?
        };
        ended += 1;
    }
    Ok(ended)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir =
        std::env::args_os().nth(1).map_or_else(|| std::env::temp_dir().join("seawall-own"), PathBuf::from);
    std::fs::create_dir_all(&dir)?;
    let stores = [Db::open(dir.join("orders"))?, Db::open(dir.join("stock"))?];
    let mut decisions = Decisions::open(dir.join("decisions"))?;
    for db in &stores {
        println!("{} were in doubt", recover(db, &decisions)?);
    }
    let first = decisions.committed.len();
    for n in first..first + 10 {
        let gtrid = format!("order {n}");
        // The first phase: each store votes. Where one says no, dropping the others' votes would leave them in doubt.
        let mut votes: Vec<Prepared> = Vec::new();
        let mut refused = None;
        for (db, branch) in stores.iter().zip(["orders", "stock"]) {
            let rows = db.keyspace("rows")?;
            let mut tx = db.begin();
            tx.insert(&rows, &gtrid, "1 anvil")?;
            match tx.prepare(Xid::new(1, &gtrid, branch)?) {
                Ok(Vote::Prepared(prepared)) => votes.push(prepared),
                Ok(Vote::ReadOnly(_)) => {}
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            println!("{gtrid} is rolled back: {error}");
            votes.iter().try_for_each(|vote| vote.rollback().map(drop))?;
            continue;
        }
        // The decision, durable before anybody is told; then the second phase, which cannot fail but for a crash.
        decisions.commit(&gtrid)?;
        votes.iter().try_for_each(|vote| vote.commit().map(drop))?;
    }
    let counts: Vec<usize> = stores
        .iter()
        .map(|db| Ok(db.snapshot().range(&db.keyspace("rows")?, ..).count()))
        .collect::<seawall::Result<_>>()?;
    println!("the stores agree: {}", counts.iter().all(|count| *count == counts[0]));
    Ok(())
}
