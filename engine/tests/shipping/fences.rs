//! A store that another one has taken the place of.

use crate::world::{builder, commit, follow, new_replica, open_replica, shown};
use seawall_engine::mutation::Mutation;
use seawall_engine::{Ack, Db, Error, TxOptions, WriteBatch, Xid};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::{Fault, Op};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

fn is_fenced<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Fenced { epoch: 3 }))
}

/// Whether a store refuses all that writes, and reads on.
fn is_refusing(db: &Db, n: u64) -> bool {
    let rows = db.open_keyspace("rows").unwrap().unwrap();
    let mut batch = WriteBatch::new();
    batch.insert(&rows, "a", "1");
    let mut tx = db.begin();
    tx.insert(&rows, "b", "1").unwrap();
    is_fenced(rows.insert("a", "1"))
        && is_fenced(db.write(batch.clone()))
        && is_fenced(db.write_pipelined(batch))
        && is_fenced(db.keyspace("new"))
        && is_fenced(tx.prepare(Xid::new(1, "a", "b").unwrap()))
        && is_fenced(db.checkpoint())
        && shown(db, "fenced") == n
}

fn store(disk: &Arc<SimDisk>, mutation: Option<Mutation>) -> Db {
    let db = builder(disk).ack_timeout(LONG).mutation(mutation).open().unwrap();
    for n in 1..=8 {
        commit(&db, n).unwrap();
    }
    db
}

fn fenced(mutation: Option<Mutation>) -> bool {
    let disk = SimDisk::new(1);
    let db = store(&disk, mutation);
    db.shipping().fence(3).unwrap();
    db.shipping().fence(3).unwrap();
    let is_now = is_refusing(&db, 8) && db.shipping().fenced() == Some(3) && db.stats().fenced == Some(3);
    if !is_now {
        return false;
    }
    let crashed = disk.crash_copy();
    db.close().unwrap();
    let open = |disk| builder(disk).mutation(mutation).open().unwrap();
    is_refusing(&open(&disk), 8) && is_refusing(&open(&crashed), 8)
}

#[test]
fn a_fenced_store_reads_and_writes_no_more_and_reopening_does_not_help() {
    assert!(fenced(None));
}

#[test]
fn a_store_that_ignores_its_fence_is_noticed() {
    assert!(!fenced(Some(Mutation::IgnoreFence)));
}

#[test]
fn who_waits_when_the_fence_comes_is_in_doubt_and_stays_so() {
    let disk = SimDisk::new(1);
    let db = store(&disk, None);
    let rows = db.open_keyspace("rows").unwrap().unwrap();
    let put = |key: &str| {
        let mut tx = db.begin_with(TxOptions { ack: Some(Ack::Durable), ..TxOptions::default() });
        tx.insert(&rows, key, "1").unwrap();
        tx.commit_pipelined().unwrap()
    };
    let (sender, told) = channel();
    let (ticket, lsn) = (put("a"), db.shipping().visible());
    put("b").on_done(move |result| sender.send(result).unwrap());
    let waiters = [
        thread::spawn(move || ticket.wait()),
        thread::spawn({
            let rows = rows.clone();
            move || rows.insert("c", "1")
        }),
    ];
    while db.shipping().waiting().is_none() || db.shipping().wal().durable_lsn() <= lsn {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(20));
    db.shipping().fence(3).unwrap();
    for waiter in waiters {
        let result = waiter.join().unwrap();
        assert!(matches!(result, Err(Error::CommitUnknown { .. } | Error::Fenced { .. })), "{result:?}");
    }
    assert!(matches!(told.recv_timeout(LONG).unwrap(), Err(Error::CommitUnknown { .. })));
    db.shipping().acked(Ack::Applied, seawall_engine::Lsn::MAX);
    assert!(rows.get("a").unwrap().is_none() && shown(&db, "fenced") == 8);
    assert!(is_fenced(db.await_commit(lsn, LONG)));
    drop(rows);
    db.close().unwrap();
}

