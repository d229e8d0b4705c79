//! Transactions that meet, and are run again until they fit: `cargo run --example transact [DIR]`
//!
//! Ten threads move money between accounts; none may be overdrawn, and the bank's total stays. At the end one account is
//! fought for, with its lock.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, with threads"
)]
use seawall::{Db, Error, Keyspace, Readable, Result, TxOptions};
use std::time::Duration;

const ACCOUNTS: u64 = 8;

/// Why nothing was moved.
#[derive(Debug)]
enum Refusal {
    Poor,
    Store(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Store(error)
    }
}

fn balance(reader: &impl Readable, accounts: &Keyspace, account: u64) -> Result<u64> {
    let value = reader.get(accounts, account.to_be_bytes())?;
    Ok(value.and_then(|value| (*value).try_into().ok()).map_or(0, u64::from_be_bytes))
}

/// `try_transact` runs the closure again for as long as another transaction got in between (up to a limit, with a random
/// pause that grows); an error of its own ends it, and nothing is written.
fn pay(db: &Db, accounts: &Keyspace, from: u64, to: u64, amount: u64) -> Result<(), Refusal> {
    db.try_transact(|tx| {
        let left = balance(tx, accounts, from)?.checked_sub(amount).ok_or(Refusal::Poor)?;
        tx.insert(accounts, from.to_be_bytes(), left.to_be_bytes())?;
        // It sees its own writes: paying oneself changes nothing.
        let theirs = balance(tx, accounts, to)?;
        tx.insert(accounts, to.to_be_bytes(), (theirs + amount).to_be_bytes())?;
        Ok(())
    })
}

/// Everybody wants this row: so they queue up for it, instead of running again and again.
fn count(db: &Db, accounts: &Keyspace) -> Result<u64> {
    let options = TxOptions { lock_timeout: Some(Duration::from_secs(10)), ..Default::default() };
    db.transact_with(options, |tx| {
        let old = tx.get_for_update(accounts, "visits")?;
        let visits = old.and_then(|old| (*old).try_into().ok()).map_or(0, u64::from_be_bytes) + 1;
        tx.insert(accounts, "visits", visits.to_be_bytes())?;
        Ok(visits)
    })
}

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "transact.db".to_owned());
    let db = Db::open(&dir)?;
    let accounts = db.keyspace("accounts")?;
    db.transact(|tx| {
        (0..ACCOUNTS)
            .try_for_each(|account| tx.insert(&accounts, account.to_be_bytes(), 100_u64.to_be_bytes()))
    })?;
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let (db, accounts) = (&db, &accounts);
            scope.spawn(move || {
                let mut poor = 0;
                for round in 0..50 {
                    let (from, to) = ((thread + round) % ACCOUNTS, (thread * 3 + round * 5 + 1) % ACCOUNTS);
                    match pay(db, accounts, from, to, 70) {
                        Ok(()) => {}
                        Err(Refusal::Poor) => poor += 1,
                        Err(Refusal::Store(error)) => return println!("thread {thread}: {error}"),
                    }
                    if let Err(error) = count(db, accounts) {
                        return println!("thread {thread}: {error}");
                    }
                }
                println!("thread {thread} could not pay {poor} times");
            });
        }
    });
    // Who only reads is never in anybody's way, and sees one moment.
    let snapshot = db.snapshot();
    let mut total = 0;
    for account in 0..ACCOUNTS {
        total += balance(&snapshot, &accounts, account)?;
    }
    println!(
        "{total} in all accounts, {} visits, {} conflicts",
        count(&db, &accounts)? - 1,
        db.stats().conflicts
    );
    db.close()
}
