//! A store as a participant of transactions that several stores commit together: votes, outcomes, what others see and
//! may do meanwhile, and what crashes and checkpoints leave of it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use seawall_engine::mutation::{Group, Mutation};
use seawall_engine::{
    Db, DbBuilder, Error, Event, EventListener, Heuristic, Isolation, Keyspace, OnPrepared, Prepared,
    Readable, Result, Transaction, TxOptions, Vote, WriteBatch, Xid,
};
use seawall_wal::disk::sim::{CrashStyle, Fault, Op};
use seawall_wal::runtime::Rng;
use seawall_wal::{SimDisk, SimRuntime};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[path = "prepared/limits.rs"]
mod limits;
#[path = "prepared/model.rs"]
mod model;

thread_local! {
    /// The mistake that stores opened by this thread make.
    static MUTATION: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Each deliberate mistake turns the tests red that are there for it.
#[test]
fn every_deliberate_mistake_is_noticed() {
    type Guard = (Mutation, &'static [fn()]);
    let guards: [Guard; 5] = [
        (Mutation::PrepareUnsynced, &[bug_30_a_vote_that_was_given_is_kept]),
        (Mutation::RestoreUnlocked, &[locks_are_there_again_after_a_crash]),
        (Mutation::RestoreUnmarked, &[what_was_read_is_protected_after_a_crash]),
        (Mutation::FoldUnprepared, &[bug_35_a_checkpoint_carries_what_is_prepared_and_frees_the_log]),
        (Mutation::KeepPrepared, &[bug_33_an_outcome_tried_again_is_applied_once]),
    ];
    assert!(guards.iter().map(|(mutation, _)| *mutation).eq(Mutation::of(Group::Prepared)));
    for (mutation, tests) in guards {
        for (i, test) in tests.iter().enumerate() {
            MUTATION.set(Some(mutation));
            let outcome = std::panic::catch_unwind(test);
            MUTATION.set(None);
            assert!(outcome.is_err(), "{} goes unnoticed by test {i}", mutation.name());
        }
    }
}

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    Db::builder("/dir/store")
        .disk(disk.clone())
        .segment_bytes(64 << 10)
        .memory_budget(1 << 20)
        .background(false)
        .mutation(MUTATION.get())
}

fn open(disk: &Arc<SimDisk>) -> Db {
    builder(disk).open().unwrap()
}

/// What a crash would leave if it kept nothing that it need not keep.
fn barely(disk: &Arc<SimDisk>) -> Arc<SimDisk> {
    disk.set_crash_style(Some(CrashStyle::KeepNone));
    disk.crash_copy()
}

fn xid(name: &str) -> Xid {
    Xid::new(1, name, "part").unwrap()
}

fn store() -> (Arc<SimDisk>, Db, Keyspace) {
    let disk = SimDisk::new(7);
    let db = open(&disk);
    let ks = db.keyspace("rows").unwrap();
    (disk, db, ks)
}

fn vote(vote: Result<Vote>) -> Prepared {
    match vote.unwrap() {
        Vote::Prepared(prepared) => prepared,
        Vote::ReadOnly(lsn) => panic!("read-only at {lsn}"),
    }
}

fn prepare(db: &Db, name: &str, f: impl FnOnce(&mut Transaction) -> Result<()>) -> Prepared {
    let mut tx = db.begin();
    f(&mut tx).unwrap();
    vote(tx.prepare(xid(name)))
}

fn is_held<T: std::fmt::Debug>(outcome: Result<T>, name: &str) -> bool {
    match outcome {
        Err(error @ Error::PreparedConflict { .. }) => {
            assert!(error.is_retryable() && !error.is_conflict() && !error.is_outcome_unknown());
            assert!(matches!(error, Error::PreparedConflict { xid: holder } if holder == xid(name)));
            true
        }
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    }
}

fn get(ks: &Keyspace, key: &str) -> Option<Vec<u8>> {
    ks.get(key).unwrap().map(|value| value.to_vec())
}

fn number(ks: &Keyspace, key: &str) -> i64 {
    get(ks, key).map_or(0, |value| i64::from_le_bytes(value.try_into().unwrap()))
}

#[test]
fn nothing_is_visible_before_the_outcome_and_all_of_it_after() {
    let (_disk, db, ks) = store();
    ks.insert("a", "old").unwrap();
    let before = db.stats();
    let prepared = prepare(&db, "t", |tx| {
        tx.insert(&ks, "a", "new")?;
        tx.insert(&ks, "b", "new")?;
        tx.add_i64(&ks, "n", 5)
    });
    assert_eq!((get(&ks, "a"), get(&ks, "b"), get(&ks, "n")), (Some(b"old".to_vec()), None, None));
    assert_eq!(db.keyspaces(), ["rows"]);
    let found: Vec<_> = db.prepared().collect();
    assert_eq!((found.len(), found[0].xid()), (1, &xid("t")));
    assert!(found[0].pinned_bytes() > 20 && found[0].locked_keys() >= 3);
    assert!(found[0].lsn() >= before.visible_lsn);
    let lsn = prepared.commit().unwrap();
    assert_eq!(
        (get(&ks, "a"), get(&ks, "b"), number(&ks, "n")),
        (Some(b"new".to_vec()), Some(b"new".to_vec()), 5)
    );
    assert_eq!(prepared.commit().unwrap(), lsn, "once more is the same");
    assert_eq!(found[0].commit().unwrap(), lsn);
    assert_eq!(number(&ks, "n"), 5);
    assert!(matches!(prepared.rollback(), Err(Error::XidFinished { is_committed: true, .. })));
    assert!(db.prepared().next().is_none() && db.prepared_by(&xid("t")).unwrap().is_none());
    assert_eq!(db.stats().prepared_committed, 1);

    let prepared = prepare(&db, "u", |tx| tx.remove(&ks, "a"));
    let lsn = prepared.rollback().unwrap();
    assert_eq!(prepared.rollback().unwrap(), lsn);
    assert!(matches!(prepared.commit(), Err(Error::XidFinished { is_committed: false, .. })));
    assert_eq!(get(&ks, "a"), Some(b"new".to_vec()));
    ks.insert("a", "free again").unwrap();
}

/// Found by torture: a vote on rows of a keyspace that another prepared transaction drops. If that one commits first, the
/// promised rows have nowhere to be, and nobody respects them in the keyspace that takes the name.
#[test]
fn no_vote_is_given_on_what_a_prepared_one_drops() {
    let (disk, db, ks) = store();
    let other = db.keyspace("other").unwrap();
    let drops = prepare(&db, "drops", |tx| tx.drop_keyspace(&ks));
    for reopened in [false, true] {
        let db = if reopened { open(&barely(&disk)) } else { db.clone() };
        let (ks, other) = (db.keyspace("rows").unwrap(), db.keyspace("other").unwrap());
        let writes = || {
            let mut tx = db.begin();
            tx.insert(&ks, "a", "promised").unwrap();
            tx
        };
        assert!(is_held(writes().prepare(xid("writes")), "drops"), "reopened: {reopened}");
        let mut tx = db.begin();
        tx.get(&ks, "a").unwrap();
        tx.insert(&other, "a", "1").unwrap();
        assert!(is_held(tx.prepare(xid("reads")), "drops"), "reopened: {reopened}");
        // Whoever commits at once comes before the drop.
        writes().commit().unwrap();
    }
    drops.rollback().unwrap();
    let writes = prepare(&db, "writes", |tx| tx.insert(&ks, "a", "promised"));
    assert!(is_held(db.drop_keyspace(ks.clone()), "writes"));
    writes.commit().unwrap();
    assert_eq!(get(&ks, "a"), Some(b"promised".to_vec()));
    drop(other);
}

#[test]
fn forced_writes_are_what_presumed_abort_needs() {
    let (_disk, db, ks) = store();
    let syncs = || db.stats().syncs;
    let at = syncs();
    let prepared = prepare(&db, "a", |tx| tx.insert(&ks, "a", "1"));
    assert_eq!(syncs() - at, 1, "the vote");
    prepared.commit().unwrap();
    assert_eq!(syncs() - at, 2, "the commit");
    let prepared = prepare(&db, "b", |tx| tx.insert(&ks, "a", "2"));
    let at = syncs();
    prepared.rollback().unwrap();
    assert_eq!(syncs() - at, 0, "the rollback");
    let tx = db.begin();
    tx.get(&ks, "a").unwrap();
    assert!(matches!(tx.prepare(xid("c")).unwrap(), Vote::ReadOnly(_)));
    assert_eq!(syncs() - at, 0, "read-only");
}

#[test]
fn what_is_prepared_is_respected_by_all_who_write() {
    let (_disk, db, ks) = store();
    db.transact(|tx| {
        tx.insert(&ks, "a", "1")?;
        tx.insert(&ks, "read", "1")?;
        tx.insert(&ks, "m", "1")
    })
    .unwrap();
    let prepared = prepare(&db, "t", |tx| {
        tx.get(&ks, "read")?;
        assert_eq!(tx.range(&ks, "k".."l").count(), 0);
        tx.add_i64(&ks, "n", 1)?;
        tx.remove_range(&ks, "x".."z")?;
        tx.insert(&ks, "a", "2")
    });
    let check = |free: bool| {
        let held = |outcome: Result<()>| assert_eq!(is_held(outcome, "t"), !free);
        held(ks.insert("a", "3").map(drop));
        held(db.begin().prepare_put(&ks, "a"));
        held(ks.insert("read", "2").map(drop));
        held(ks.insert("kk", "2").map(drop));
        held(ks.insert("n", 4_i64.to_le_bytes()).map(drop));
        held(ks.insert("y", "in the range").map(drop));
        let mut batch = WriteBatch::new();
        batch.remove_range(&ks, "9".."b");
        held(db.write(batch).map(drop));
        let mut batch = WriteBatch::new();
        batch.remove_range(&ks, "y0".."y1");
        held(db.write(batch).map(drop));
        let retried_never = TxOptions { retries_max: Some(0), ..Default::default() };
        held(db.transact_with(retried_never.clone(), |tx| tx.remove(&ks, "a")));
    };
    check(false);
    // Who adds beside an add, writes elsewhere, or has read what is to be written, goes on.
    let mut batch = WriteBatch::new();
    batch.add_i64(&ks, "n", 1).insert(&ks, "m", "2");
    db.write(batch).unwrap();
    let mut tx = db.begin();
    assert_eq!(tx.get(&ks, "a").unwrap().as_deref(), Some(&b"1"[..]));
    tx.insert(&ks, "o", "1").unwrap();
    tx.commit().unwrap();
    assert!(is_held(db.begin_drop(&ks), "t"));
    prepared.commit().unwrap();
    assert_eq!(number(&ks, "n"), 2);
    check(true);
}

/// Shorthand.
trait Quick {
    fn prepare_put(self, ks: &Keyspace, key: &str) -> Result<()>;
}

impl Quick for Transaction {
    fn prepare_put(mut self, ks: &Keyspace, key: &str) -> Result<()> {
        self.insert(ks, key, "prepared")?;
        match self.prepare(xid("another"))? {
            Vote::Prepared(prepared) => prepared.rollback().map(drop),
            Vote::ReadOnly(_) => Ok(()),
        }
    }
}

trait Dropping {
    fn begin_drop(&self, ks: &Keyspace) -> Result<()>;
}

impl Dropping for Db {
    fn begin_drop(&self, ks: &Keyspace) -> Result<()> {
        let mut tx =
            self.begin_with(TxOptions { isolation: Some(Isolation::Snapshot), ..Default::default() });
        tx.drop_keyspace(ks)?;
        tx.commit().map(drop)
    }
}

/// A check that fails after the vote would break the promise: whatever commits in between, it cannot.
#[test]
fn bug_43_no_check_can_fail_after_the_vote() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        let (_disk, db, ks) = store();
        ks.insert("x", "1").unwrap();
        ks.insert("y", "1").unwrap();
        let begin = || db.begin_with(TxOptions { isolation: Some(isolation), ..Default::default() });
        let (mut a, mut b) = (begin(), begin());
        a.get(&ks, "x").unwrap();
        a.insert(&ks, "y", "a").unwrap();
        b.get(&ks, "y").unwrap();
        b.insert(&ks, "x", "b").unwrap();
        let a = vote(a.prepare(xid("a")));
        // Write skew: serializable, the second may not even vote.
        let b = b.prepare(xid("b"));
        match isolation {
            Isolation::Serializable => assert!(is_held(b, "a")),
            _ => drop(vote(b).commit().unwrap()),
        }
        for key in ["x", "y", "z"] {
            let _ = ks.insert(key, "other");
        }
        a.commit().unwrap();
        assert_eq!(get(&ks, "y"), Some(b"a".to_vec()));
    }
    // And at the vote it does fail.
    let (_disk, db, ks) = store();
    let mut tx = db.begin();
    tx.get(&ks, "x").unwrap();
    tx.insert(&ks, "y", "1").unwrap();
    ks.insert("x", "changed").unwrap();
    assert!(matches!(tx.prepare(xid("late")), Err(Error::Conflict)));
    let tx = db.begin();
    tx.get(&ks, "x").unwrap();
    ks.insert("x", "changed again").unwrap();
    assert!(matches!(tx.prepare(xid("reader")), Err(Error::Conflict)));
    assert!(db.prepared().next().is_none());
}

