//! Crash-testing a program of your own, on a simulated disk: `cargo run --example crash_test [SEEDS]`
//!
//! The program under test keeps a promise across two rows: what leaves `stock` arrives in `sold`. The disk is memory;
//! a fault cuts its power at some call, and `crash` gives the disk as the next start would find it: unsynced writes lost,
//! torn or reordered, as the seed decides. The same seed is the same crash, so a failure can be replayed.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]
use seawall::wal::{Fault, SimDisk};
use seawall::{Db, Error, Keyspace, Result};
use std::sync::Arc;

const STOCK: i64 = 100;

fn open(disk: &Arc<SimDisk>) -> Result<(Db, Keyspace)> {
    // Without threads in the background, a run is the same each time.
    let db = Db::builder("/shop").disk(disk.clone()).segment_bytes(64 << 10).background(false).open()?;
    let shop = db.keyspace("shop")?;
    Ok((db, shop))
}

/// The program: sells until the power fails. Counts what was acknowledged.
fn sell(disk: &Arc<SimDisk>, acknowledged: &mut i64) -> Result<()> {
    let (db, shop) = open(disk)?;
    db.transact(|tx| tx.add_i64(&shop, "stock", STOCK))?;
    for _ in 0..STOCK {
        db.transact(|tx| {
            tx.add_i64(&shop, "stock", -1)?;
            tx.add_i64(&shop, "sold", 1)
        })?;
        *acknowledged += 1;
    }
    Ok(())
}

/// What must hold after any crash: nothing half sold, nothing acknowledged and lost.
fn check(disk: &Arc<SimDisk>, acknowledged: i64) -> Result<()> {
    let (_db, shop) = open(disk)?;
    let number = |key| -> Result<i64> {
        Ok(shop.get(key)?.and_then(|value| (*value).try_into().ok()).map_or(0, i64::from_le_bytes))
    };
    let (stock, sold) = (number("stock")?, number("sold")?);
    if (stock + sold == STOCK || stock + sold == 0 && acknowledged == 0) && sold >= acknowledged {
        return Ok(());
    }
    Err(Error::BadInput(format!("{stock} in stock, {sold} sold, {acknowledged} acknowledged")))
}

fn main() -> Result<()> {
    let seeds = std::env::args().nth(1).and_then(|seeds| seeds.parse().ok()).unwrap_or(200);
    let mut sold = 0;
    for seed in 0..seeds {
        let disk = SimDisk::new(seed);
        disk.fail(Fault::power_cut().at_call(seed * 3 % 500));
        let mut acknowledged = 0;
        // How it ended does not matter: the power failed, or it was done before.
        let _ = sell(&disk, &mut acknowledged);
        check(&disk.crash(), acknowledged).inspect_err(|_| println!("seed {seed} fails"))?;
        sold += acknowledged;
    }
    println!("{seeds} power cuts, {sold} sales acknowledged before them, none lost");
    Ok(())
}
