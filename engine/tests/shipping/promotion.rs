//! A replica takes over.

use crate::world::{builder, commit, contents, follow, new_replica, open_replica, ship, shown};
use seawall_engine::{Ack, Db, Error, Lsn, Xid};
use seawall_wal::disk::sim::{CrashStyle, Fault, Op};
use seawall_wal::{Kind, SimDisk};
use std::sync::Arc;
use std::time::{Duration, Instant};

const COMMITS: u64 = 30;

/// A primary of some commits, one of them in doubt, and a replica that has all of it.
fn pair(seed: u64) -> (Db, Arc<SimDisk>) {
    let disk = SimDisk::new(seed);
    let primary = builder(&disk).open().unwrap();
    let copy = new_replica(&primary, &disk, seed + 1);
    let replica = open_replica(&copy).unwrap();
    for n in 1..=COMMITS {
        commit(&primary, n).unwrap();
        if n == COMMITS / 2 {
            follow(&primary, &replica);
            replica.checkpoint().unwrap();
        }
    }
    let rows = primary.open_keyspace("rows").unwrap().unwrap();
    let mut tx = primary.begin();
    tx.insert(&rows, "held", "1").unwrap();
    tx.prepare(xid(1)).unwrap();
    ship(&primary, &replica).unwrap();
    drop(replica);
    (primary, copy)
}

fn xid(n: u8) -> Xid {
    Xid::new(1, [n], "b").unwrap()
}

/// It holds all that was shipped, and what is in doubt, which it can end.
fn check_promoted(db: &Db, what: &str) {
    assert_eq!(shown(db, what), COMMITS);
    let rows = db.open_keyspace("rows").unwrap().unwrap();
    assert!(matches!(rows.insert("held", "2"), Err(Error::PreparedConflict { .. })), "{what}");
    commit(db, COMMITS + 1).unwrap();
    assert_eq!(shown(db, what), COMMITS + 1);
    db.prepared_by(&xid(1)).unwrap().unwrap().commit().unwrap();
    assert_eq!(rows.get("held").unwrap().as_deref(), Some(&b"1"[..]), "{what}");
    assert!(db.checkpoint().unwrap().bytes > 0);
    assert_eq!(db.verify(|_| {}).unwrap().problems, Vec::<String>::new(), "{what}");
}

#[test]
fn a_promoted_replica_shows_all_and_takes_writes_at_once() {
    let (_, copy) = pair(1);
    let replica = open_replica(&copy).unwrap();
    assert_eq!(shown(&replica, "before"), COMMITS / 2);
    let start = Instant::now();
    replica.shipping().promote(1).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(!replica.shipping().is_replica() && replica.shipping().wal().timeline().epoch == 1);
    let kinds: Vec<Kind> = replica.shipping().wal().read(..).unwrap().map(|r| r.unwrap().kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::EPOCH).count(), 1);
    check_promoted(&replica, "promoted");
    drop(replica);
    let again = builder(&copy).open().unwrap();
    let rows = again.open_keyspace("rows").unwrap().unwrap();
    assert!(rows.get("held").unwrap().is_some() && again.prepared().count() == 0);
    assert!(matches!(again.shipping().promote(2), Err(Error::BadInput(_))), "it is none any more");
    drop((rows, again));
    assert!(matches!(open_replica(&copy), Err(Error::BadInput(_))));
}

#[test]
fn a_replica_is_not_opened_as_anything_else_and_keeps_no_low_promise() {
    let (_, copy) = pair(1);
    assert!(builder(&copy).open().is_err());
    let replica = open_replica(&copy).unwrap();
    replica.shipping().fence(5).unwrap();
    assert!(replica.shipping().is_replica() && replica.shipping().fenced().is_none());
    assert!(matches!(replica.shipping().promote(4), Err(Error::Fenced { epoch: 5 })));
    assert!(replica.shipping().is_replica());
    assert!(matches!(replica.keyspace("new"), Err(Error::ReadOnly)));
    drop(replica);
    let replica = open_replica(&copy).unwrap();
    assert!(matches!(replica.shipping().promote(5), Err(Error::Fenced { epoch: 5 })));
    replica.shipping().promote(6).unwrap();
    check_promoted(&replica, "a later epoch");
}