#[test]
fn readers_choose() {
    let (_disk, db, ks) = store();
    ks.insert("a", "old").unwrap();
    let prepared = prepare(&db, "t", |tx| tx.insert(&ks, "a", "new"));
    let begin = |on_prepared| {
        db.begin_with(TxOptions { on_prepared, lock_timeout: Some(Duration::ZERO), ..Default::default() })
    };
    let last = begin(OnPrepared::LastCommitted);
    assert_eq!(last.get(&ks, "a").unwrap().as_deref(), Some(&b"old"[..]));
    assert_eq!(db.snapshot().get(&ks, "a").unwrap().as_deref(), Some(&b"old"[..]));
    for how in [OnPrepared::Conflict, OnPrepared::Wait] {
        let mut tx = begin(how);
        assert!(is_held(tx.get(&ks, "a"), "t"));
        assert!(is_held(tx.multi_get(&ks, &["b", "a"]), "t"));
        assert!(is_held(tx.range(&ks, ..).collect::<Result<Vec<_>>>(), "t"));
        assert!(is_held(tx.prefix(&ks, "a").collect::<Result<Vec<_>>>(), "t"));
        assert!(is_held(tx.get_for_update(&ks, "a"), "t"));
        assert_eq!(tx.get(&ks, "b").unwrap(), None);
        assert_eq!(tx.range(&ks, "b"..).count(), 0);
    }
    assert!(is_held(begin(OnPrepared::LastCommitted).get_for_update(&ks, "a"), "t"));
    // Who waits sees what came of it, in the same transaction if nothing did, else in the next.
    let waiting = |prepared: Prepared, commits: bool| {
        let (db, ks) = (db.clone(), ks.clone());
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let options = TxOptions {
                    on_prepared: OnPrepared::Wait,
                    lock_timeout: Some(Duration::MAX),
                    ..Default::default()
                };
                let mut runs = 0;
                let value = db.transact_with(options, |tx| {
                    runs += 1;
                    tx.get(&ks, "a")
                });
                (value.unwrap().unwrap().to_vec(), runs)
            });
            std::thread::sleep(Duration::from_millis(20));
            assert!(!reader.is_finished());
            if commits { prepared.commit() } else { prepared.rollback() }.unwrap();
            reader.join().unwrap()
        })
    };
    assert_eq!(waiting(prepared, true), (b"new".to_vec(), 2));
    let prepared = prepare(&db, "u", |tx| tx.insert(&ks, "a", "never"));
    assert_eq!(waiting(prepared, false), (b"new".to_vec(), 1));
}

