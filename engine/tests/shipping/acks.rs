//! Commits that wait for replicas. The gate is moved by hand.

use seawall_engine::{
    Ack, Db, DbBuilder, Durability, Error, Event, EventListener, Keyspace, Lsn, Ticket, TxOptions,
    WriteBatch, Xid,
};
use seawall_wal::SimDisk;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(20);

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    Db::builder("/store").disk(Arc::clone(disk) as _).segment_bytes(256 << 10).ack_timeout(SHORT)
}

/// A store with a keyspace, whose commits do not wait yet.
fn store(disk: &Arc<SimDisk>) -> (Db, Keyspace) {
    let db = builder(disk).open().unwrap();
    let rows = db.keyspace("rows").unwrap();
    (db, rows)
}

/// One whose commits wait for long.
fn patient() -> (Db, Keyspace) {
    let db = builder(&SimDisk::new(1)).ack_timeout(LONG).open().unwrap();
    let rows = db.keyspace("rows").unwrap();
    (db, rows)
}

fn put_at(db: &Db, rows: &Keyspace, key: &str, ack: Ack) -> Ticket {
    let mut tx = db.begin_with(TxOptions { ack: Some(ack), ..TxOptions::default() });
    tx.insert(rows, key, key).unwrap();
    tx.commit_pipelined().unwrap()
}

fn has(rows: &Keyspace, key: &str) -> bool {
    rows.get(key).unwrap().is_some()
}

/// Replicas have all that is in the log.
fn ack_all(db: &Db, level: Ack) {
    db.shipping().wal().sync().unwrap();
    db.shipping().acked(level, db.shipping().wal().next_lsn());
}

fn is_in_doubt<T>(result: Result<T, Error>) -> Lsn {
    match result {
        Err(Error::CommitUnknown { lsn }) => lsn,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it did not wait"),
    }
}

#[test]
fn a_commit_is_visible_once_its_level_is_reached() {
    for level in [Ack::Received, Ack::Durable, Ack::Applied] {
        let (db, rows) = patient();
        let ticket = put_at(&db, &rows, "a", level);
        db.sync().unwrap();
        assert!(!has(&rows, "a") && ticket.wait_timeout(SHORT).unwrap().is_none());
        assert_eq!(db.shipping().waiting(), Some(ticket.lsn()));
        db.shipping().acked(level, ticket.lsn());
        assert!(!has(&rows, "a"), "its end is what counts");
        ack_all(&db, level);
        assert!(has(&rows, "a"));
        ticket.wait().unwrap();
    }
}

#[test]
fn a_weaker_level_is_not_enough_and_a_stronger_one_is() {
    let (db, rows) = patient();
    let ticket = put_at(&db, &rows, "a", Ack::Durable);
    ack_all(&db, Ack::Received);
    assert!(ticket.wait_timeout(SHORT).unwrap().is_none() && !has(&rows, "a"));
    ack_all(&db, Ack::Applied);
    assert!(ticket.wait().is_ok() && has(&rows, "a"));
}

#[test]
fn whoever_comes_behind_one_that_waits_waits_too() {
    let (db, rows) = store(&SimDisk::new(1));
    let first = put_at(&db, &rows, "a", Ack::Durable);
    is_in_doubt(rows.insert("b", "b"));
    assert!(!has(&rows, "a") && !has(&rows, "b"));
    // It counts for validation all the same.
    let mut tx = db.begin();
    tx.insert(&rows, "b", "c").unwrap();
    ack_all(&db, Ack::Durable);
    assert!(tx.commit().unwrap_err().is_conflict());
    assert!(has(&rows, "a") && has(&rows, "b"));
    first.wait().unwrap();
}

#[test]
fn who_waits_for_too_long_is_in_doubt_and_may_wait_on() {
    let (db, rows) = store(&SimDisk::new(1));
    let lsn = is_in_doubt(put_at(&db, &rows, "a", Ack::Durable).wait());
    assert!(!db.await_commit(lsn, Duration::ZERO).unwrap() && !has(&rows, "a"));
    let waiter = thread::spawn({
        let db = db.clone();
        move || db.await_commit(lsn, LONG).unwrap()
    });
    thread::sleep(SHORT);
    ack_all(&db, Ack::Durable);
    assert!(waiter.join().unwrap() && has(&rows, "a") && db.await_commit(lsn, Duration::ZERO).unwrap());
    assert!(db.stats().poisoned.is_none());
    rows.insert("b", "b").unwrap();
}

