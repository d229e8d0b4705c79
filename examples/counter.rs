//! Counters that many threads add to, without a conflict: `cargo run --example counter [DIR]`
//!
//! `add_i64` writes "add 1" to the log, not a new value: it reads nothing, so two adds to one row never get in each
//! other's way, where a read and a write of the same row would have to run again.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, with threads"
)]
use seawall::{Db, Keyspace, Result, WriteBatch};

/// A page is viewed: its row is written, and two counters go up, all or nothing.
fn view(db: &Db, pages: &Keyspace, page: &str) -> Result<()> {
    let mut batch = WriteBatch::new();
    batch.insert(pages, format!("last/{page}"), "a reader");
    batch.add_i64(pages, format!("views/{page}"), 1).add_i64(pages, "views", 1);
    db.write(batch).map(drop)
}

/// A number is 8 bytes, little endian; a row that is not there counts as 0.
fn read(pages: &Keyspace, key: &str) -> Result<i64> {
    Ok(pages.get(key)?.and_then(|value| (*value).try_into().ok()).map_or(0, i64::from_le_bytes))
}

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "counter.db".to_owned());
    let db = Db::open(&dir)?;
    let pages = db.keyspace("pages")?;
    let before = read(&pages, "views")?;
    std::thread::scope(|scope| {
        for page in ["home", "home", "about", "news"] {
            let (db, pages) = (&db, &pages);
            scope.spawn(move || {
                let all = (0..100).try_for_each(|_| view(db, pages, page));
                all.unwrap_or_else(|error| println!("{page}: {error}"));
            });
        }
    });
    for row in pages.prefix("views/") {
        let (key, _) = row?;
        let key = String::from_utf8_lossy(&key);
        println!("{key}: {}", read(&pages, &key)?);
    }
    println!("{} views, {} conflicts", read(&pages, "views")? - before, db.stats().conflicts);
    db.close()
}