#[test]
fn names_and_verbs_out_of_order_are_refused_by_name() {
    let (_disk, db, ks) = store();
    let prepared = prepare(&db, "t", |tx| tx.insert(&ks, "a", "1"));
    let mut tx = db.begin();
    tx.insert(&ks, "b", "1").unwrap();
    assert!(matches!(tx.prepare(xid("t")), Err(Error::XidDuplicate { xid: found }) if found == xid("t")));
    assert!(matches!(prepared.forget(), Err(Error::BadInput(_))));
    prepared.rollback().unwrap();
    assert!(matches!(prepared.complete(Heuristic::Committed), Err(Error::XidFinished { .. })));
    assert!(matches!(prepared.forget(), Err(Error::XidFinished { .. })));
    prepare(&db, "t", |tx| tx.insert(&ks, "b", "1")).commit().unwrap();
    assert!(db.prepared_by(&xid("unknown")).unwrap().is_none());
}

#[test]
fn an_operators_outcome_is_kept_until_it_is_forgotten() {
    for (outcome, row) in [
        (Heuristic::Committed, Some(b"1".to_vec())),
        (Heuristic::RolledBack, None),
        (Heuristic::Mixed, None),
        (Heuristic::Hazard, None),
    ] {
        let (disk, db, ks) = store();
        prepare(&db, "t", |tx| tx.insert(&ks, "a", "1")).complete(outcome).unwrap();
        let mut disk = barely(&disk);
        drop((db, ks));
        for _ in 0..2 {
            let db = open(&disk);
            let ks = db.keyspace("rows").unwrap();
            assert_eq!(get(&ks, "a"), row, "{outcome}");
            assert!(db.prepared().next().is_none());
            let found = db.heuristics().next().unwrap();
            assert_eq!((found.xid(), found.heuristic()), (&xid("t"), Some(outcome)));
            let reports = |decision: Result<_>| matches!(decision, Err(Error::Heuristic { outcome: found, .. }) if found == outcome);
            assert_eq!(reports(found.commit()), outcome != Heuristic::Committed);
            assert_eq!(reports(found.rollback()), outcome != Heuristic::RolledBack);
            let mut tx = db.begin();
            tx.insert(&ks, "b", "1").unwrap();
            assert!(matches!(tx.prepare(xid("t")), Err(Error::XidDuplicate { .. })));
            ks.insert("free", "1").unwrap();
            db.checkpoint().unwrap();
            disk = barely(&disk);
        }
        let db = open(&disk);
        let found = db.prepared_by(&xid("t")).unwrap().unwrap();
        found.forget().unwrap();
        found.forget().unwrap();
        let disk = barely(&disk);
        assert!(db.prepared_by(&xid("t")).unwrap().is_none());
        assert!(open(&disk).heuristics().next().is_none());
    }
}