#[test]
fn futures_and_call_backs_are_told_as_well() {
    let (db, rows) = store(&SimDisk::new(1));
    let (sender, told) = channel();
    let tell = |sender: &Sender<_>| {
        let sender = sender.clone();
        move |result: Result<Lsn, Error>| sender.send(result).unwrap()
    };
    put_at(&db, &rows, "a", Ack::Durable).on_done(tell(&sender));
    let first = is_in_doubt(told.recv_timeout(LONG).unwrap());
    // One that is confirmed in time is told of that, whatever stands before it.
    let slow = builder(&SimDisk::new(2)).ack(Ack::Durable).ack_timeout(LONG).open().unwrap();
    slow.shipping().degrade(true);
    let rows = slow.keyspace("rows").unwrap();
    slow.shipping().degrade(false);
    let mut batch = WriteBatch::new();
    batch.insert(&rows, "b", "b");
    slow.write_pipelined(batch).unwrap().on_done(tell(&sender));
    assert!(told.recv_timeout(SHORT).is_err());
    ack_all(&slow, Ack::Durable);
    assert!(told.recv_timeout(LONG).unwrap().is_ok() && has(&rows, "b"));
    assert!(!db.await_commit(first, Duration::ZERO).unwrap());
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl EventListener for Told {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

#[test]
fn nothing_but_the_switch_lets_a_commit_go_on_with_less() {
    let told = Arc::new(Told::default());
    let db = builder(&SimDisk::new(1)).events(Arc::clone(&told) as _).ack(Ack::Applied).open().unwrap();
    let lsn = is_in_doubt(db.keyspace("rows").map(drop));
    assert!(!db.shipping().is_degraded() && db.open_keyspace("rows").unwrap().is_none());
    db.shipping().degrade(true);
    db.shipping().degrade(true);
    assert!(db.await_commit(lsn, Duration::ZERO).unwrap());
    let rows = db.keyspace("rows").unwrap();
    rows.insert("a", "a").unwrap();
    let stats = db.stats();
    assert!(stats.is_degraded && stats.to_prometheus().contains("seawall_acks_degraded 1"));
    db.shipping().degrade(false);
    is_in_doubt(rows.insert("b", "b"));
    drop((rows, db));
    let told = told.0.lock().unwrap();
    let switched: Vec<_> = told.iter().filter(|event| event.starts_with("Degraded")).collect();
    assert_eq!(switched, ["Degraded { on: true }", "Degraded { on: false }"]);
}

#[test]
fn a_vote_waits_as_a_commit_does_and_so_does_its_outcome() {
    let (db, rows) = store(&SimDisk::new(1));
    let xid = Xid::new(1, "a", "b").unwrap();
    let prepare = |ack| {
        let mut tx = db.begin_with(TxOptions { ack: Some(ack), ..TxOptions::default() });
        tx.insert(&rows, "a", "1").unwrap();
        tx.prepare(xid.clone())
    };
    is_in_doubt(prepare(Ack::Durable).map(drop));
    assert!(db.prepared().next().is_none(), "nobody may count on it yet");
    ack_all(&db, Ack::Durable);
    let prepared = db.prepared_by(&xid).unwrap().unwrap();
    prepared.rollback().unwrap();
    prepare(Ack::Local).unwrap();
    db.prepared_by(&xid).unwrap().unwrap().commit().unwrap();
    assert!(has(&rows, "a"));
}

#[test]
fn a_checkpoint_does_not_wait_for_ever_and_folds_only_what_is_visible() {
    let disk = SimDisk::new(1);
    let (db, rows) = store(&disk);
    rows.insert("a", "a").unwrap();
    let lsn = is_in_doubt(put_at(&db, &rows, "b", Ack::Durable).wait());
    for _ in 0..3 {
        assert!(matches!(db.checkpoint(), Err(Error::Unacknowledged { lsn: at }) if at <= lsn));
    }
    assert!(db.stats().poisoned.is_none() && db.stats().checkpoint_lsn <= lsn);
    ack_all(&db, Ack::Durable);
    let made = db.checkpoint().unwrap();
    assert!(made.lsn > lsn && made.bytes > 0 && has(&rows, "b"));
}

#[test]
fn closing_leaves_in_the_log_what_nobody_has_confirmed() {
    let disk = SimDisk::new(1);
    let (db, rows) = store(&disk);
    rows.insert("a", "a").unwrap();
    let (sender, told) = channel();
    let ticket = put_at(&db, &rows, "b", Ack::Durable);
    ticket.on_done(move |result| sender.send(result).unwrap());
    drop(rows);
    let start = Instant::now();
    db.close().unwrap();
    assert!(start.elapsed() < LONG, "closing hangs");
    is_in_doubt(told.recv_timeout(LONG).unwrap());
    // Without a level the local log is what counts.
    let (_, rows) = store(&disk);
    assert!(has(&rows, "a") && has(&rows, "b"));
}

#[test]
fn a_writer_that_has_no_room_gets_an_error_in_the_end() {
    let db = builder(&SimDisk::new(1)).memory_budget(1 << 20).deltas_bytes(Some(64 << 10)).open().unwrap();
    let rows = db.keyspace("rows").unwrap();
    let mut tx = db.begin_with(TxOptions { ack: Some(Ack::Durable), ..TxOptions::default() });
    tx.insert(&rows, "first", "1").unwrap();
    let first = tx.commit_pipelined().unwrap();
    let refused = (0..1_000_u32).find_map(|n| {
        let mut batch = WriteBatch::new();
        batch.insert(&rows, n.to_be_bytes(), vec![1; 1_000]);
        db.write_pipelined(batch).err()
    });
    assert!(matches!(refused, Some(Error::Unacknowledged { .. })), "{refused:?}");
    ack_all(&db, Ack::Durable);
    first.wait().unwrap();
    rows.insert("last", "1").unwrap();
}

/// A store that stopped without closing, with a tail behind its checkpoint.
fn stopped() -> Arc<SimDisk> {
    let disk = SimDisk::new(1);
    let (db, rows) = store(&disk);
    rows.insert("old", "1").unwrap();
    let dropped = db.keyspace("dropped").unwrap();
    dropped.insert("a", "1").unwrap();
    db.checkpoint().unwrap();
    rows.insert("old", "2").unwrap();
    rows.insert("sum", 7_i64.to_le_bytes()).unwrap();
    db.keyspace("born").unwrap().insert("a", "1").unwrap();
    db.drop_keyspace(dropped).unwrap();
    let mut tx = db.begin();
    tx.insert(&rows, "held", "1").unwrap();
    tx.prepare(Xid::new(1, "a", "b").unwrap()).unwrap();
    disk.crash_copy()
}

#[test]
fn a_recovered_tail_is_shown_when_replicas_are_known_to_have_it() {
    let disk = stopped();
    let db = builder(&disk).ack(Ack::Durable).open().unwrap();
    let rows = db.open_keyspace("rows").unwrap().unwrap();
    let dropped = db.open_keyspace("dropped").unwrap().unwrap();
    assert_eq!(rows.get("old").unwrap().as_deref(), Some(&b"1"[..]));
    assert!(has(&dropped, "a") && db.open_keyspace("born").unwrap().is_none());
    assert!(db.shipping().waiting().is_some());
    // What the tail says holds for who writes, shown or not.
    assert!(matches!(dropped.insert("b", "1"), Err(Error::KeyspaceMissing(_))));
    assert!(matches!(rows.insert("held", "2"), Err(Error::PreparedConflict { .. })));
    let mut add = WriteBatch::new();
    add.add_i64(&rows, "sum", 1);
    assert!(db.write(add).unwrap_err().is_conflict(), "what it adds to is not known yet");
    assert!(db.keyspace("born").unwrap_err().is_conflict(), "whether it is there is not known yet");
    let queued = is_in_doubt(rows.insert("queued", "1"));
    assert!(!has(&rows, "queued"));
    assert!(matches!(db.checkpoint(), Err(Error::Unacknowledged { .. })));
    ack_all(&db, Ack::Durable);
    assert!(db.await_commit(queued, Duration::ZERO).unwrap() && has(&rows, "queued"));
    assert_eq!(rows.get("old").unwrap().as_deref(), Some(&b"2"[..]));
    assert!(db.open_keyspace("dropped").unwrap().is_none());
    assert!(has(&db.open_keyspace("born").unwrap().unwrap(), "a"));
    let mut add = WriteBatch::new();
    add.add_i64(&rows, "sum", 1);
    db.shipping().degrade(true);
    db.write(add).unwrap();
    assert_eq!(rows.get("sum").unwrap().as_deref(), Some(&8_i64.to_le_bytes()[..]));
    assert!(db.checkpoint().unwrap().bytes > 0);
}

#[test]
fn a_recovered_tail_that_is_never_confirmed_is_still_there_after_closing() {
    let disk = stopped();
    for _ in 0..3 {
        let db = builder(&disk).ack(Ack::Durable).open().unwrap();
        let rows = db.open_keyspace("rows").unwrap().unwrap();
        assert_eq!(rows.get("old").unwrap().as_deref(), Some(&b"1"[..]));
        drop(rows);
        db.close().unwrap();
    }
    let db = builder(&disk).open().unwrap();
    let rows = db.open_keyspace("rows").unwrap().unwrap();
    assert_eq!(rows.get("old").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(db.prepared().count(), 1);
}

#[test]
fn nothing_waits_where_nothing_was_asked_for() {
    let disk = SimDisk::new(1);
    let db = builder(&disk).ack(Ack::Durable).open().unwrap();
    let mut tx = db.begin_with(TxOptions { ack: Some(Ack::Local), ..TxOptions::default() });
    tx.create_keyspace("rows", seawall_engine::KeyspaceOptions::default()).unwrap();
    tx.set_durability(Durability::Written);
    tx.commit().unwrap();
    assert!(db.open_keyspace("rows").unwrap().is_some());
    db.close().unwrap();
}
