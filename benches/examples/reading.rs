//! Warm reads of one store, cached and mapped, in turns: `reading DIR [ROWS] [ROUNDS]`. The store is made in DIR if there is
//! none: rows of 16 and 100 bytes in random order, one checkpoint.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, missing_docs)]

use seawall_engine::{Db, Durability, Keyspace, ReadMode, Readable, Slice, WriteBatch};
use std::hint::black_box;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(1500);

fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(n).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

fn fill(dir: &str, rows: u64) {
    let db = Db::builder(dir).durability(Durability::Written).memory_budget(1 << 30).open().unwrap();
    let ks = db.keyspace("rows").unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..rows {
        batch.insert(&ks, key(n), [n as u8; 100]);
        if batch.len() == 10_000 {
            db.write(std::mem::take(&mut batch)).unwrap();
        }
    }
    db.write(batch).unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
}

/// Operations a second of so many threads that do it again and again.
fn rate<W: FnMut(u64) -> u64>(threads: u64, work: impl Fn() -> W + Sync) -> f64 {
    let start = Instant::now();
    let done: u64 = std::thread::scope(|scope| {
        let run = |thread: u64| {
            let work = &work;
            move || {
                let (mut work, mut done, mut n) = (work(), 0, thread << 40);
                while start.elapsed() < WINDOW {
                    for _ in 0..64 {
                        done += work(mix(n));
                        n += 1;
                    }
                }
                done
            }
        };
        let all: Vec<_> = (0..threads).map(|thread| scope.spawn(run(thread))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    done as f64 / start.elapsed().as_secs_f64()
}

fn all_rows(db: &Db, ks: &Keyspace) -> u64 {
    let mut cursor = db.snapshot().cursor(ks);
    let mut rows = 0;
    while let Some((_, value)) = cursor.next().unwrap() {
        rows += u64::from(!black_box(value).is_empty());
    }
    rows
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let dir = args.get(1).unwrap();
    let number = |at: usize, or: u64| args.get(at).map_or(or, |text| text.parse().unwrap());
    let (rows, rounds) = (number(2, 5_000_000), number(3, 3));
    if !std::path::Path::new(dir).join("data").exists() {
        fill(dir, rows);
    }
    let open = |mode| {
        let db = Db::builder(dir).read_only(true).memory_budget(2 << 30).read_mode(mode).open().unwrap();
        let ks = db.open_keyspace("rows").unwrap().unwrap();
        assert_eq!((all_rows(&db, &ks), db.stats().read_mode), (rows, mode));
        (mode, db, ks)
    };
    let stores = [open(ReadMode::Cached), open(ReadMode::Mapped)];
    for round in 0..rounds {
        for (mode, db, ks) in &stores {
            let found = |value: Option<Slice>| u64::from(!black_box(value.unwrap()).is_empty());
            let get = || |n: u64| found(ks.get(key(n % rows)).unwrap());
            let by_snapshot = || {
                let snapshot = db.snapshot();
                move |n: u64| found(snapshot.get(ks, key(n % rows)).unwrap())
            };
            let range = || {
                let snapshot = db.snapshot();
                move |n: u64| {
                    let rows = snapshot.range(ks, key(n % rows)..).take(100);
                    u64::from(rows.filter(Result::is_ok).count() > 0)
                }
            };
            let by_cursor = || {
                let snapshot = db.snapshot();
                move |n: u64| {
                    let mut cursor = snapshot.cursor(ks);
                    cursor.seek(key(n % rows)).unwrap();
                    for _ in 0..100 {
                        black_box(cursor.next().unwrap());
                    }
                    1
                }
            };
            let start = Instant::now();
            let scan = all_rows(db, ks) as f64 / start.elapsed().as_secs_f64();
            println!(
                "{round} {mode:?}: k gets/s {:.0} {:.0} (keyspace, 1 and 2 threads) {:.0} {:.0} (snapshot); \
                 k ranges of 100/s {:.1} {:.1} (range, cursor); M rows/s {:.2}",
                rate(1, get) / 1e3,
                rate(2, get) / 1e3,
                rate(1, by_snapshot) / 1e3,
                rate(2, by_snapshot) / 1e3,
                rate(1, range) / 1e3,
                rate(1, by_cursor) / 1e3,
                scan / 1e6,
            );
        }
    }
    for (mode, db, _) in &stores {
        println!("{mode:?}: {:?}", db.stats().memory);
    }
}