/// MySQL #98709: PREPARE was acknowledged, and lost.
#[test]
fn bug_30_a_vote_that_was_given_is_kept() {
    let (disk, db, ks) = store();
    let prepared = prepare(&db, "t", |tx| {
        tx.insert(&ks, "a", "1")?;
        let made = tx.create_keyspace("made", Default::default())?;
        tx.insert(&made, "b", "2")
    });
    let after = barely(&disk);
    drop((prepared, db, ks));
    let db = open(&after);
    assert_eq!(db.keyspaces(), ["rows"]);
    let found = db.prepared_by(&xid("t")).unwrap().expect("the vote");
    assert_ne!(db.keyspace("other").unwrap().name(), "made");
    found.commit().unwrap();
    let db = open(&barely(&after));
    assert_eq!(get(&db.keyspace("rows").unwrap(), "a"), Some(b"1".to_vec()));
    assert_eq!(get(&db.open_keyspace("made").unwrap().unwrap(), "b"), Some(b"2".to_vec()));
    assert_eq!(get(&db.open_keyspace("other").unwrap().unwrap(), "b"), None);
    assert!(db.prepared().next().is_none());
}

/// TiDB #33641: commit returned, and was rolled back.
#[test]
fn bug_32_a_commit_that_returned_stays() {
    let (disk, db, ks) = store();
    let prepared = prepare(&db, "t", |tx| tx.insert(&ks, "a", "1"));
    prepared.commit().unwrap();
    let db = open(&barely(&disk));
    assert!(db.prepared_by(&xid("t")).unwrap().is_none());
    assert_eq!(get(&db.keyspace("rows").unwrap(), "a"), Some(b"1".to_vec()));
}

