//! Rows, a transaction, a snapshot, a reopening: `cargo run --example quickstart [DIR]`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]
use seawall::{Db, Readable, Result};

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "quickstart.db".to_owned());
    let db = Db::open(&dir)?;
    let accounts = db.keyspace("accounts")?;
    accounts.insert("ada", "100")?; // on the device when it returns
    accounts.insert("bob", "0")?;

    let before = db.snapshot();
    // If another commits to the same rows first, the closure runs again.
    db.transact(|tx| {
        let ada = tx.get(&accounts, "ada")?.is_some_and(|balance| *balance == *b"100");
        tx.insert(&accounts, "ada", if ada { "70" } else { "0" })?;
        tx.insert(&accounts, "bob", if ada { "30" } else { "100" })
    })?;

    println!("before: {:?}", before.get(&accounts, "ada")?);
    for row in accounts.range("a".."c") {
        println!("now: {:?}", row?);
    }
    drop((before, accounts)); // whoever holds one of these holds the store
    db.close()?; // not needed for the data's sake: it says what failed at the end, if something did
    println!("{} records replayed on reopening", Db::open(&dir)?.recovery().records);
    Ok(())
}