#[test]
fn a_promoted_store_ships_to_another_replica() {
    let (primary, copy) = pair(1);
    let replica = open_replica(&copy).unwrap();
    replica.shipping().promote(1).unwrap();
    check_promoted(&replica, "promoted");
    replica.checkpoint().unwrap();
    let third = open_replica(&new_replica(&replica, &copy, 9)).unwrap();
    commit(&replica, COMMITS + 2).unwrap();
    follow(&replica, &third);
    assert_eq!(contents(&third), contents(&replica));
    assert_eq!(contents(&third)["rows"][&b"n"[..]], (COMMITS + 2).to_string().into_bytes());
    drop(primary);
    third.shipping().promote(2).unwrap();
    commit(&third, COMMITS + 3).unwrap();
}

#[test]
fn a_tail_that_was_not_shown_waits_for_replicas_if_commits_do() {
    let (_, copy) = pair(1);
    let replica = builder(&copy).replica(true).ack(Ack::Durable).open().unwrap();
    let visible = replica.shipping().visible();
    replica.shipping().promote(1).unwrap();
    assert_eq!(replica.shipping().visible(), visible, "what it has shown it goes on showing, and no more");
    assert_eq!(shown(&replica, "promoted"), COMMITS / 2);
    let rows = replica.open_keyspace("rows").unwrap().unwrap();
    let Err(Error::CommitUnknown { lsn }) = rows.insert("more", "1") else { panic!("it did not wait") };
    assert!(matches!(rows.insert("held", "2"), Err(Error::PreparedConflict { .. })));
    replica.shipping().acked(Ack::Durable, replica.shipping().wal().next_lsn());
    assert!(replica.await_commit(lsn, Duration::ZERO).unwrap());
    assert!(rows.get("more").unwrap().is_some());
    assert_eq!(rows.get("n").unwrap().as_deref(), Some(COMMITS.to_string().as_bytes()));
}

/// R10: those who followed the replica have acknowledged what it had. Of the epoch that it begins they have nothing.
#[test]
fn what_was_acknowledged_before_a_promotion_counts_for_nothing_after_it() {
    let (_, copy) = pair(1);
    let replica = builder(&copy).replica(true).ack(Ack::Durable).open().unwrap();
    let shipping = replica.shipping();
    shipping.acked(Ack::Applied, shipping.wal().next_lsn());
    shipping.promote(1).unwrap();
    assert_eq!(shown(&replica, "promoted"), COMMITS / 2);
    shipping.acked(Ack::Applied, shipping.wal().next_lsn());
    assert_eq!(shown(&replica, "acknowledged in its own epoch"), COMMITS);
}

fn begin_of_epoch(db: &Db) -> Lsn {
    db.shipping().wal().timeline().history.turns().last().map_or(Lsn::ZERO, |turn| turn.start)
}

/// As one opens a store of which it is not known what it is.
fn open_either(disk: &Arc<SimDisk>) -> Db {
    match open_replica(disk) {
        Err(Error::BadInput(_)) => builder(disk).open().unwrap(),
        opened => opened.unwrap(),
    }
}