#[test]
fn locks_are_there_again_after_a_crash() {
    let (disk, db, ks) = store();
    prepare(&db, "t", |tx| {
        tx.remove_range(&ks, "x"..)?;
        tx.insert(&ks, "a", "1")
    });
    for folds in [false, true] {
        if folds {
            db.checkpoint().unwrap();
        }
        let db = open(&barely(&disk));
        let ks = db.keyspace("rows").unwrap();
        assert!(is_held(ks.insert("a", "2"), "t") && is_held(ks.insert("y", "2"), "t"));
        ks.insert("b", "2").unwrap();
        db.prepared().next().unwrap().commit().unwrap();
        assert_eq!(get(&ks, "a"), Some(b"1".to_vec()));
        ks.insert("y", "2").unwrap();
    }
}

#[test]
fn what_was_read_is_protected_after_a_crash() {
    let (disk, db, ks) = store();
    ks.insert("read", "1").unwrap();
    prepare(&db, "t", |tx| {
        tx.get(&ks, "read")?;
        assert_eq!(tx.prefix(&ks, "gap").count(), 0);
        tx.insert(&ks, "a", "1")
    });
    let db = open(&barely(&disk));
    let ks = db.keyspace("rows").unwrap();
    assert!(is_held(ks.insert("read", "2"), "t") && is_held(ks.insert("gap 1", "2"), "t"));
    assert!(is_held(db.drop_keyspace(ks), "t"));
}

