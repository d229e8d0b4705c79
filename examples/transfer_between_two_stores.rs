//! Money moves between two stores, in both or in neither: `cargo run --example transfer_between_two_stores [DIR]`
//!
//! Eight threads transfer at once. The coordinator remembers in the first store, which takes part as well, so a transfer costs
//! two forced writes; and what a crash leaves half done is finished when the stores are attached again.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, with threads"
)]
use seawall::txn::{Coordinator, NodeId, Store};
use seawall::{Db, Keyspace, Readable};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

const ACCOUNTS: u64 = 8;
const START: i64 = 1000;

fn balance(reader: &impl Readable, accounts: &Keyspace, account: u64) -> seawall::Result<i64> {
    let value = reader.get(accounts, account.to_be_bytes())?;
    Ok(value.and_then(|value| (*value).try_into().ok()).map_or(START, i64::from_le_bytes))
}

fn total(db: &Db, accounts: &Keyspace) -> seawall::Result<i64> {
    (0..ACCOUNTS).map(|account| balance(&db.snapshot(), accounts, account)).sum()
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("seawall-transfer"), PathBuf::from);
    std::fs::create_dir_all(&dir)?;
    let (here, there) = (Db::open(dir.join("here"))?, Db::open(dir.join("there"))?);
    let (ours, theirs) = (here.keyspace("accounts")?, there.keyspace("accounts")?);

    // Nodes are numbered by whoever puts the system together; a store keeps its number.
    let (a, b) = (Store::new(NodeId(1), &here)?, Store::new(NodeId(2), &there)?);
    let coordinator = Coordinator::open(&a)?;
    coordinator.attach(&b)?;

    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u64)
            .map(|thread| {
                let (coordinator, a, b) = (&coordinator, &a, &b);
                let (ours, theirs) = (&ours, &theirs);
                scope.spawn(move || transfers(thread, coordinator, (a, ours), (b, theirs)))
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread has panicked")??;
        }
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    })?;
    println!("{} in both stores together", total(&here, &ours)? + total(&there, &theirs)?);
    Ok(())
}

fn transfers(
    thread: u64,
    coordinator: &Coordinator,
    (a, ours): (&Arc<Store>, &Keyspace),
    (b, theirs): (&Arc<Store>, &Keyspace),
) -> seawall::txn::Result<()> {
    for round in 0..25 {
        let (from, to) = ((thread + round) % ACCOUNTS, (thread * 3 + round) % ACCOUNTS);
        // Run again if another transfer was in the way; not if the outcome is unknown.
        coordinator.transact(|global| {
            let tx = global.branch(a)?;
            let left = balance(tx, ours, from)? - 10;
            tx.insert(ours, from.to_be_bytes(), left.to_le_bytes())?;
            let tx = global.branch(b)?;
            let more = balance(tx, theirs, to)? + 10;
            tx.insert(theirs, to.to_be_bytes(), more.to_le_bytes())?;
            Ok(())
        })?;
    }
    Ok(())
}