#[test]
fn a_promotion_that_the_power_cuts_short_has_happened_or_has_not() {
    let styles = [CrashStyle::KeepNone, CrashStyle::KeepAll, CrashStyle::Random, CrashStyle::Prefix];
    let (_, copy) = pair(1);
    let (mut happened, mut calls) = ([0; 2], 0);
    for style in styles {
        for call in 1.. {
            let disk = copy.crash_copy();
            disk.set_crash_style(Some(style));
            let replica = open_replica(&disk).unwrap();
            disk.fail(Fault::power_cut().at_call(call));
            let promoted = replica.shipping().promote(1);
            if disk.has_power() {
                promoted.unwrap();
                calls += call;
                break;
            }
            let survived = disk.crash();
            drop(replica);
            let what = format!("{style:?}, power cut at call {call}");
            let db = open_either(&survived);
            happened[usize::from(!db.shipping().is_replica())] += 1;
            assert!(promoted.is_err() || !db.shipping().is_replica(), "{what}: it is forgotten");
            let (begins, durable) = (begin_of_epoch(&db), db.shipping().wal().durable_lsn());
            assert!(db.shipping().is_replica() || durable > begins, "{what}: nothing is of the epoch");
            if db.shipping().is_replica() {
                db.shipping().promote(1).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            check_promoted(&db, &what);
        }
    }
    assert!(happened[0] > 4 && happened[1] > 0 && calls > 8, "{happened:?}, {calls}");
}

#[test]
fn a_promotion_that_fails_leaves_a_replica_or_one_that_reopening_decides_about() {
    let (_, copy) = pair(1);
    for call in 1.. {
        let disk = copy.crash_copy();
        let replica = open_replica(&disk).unwrap();
        let before = disk.calls();
        disk.fail(Fault::eio(Op::Any).at_call(call));
        let promoted = replica.shipping().promote(1);
        let has_met = disk.calls() >= before + call;
        disk.clear_faults();
        let what = format!("call {call} failed");
        if promoted.is_ok() {
            check_promoted(&replica, &what);
            if has_met {
                continue;
            }
            assert!(call > 4, "{call}");
            break;
        }
        assert!(matches!(replica.keyspace("new"), Err(Error::ReadOnly | Error::Poisoned(_))), "{what}");
        assert!(shown(&replica, &what) >= COMMITS / 2);
        drop(replica);
        let db = open_either(&disk);
        if db.shipping().is_replica() {
            db.shipping().promote(1).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        check_promoted(&db, &what);
    }
}

/// Bug 36: a prepared transaction that was ended comes back after a failover, or one that was not is lost, because a
/// checkpoint met it half way.
#[test]
fn bug_36_what_was_prepared_survives_and_what_was_ended_does_not_come_back() {
    // In which order: p prepares, c commits, s ships, k is a checkpoint of the replica, K of the primary.
    for order in
        ["pskcsk", "pksc", "psckKs", "pcsk", "pKscKs", "pskKcs", "spkcKsk", "pscs", "pKsks", "psk", "p", "ps"]
    {
        let disk = SimDisk::new(1);
        let primary = builder(&disk).open().unwrap();
        let rows = primary.keyspace("rows").unwrap();
        rows.insert("first", "1").unwrap();
        let copy = new_replica(&primary, &disk, 2);
        let replica = open_replica(&copy).unwrap();
        for step in order.chars() {
            match step {
                'p' => {
                    let mut tx = primary.begin();
                    tx.insert(&rows, "held", "1").unwrap();
                    tx.prepare(xid(1)).unwrap();
                }
                'c' => drop(primary.prepared_by(&xid(1)).unwrap().unwrap().commit().unwrap()),
                's' => follow(&primary, &replica),
                'k' => drop(replica.checkpoint().unwrap()),
                _ => drop(primary.checkpoint().unwrap()),
            }
        }
        ship(&primary, &replica).unwrap();
        let is_ended = order.contains('c');
        for what in ["promoted", "reopened"] {
            let db = if what == "promoted" {
                replica.shipping().promote(1).unwrap();
                replica.clone()
            } else {
                builder(&copy.crash_copy()).open().unwrap()
            };
            let rows = db.open_keyspace("rows").unwrap().unwrap();
            assert_eq!(rows.get("held").unwrap().is_some(), is_ended, "{order}, {what}");
            assert_eq!(db.prepared_by(&xid(1)).unwrap().is_some(), !is_ended, "{order}, {what}");
            assert_eq!(db.prepared().count(), usize::from(!is_ended), "{order}, {what}");
            let written = rows.insert("held", "2");
            assert_eq!(matches!(written, Err(Error::PreparedConflict { .. })), !is_ended, "{order}, {what}");
            if what == "promoted" && is_ended {
                rows.insert("held", "1").unwrap();
            }
        }
    }
}