/// RocksDB #4597, #9571, #4613: what is prepared kept the log for ever, or the log went from under it.
#[test]
fn bug_35_a_checkpoint_carries_what_is_prepared_and_frees_the_log() {
    let (disk, db, ks) = store();
    let prepared = prepare(&db, "t", |tx| tx.add_i64(&ks, "n", 1));
    let rolled_back = prepare(&db, "r", |tx| tx.add_i64(&ks, "n", 100));
    for i in 0..20 {
        ks.insert(format!("row {i}"), vec![i; 10_000]).unwrap();
        db.checkpoint().unwrap();
    }
    let stats = db.stats();
    assert!(stats.log_bytes <= 3 * (64 << 10), "{} bytes of log", stats.log_bytes);
    assert!(stats.checkpoint_lsn > prepared.lsn());
    rolled_back.rollback().unwrap();
    db.sync().unwrap();
    // Prepared before a checkpoint, the outcome after it, and that before and after another.
    let after = barely(&disk);
    let again = open(&after);
    assert_eq!(again.prepared().count(), 1);
    again.prepared_by(&xid("t")).unwrap().expect("carried").commit().unwrap();
    for folds in [false, true] {
        if folds {
            again.checkpoint().unwrap();
        }
        let last = open(&barely(&after));
        assert_eq!(number(&last.keyspace("rows").unwrap(), "n"), 1);
        assert_eq!(last.prepared().count(), 0);
    }
    assert!(db.verify(|_| {}).unwrap().problems.is_empty());
}

/// FoundationDB's `commit_unknown_result`: an outcome that was not known, tried again, and applied twice.
#[test]
fn bug_33_an_outcome_tried_again_is_applied_once() {
    let (disk, db, ks) = store();
    let prepared = prepare(&db, "t", |tx| tx.add_i64(&ks, "n", 1));
    prepared.commit().unwrap();
    prepared.commit().unwrap();
    let db = open(&barely(&disk));
    if let Some(prepared) = db.prepared_by(&xid("t")).unwrap() {
        prepared.commit().unwrap();
    }
    assert_eq!(number(&db.keyspace("rows").unwrap(), "n"), 1);
}

/// PostgreSQL 8582b4d: a damaged record of a prepared transaction was skipped in silence. Any byte of it, and of the tree
/// that a checkpoint carries it in: the store refuses to open, or all is there.
#[test]
fn bug_29_a_damaged_prepared_transaction_is_never_skipped() {
    let (disk, db, ks) = store();
    let prepared = prepare(&db, "t", |tx| tx.insert(&ks, "a", "a value that is found in the file"));
    db.checkpoint().unwrap();
    drop((prepared, db, ks));
    let path = std::path::Path::new("/dir/store/data");
    let bytes = disk.read_file(path).unwrap();
    let needle = b"a value that is found in the file";
    let places: Vec<usize> =
        (0..bytes.len() - needle.len()).filter(|at| &bytes[*at..*at + needle.len()] == needle).collect();
    assert!(!places.is_empty());
    for at in places.iter().flat_map(|at| [*at - 60, *at - 20, *at, *at + 5]) {
        let copy = barely(&disk);
        copy.flip(path, at as u64, 1).unwrap();
        match builder(&copy).open() {
            Err(Error::Corruption { .. }) => {}
            Err(error) => panic!("{error}"),
            Ok(db) => panic!("byte {at}: {} prepared", db.prepared().count()),
        }
    }
}