/// The log has found no room, and would go on where there is some: not once another store has taken this one's place.
#[test]
fn a_store_that_is_fenced_while_its_disk_is_full_does_not_go_on() {
    let disk = SimDisk::new(1);
    let db = store(&disk, None);
    let rows = db.open_keyspace("rows").unwrap().unwrap();
    for op in [Op::Write, Op::WriteDurable] {
        disk.fail(Fault::full(op).path_contains(".log").forever());
    }
    assert!(rows.insert("lost", "1").is_err());
    db.shipping().fence(3).unwrap();
    disk.clear_faults();
    assert!(matches!(db.resume(), Err(Error::Poisoned(_))));
    assert!(rows.insert("more", "1").is_err() && rows.get("lost").unwrap().is_none());
    drop((rows, db));
    let db = builder(&disk).open().unwrap();
    assert!(is_fenced(db.keyspace("new").map(drop)));
}

/// Promises come in from many sides: none is taken back by one that was asked for earlier and came later.
#[test]
fn of_promises_at_a_time_the_highest_stays() {
    let disk = SimDisk::new(1);
    let primary = builder(&disk).open().unwrap();
    let copy = new_replica(&primary, &disk, 2);
    for round in 0..200 {
        let replica = open_replica(&copy).unwrap();
        let shipping = replica.shipping();
        let history = shipping.wal().timeline().history;
        let highest = 4 * round + 4;
        thread::scope(|scope| {
            for epoch in 4 * round + 1..=highest {
                let (shipping, history) = (&shipping, &history);
                scope.spawn(move || match epoch % 2 {
                    0 => shipping.fence(epoch).unwrap(),
                    _ => drop(shipping.wal().promise(epoch, history)),
                });
            }
        });
        assert_eq!(shipping.wal().timeline().promised, highest);
    }
}

#[test]
fn a_fence_that_cannot_be_kept_holds_while_the_store_is_open() {
    let disk = SimDisk::new(1);
    let db = store(&disk, None);
    for op in [Op::Write, Op::WriteDurable, Op::Sync] {
        disk.fail(Fault::eio(op).path_contains("anchor").forever());
    }
    assert!(db.shipping().fence(3).is_err());
    let refused = db.keyspace("new").map(drop);
    assert!(is_fenced(refused), "it refuses for that reason");
    disk.clear_faults();
    assert!(matches!(db.shipping().fence(0), Err(Error::BadInput(_))));
}

/// A replica becomes a primary while it hears of a later one. Once the promise is kept, no write that begins then is taken, whichever of
/// the two was first.
#[test]
fn a_fence_that_comes_during_a_promotion_is_heard() {
    let disk = SimDisk::new(1);
    let primary = store(&disk, None);
    let (mut promoted, mut refused) = (0, 0);
    for seed in 0..200 {
        let copy = new_replica(&primary, &disk, seed);
        let replica = open_replica(&copy).unwrap();
        follow(&primary, &replica);
        let is_fenced = AtomicBool::new(false);
        let barrier = Barrier::new(3);
        let (promotion, wrote) = thread::scope(|scope| {
            let promotion = scope.spawn(|| {
                barrier.wait();
                spin(seed % 7);
                replica.shipping().promote(1)
            });
            let fence = scope.spawn(|| {
                barrier.wait();
                spin(seed % 11);
                replica.shipping().fence(3).unwrap();
                is_fenced.store(true, Ordering::SeqCst);
            });
            barrier.wait();
            let mut wrote = false;
            let mut is_over = false;
            while !is_over {
                is_over = fence.is_finished() && promotion.is_finished();
                let after = is_fenced.load(Ordering::SeqCst);
                let rows = replica.open_keyspace("rows").unwrap().unwrap();
                wrote |= rows.insert("late", "1").is_ok() && after;
            }
            fence.join().unwrap();
            (promotion.join().unwrap(), wrote)
        });
        assert!(!wrote, "seed {seed}: it has promised epoch 3, and takes a write");
        assert_eq!(replica.shipping().wal().timeline().promised, 3);
        match promotion {
            Ok(_) => {
                promoted += 1;
                assert_eq!(replica.shipping().fenced(), Some(3), "seed {seed}");
            }
            Err(Error::Fenced { epoch: 3 }) => {
                refused += 1;
                assert!(replica.shipping().is_replica(), "seed {seed}");
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(promoted > 0 && refused > 0, "{promoted} promoted, {refused} refused");
}

fn spin(times: u64) {
    for _ in 0..times * 2000 {
        std::hint::spin_loop();
    }
}
