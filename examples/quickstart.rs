//! The first five minutes: rows, a transaction, a snapshot, a crash-proof reopening.
//!
//! `cargo run --example quickstart [DIR]`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use seawall::{Db, Readable, Result, WriteBatch};

fn main() -> Result<()> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("seawall-quickstart"), Into::into);
    let db = Db::open(&dir)?;
    let accounts = db.keyspace("accounts")?;

    // Rows that go together: one record in the log, one sync.
    let mut batch = WriteBatch::new();
    batch.insert(&accounts, "ada", "100").insert(&accounts, "bob", "0");
    db.write(batch)?;

    // A transaction reads, decides and writes; if another changes the same rows first, it runs again.
    let before = db.snapshot();
    let moved = db.transact(|tx| {
        let balance = |value: Option<seawall::Slice>| -> i64 {
            value.and_then(|v| std::str::from_utf8(&v).ok()?.parse().ok()).unwrap_or(0)
        };
        let (ada, bob) = (balance(tx.get(&accounts, "ada")?), balance(tx.get(&accounts, "bob")?));
        tx.insert(&accounts, "ada", (ada - 30).to_string())?;
        tx.insert(&accounts, "bob", (bob + 30).to_string())?;
        Ok(30)
    })?;
    println!("moved {moved}");

    for row in before.range(&accounts, ..) {
        let (key, value) = row?;
        println!("before: {} {}", key.escape_ascii(), value.escape_ascii());
    }
    drop(before);
    for row in accounts.range(..).rev() {
        let (key, value) = row?;
        println!("now: {} {}", key.escape_ascii(), value.escape_ascii());
    }

    // Nothing has to be closed for the data's sake: what was acknowledged is on the device. A clean close makes the
    // next opening quick.
    drop(accounts);
    db.close()?;
    let db = Db::open(&dir)?;
    println!("reopened with {:?}, {} records replayed", db.keyspaces(), db.recovery().records);
    Ok(())
}