/// RocksDB #14778: a commit that failed dropped the prepared transaction. Every call of the disk during the commit fails
/// once; the transaction is prepared, or committed, whole, and never neither.
#[test]
fn bug_37_a_commit_that_fails_leaves_it_prepared() {
    let mut failures = 0;
    for (nth, sticks) in (0..12).flat_map(|nth| [(nth, false), (nth, true)]) {
        let (disk, db, ks) = store();
        let prepared = prepare(&db, "t", |tx| {
            tx.insert(&ks, "a", "1")?;
            tx.add_i64(&ks, "n", 1)
        });
        let fault = [Fault::eio(Op::Any), Fault::full(Op::Any), Fault::short(Op::Any)][nth % 3].clone();
        let call = (nth / 3) as u64 + 1;
        disk.fail(fault.at_call(call));
        if sticks {
            disk.fail(
                [Fault::eio(Op::Any), Fault::full(Op::Any), Fault::short(Op::Any)][nth % 3]
                    .clone()
                    .at_call(call + 1),
            );
        }
        let outcome = prepared.commit();
        failures += u32::from(outcome.is_err());
        disk.clear_faults();
        if let Err(error) = &outcome {
            assert!(!error.is_conflict() && !error.is_retryable(), "{error}");
            assert_eq!(get(&ks, "a"), None, "not shown while it is not known");
        }
        for copy in [barely(&disk), disk.crash_copy()] {
            let db = open(&copy);
            let ks = db.keyspace("rows").unwrap();
            match db.prepared_by(&xid("t")).unwrap() {
                Some(prepared) => {
                    assert!(outcome.is_err(), "a commit that returned");
                    assert_eq!((get(&ks, "a"), number(&ks, "n")), (None, 0));
                    assert!(is_held(ks.insert("a", "2"), "t"));
                    prepared.commit().unwrap();
                }
                None => assert_eq!(number(&ks, "n"), 1),
            }
            assert_eq!((get(&ks, "a"), number(&ks, "n")), (Some(b"1".to_vec()), 1));
        }
    }
    assert!(failures > 0, "no fault was met");
}

/// MySQL #98288: coordinator and engine, with a log each, did not agree after a crash. A coordinator that keeps its decision in
/// a store, forced before the first outcome, and looks there after a crash: at every call of the disk after the vote.
#[test]
fn bug_31_coordinator_and_store_agree_after_a_crash_at_every_call() {
    let run = |disk: &Arc<SimDisk>, other: &Arc<SimDisk>| -> Result<()> {
        let (a, b) = (builder(disk).open()?, builder(other).open()?);
        let (of_a, of_b, decisions) = (a.keyspace("rows")?, b.keyspace("rows")?, a.keyspace("decisions")?);
        let mut parts = Vec::new();
        for (db, ks) in [(&a, &of_a), (&b, &of_b)] {
            let mut tx = db.begin();
            tx.add_i64(ks, "n", 1)?;
            if let Vote::Prepared(prepared) = tx.prepare(xid("t"))? {
                parts.push(prepared);
            }
        }
        a.checkpoint()?;
        decisions.insert(xid("t").to_string(), "commit")?;
        b.checkpoint()?;
        parts.iter().try_for_each(|part| part.commit().map(drop))
    };
    let (mut cuts, mut decided) = (0, [0, 0]);
    for power in 0.. {
        let disks = [SimDisk::new(power), SimDisk::new(power + 1000)];
        disks[(power % 2) as usize].fail(Fault::power_cut().at_call(1 + power / 2));
        let has_ended = run(&disks[0], &disks[1]).is_ok() && disks.iter().all(|disk| disk.has_power());
        let disks = disks.map(|disk| disk.crash());
        let stores: Vec<Db> = disks.iter().map(open).collect();
        let decisions = stores[0].keyspace("decisions").unwrap();
        let commits = decisions.get(xid("t").to_string()).unwrap().is_some();
        decided[usize::from(commits)] += 1;
        for db in &stores {
            if let Some(prepared) = db.prepared_by(&xid("t")).unwrap() {
                if commits { prepared.commit() } else { prepared.rollback() }.unwrap();
            }
            let n = number(&db.keyspace("rows").unwrap(), "n");
            assert_eq!(n, i64::from(commits), "cut at {power}");
        }
        if has_ended {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 20 && decided.iter().all(|times| *times > 0), "{cuts} cuts, decided {decided:?}");
}

type Rows = BTreeMap<Vec<u8>, i64>;
