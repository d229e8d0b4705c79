//! Both stores with all their threads: writers that wait for the replica, a shipper, readers on both sides, checkpoints.

use crate::world::{SEGMENT, new_replica};
use seawall_engine::{Ack, Db, DbBuilder, Error, Lsn, Readable, TxOptions};
use seawall_wal::{Shipped, SimDisk};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const WRITERS: u64 = 4;
const COMMITS: u64 = 150;
const LONG: Duration = Duration::from_secs(60);

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    let builder = Db::builder("/store").disk(Arc::clone(disk) as _).segment_bytes(SEGMENT).probe(false);
    // A checkpoint every few dozen commits.
    builder.deltas_bytes(Some(256 << 10)).ack_timeout(LONG)
}

/// Ships until there is no more, acknowledging as it goes.
fn ship(primary: &Db, replica: &Db, is_over: &AtomicBool) {
    let (from, to) = (primary.shipping(), replica.shipping());
    let mut shipper = from.wal().ship(to.wal().tail().place).unwrap();
    loop {
        match shipper.next_timeout(16 << 10, Duration::from_millis(2)).unwrap() {
            Shipped::Piece(piece) => {
                from.acked(Ack::Received, to.wal().accept(&piece).unwrap());
                from.acked(Ack::Durable, to.wal().sync_replica().unwrap());
            }
            _ if is_over.load(Ordering::SeqCst) && to.wal().durable_lsn() >= from.wal().durable_lsn() => {
                break;
            }
            _ => {}
        }
        from.acked(Ack::Applied, to.apply().unwrap());
        to.set_visible_limit(from.visible());
    }
    from.acked(Ack::Applied, to.apply().unwrap());
    to.set_visible_limit(from.visible());
}

/// Each writer's rows are there without a gap: it waits for each before it makes the next.
fn check_reader(db: &Db, before: &mut [u64; WRITERS as usize]) {
    let Some(rows) = db.open_keyspace("rows").unwrap() else { return };
    let snapshot = db.snapshot();
    for (writer, before) in before.iter_mut().enumerate() {
        let count = match snapshot.prefix(&rows, [writer as u8]).try_fold(0, |n, row| row.map(|_| n + 1)) {
            Ok(count) => count,
            Err(Error::SnapshotTooOld { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let last =
            snapshot.get(&rows, [&[writer as u8][..], &(count as u64).to_be_bytes()].concat()).unwrap();
        assert!(count >= *before && last.is_none(), "writer {writer}: {count}, {before} before");
        *before = count;
    }
}

#[test]
fn writers_that_wait_for_a_replica_find_their_rows_there() {
    let disk = SimDisk::new(1);
    let primary = builder(&disk).open().unwrap();
    let rows = primary.keyspace("rows").unwrap();
    primary.checkpoint().unwrap();
    let replica_disk = new_replica(&primary, &disk, 2);
    let replica = builder(&replica_disk).replica(true).open().unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| ship(&primary, &replica, &is_over));
        for db in [&primary, &replica] {
            scope.spawn(|| {
                let mut before = [0; WRITERS as usize];
                while !is_over.load(Ordering::SeqCst) {
                    check_reader(db, &mut before);
                }
            });
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (primary, replica, rows) = (&primary, &replica, &rows);
                scope.spawn(move || {
                    for n in 0..COMMITS {
                        let ack = [Ack::Applied, Ack::Durable, Ack::Received, Ack::Local][(n % 4) as usize];
                        let options = TxOptions { ack: Some(ack), ..TxOptions::default() };
                        let key = [&[writer as u8][..], &n.to_be_bytes()].concat();
                        let put =
                            |tx: &mut seawall_engine::Transaction| tx.insert(rows, &key, vec![1; 2_000]);
                        primary.transact_with(options, put).unwrap();
                        let seen = primary.shipping().visible();
                        if ack == Ack::Applied {
                            assert!(
                                replica.shipping().wait_visible(seen, LONG).unwrap(),
                                "{seen} is not shown"
                            );
                            let copy = replica.open_keyspace("rows").unwrap().unwrap();
                            assert!(copy.get(&key).unwrap().is_some());
                        }
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(replica.shipping().visible(), primary.shipping().visible());
    assert!(replica.stats().checkpoints > 0 && replica.stats().checkpoint_lsn > Lsn(4 * SEGMENT));
    replica.shipping().promote(1).unwrap();
    let copy = replica.open_keyspace("rows").unwrap().unwrap();
    assert_eq!(replica.snapshot().range(&copy, ..).count() as u64, WRITERS * COMMITS);
    copy.insert("new", "1").unwrap();
    assert_eq!(replica.verify(|_| {}).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_replica_promoted_while_others_read_and_write_to_it_takes_what_comes_after() {
    let disk = SimDisk::new(1);
    let primary = builder(&disk).open().unwrap();
    let rows = primary.keyspace("rows").unwrap();
    primary.checkpoint().unwrap();
    let replica = builder(&new_replica(&primary, &disk, 2)).replica(true).open().unwrap();
    for n in 0..50_u64 {
        rows.insert([&[0][..], &n.to_be_bytes()].concat(), vec![1; 500]).unwrap();
    }
    let is_over = AtomicBool::new(true);
    ship(&primary, &replica, &is_over);
    thread::scope(|scope| {
        let writers: Vec<_> = (1..WRITERS)
            .map(|writer| {
                let replica = &replica;
                scope.spawn(move || {
                    let copy = replica.open_keyspace("rows").unwrap().unwrap();
                    let mut refused = 0;
                    for n in 0..50_u64 {
                        let key = [&[writer as u8][..], &n.to_be_bytes()].concat();
                        while let Err(error) = copy.insert(&key, "1") {
                            assert!(matches!(error, Error::ReadOnly), "{error}");
                            refused += 1;
                            thread::yield_now();
                        }
                    }
                    refused
                })
            })
            .collect();
        scope.spawn(|| while replica.stats().is_replica || replica.checkpoint().is_err() {});
        thread::sleep(Duration::from_millis(20));
        replica.shipping().promote(1).unwrap();
        let refused: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        assert!(refused.iter().all(|times| *times > 0), "{refused:?}");
    });
    let mut counts = [0; WRITERS as usize];
    check_reader(&replica, &mut counts);
    assert_eq!(counts, [50; WRITERS as usize]);
}
