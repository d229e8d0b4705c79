//! What a replica shows, keeps and refuses.

use crate::world::{
    SEGMENT, builder, commit, contents, follow, model, new_replica, open_replica, ship, ship_some, shown,
};
use seawall_engine::mutation::Mutation;
use seawall_engine::{Db, Error, KeyspaceOptions, Lsn, Readable, WriteBatch, Xid};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::{Fault, Op};
use seawall_wal::runtime::Rng;
use std::sync::Arc;
use std::time::Duration;

/// A primary of `n` commits with what it showed after each, and an empty replica's disk.
fn pair(n: u64) -> (Db, Vec<Lsn>, Arc<SimDisk>) {
    let disk = SimDisk::new(1);
    let primary = builder(&disk).open().unwrap();
    let copy = new_replica(&primary, &disk, 2);
    let mut visible = vec![primary.shipping().visible()];
    for n in 1..=n {
        commit(&primary, n).unwrap();
        visible.push(primary.shipping().visible());
    }
    (primary, visible, copy)
}

#[test]
fn a_replica_shows_what_is_applied_and_shown_by_the_primary_and_never_goes_back() {
    let (primary, visible, copy) = pair(60);
    let replica = open_replica(&copy).unwrap();
    assert!(replica.shipping().is_replica() && replica.stats().is_replica);
    ship_some(&primary, &replica, usize::MAX, 1 << 20).unwrap();
    for (n, end) in visible.iter().enumerate().skip(1).step_by(7) {
        assert_eq!(replica.shipping().apply_to(Lsn(end.0 - 1)).unwrap(), visible[n - 1].max(visible[0]));
        assert_eq!(replica.shipping().apply_to(*end).unwrap(), *end);
    }
    let applied = replica.shipping().apply().unwrap();
    assert_eq!((applied, shown(&replica, "before any limit")), (*visible.last().unwrap(), 0));
    for (n, limit) in visible.iter().enumerate().skip(1) {
        let before = replica.snapshot();
        replica.shipping().set_visible_limit(Lsn(limit.0 - 1));
        assert_eq!(shown(&replica, "inside a record"), n as u64 - 1);
        replica.shipping().set_visible_limit(*limit);
        replica.shipping().set_visible_limit(visible[n / 2]);
        assert_eq!(shown(&replica, "at a record's end"), n as u64);
        assert!(replica.shipping().visible() <= *limit && before.lsn() < replica.snapshot().lsn());
        let left = replica.shipping().wait_visible(Lsn(limit.0 + 1), Duration::from_millis(1)).unwrap();
        assert!(!left && replica.shipping().wait_visible(*limit, Duration::ZERO).unwrap());
    }
    // The limit alone shows nothing that is not there.
    replica.shipping().set_visible_limit(Lsn::MAX);
    assert_eq!(replica.shipping().visible(), applied);
}

#[test]
fn a_replica_refuses_whatever_writes() {
    let (primary, _, copy) = pair(20);
    let replica = open_replica(&copy).unwrap();
    follow(&primary, &replica);
    let rows = replica.keyspace("rows").unwrap();
    let is_refused =
        |result: Result<(), Error>| assert!(matches!(result, Err(Error::ReadOnly)), "{result:?}");
    is_refused(rows.insert("a", "1").map(drop));
    is_refused(replica.keyspace("new").map(drop));
    is_refused(replica.drop_keyspace(rows.clone()));
    is_refused(replica.sync().map(drop));
    let mut batch = WriteBatch::new();
    batch.insert(&rows, "a", "1");
    is_refused(replica.write(batch.clone()).map(drop));
    is_refused(replica.write_pipelined(batch).map(drop));
    let mut tx = replica.begin();
    is_refused(tx.insert(&rows, "a", "1"));
    is_refused(tx.create_keyspace("new", KeyspaceOptions::default()).map(drop));
    drop(tx);
    assert_eq!(shown(&replica, "after all"), 20);
    assert!(replica.verify(|_| {}).unwrap().problems.is_empty());
}

#[test]
fn a_replica_makes_its_own_checkpoints_and_gives_up_its_log() {
    let (primary, _, copy) = pair(10);
    let mut replica = open_replica(&copy).unwrap();
    follow(&primary, &replica);
    for n in 11..=400 {
        commit(&primary, n).unwrap();
        if n % 40 == 0 {
            follow(&primary, &replica);
            let made = replica.checkpoint().unwrap();
            assert!(made.bytes > 0 && made.lsn <= replica.shipping().visible());
            assert_eq!(replica.checkpoint().unwrap().bytes, 0);
        }
        if n % 80 == 0 {
            drop(replica);
            replica = open_replica(&copy).unwrap();
            assert_eq!(shown(&replica, "reopened"), n, "all of it was in the data file");
        }
    }
    assert!(replica.shipping().wal().first_lsn().0 > 2 * SEGMENT, "its log grows for ever");
    let rows = primary.open_keyspace("rows").unwrap().unwrap();
    assert_eq!(rows.get("n").unwrap().as_deref(), Some(&b"400"[..]));
}

#[test]
fn what_the_primary_has_not_shown_is_not_folded() {
    let (primary, visible, copy) = pair(30);
    let replica = open_replica(&copy).unwrap();
    ship(&primary, &replica).unwrap();
    for _ in 0..5 {
        assert!(matches!(replica.checkpoint(), Err(Error::Unacknowledged { .. })));
    }
    replica.shipping().set_visible_limit(visible[12]);
    assert!(matches!(replica.checkpoint(), Err(Error::Unacknowledged { .. })));
    assert!(replica.stats().checkpoint_lsn <= visible[0]);
    commit(&primary, 31).unwrap();
    ship(&primary, &replica).unwrap();
    replica.shipping().set_visible_limit(visible[30]);
    // What was frozen may be folded, what came since may not.
    assert!(matches!(replica.checkpoint(), Err(Error::Unacknowledged { .. })));
    replica.shipping().set_visible_limit(primary.shipping().visible());
    assert!(replica.checkpoint().unwrap().bytes > 0);
    drop(replica);
    assert_eq!(shown(&open_replica(&copy).unwrap(), "reopened"), 31);
}

#[test]
fn after_reopening_the_checkpoint_is_shown_and_the_rest_waits_for_the_limit() {
    let (primary, visible, copy) = pair(12);
    {
        let replica = open_replica(&copy).unwrap();
        follow(&primary, &replica);
        replica.checkpoint().unwrap();
        for n in 13..=25 {
            commit(&primary, n).unwrap();
        }
        follow(&primary, &replica);
        assert_eq!(shown(&replica, "before"), 25);
        let copy = copy.crash_copy();
        {
            let read = builder(&copy).read_only(true).open().unwrap();
            assert_eq!(shown(&read, "opened to be read"), 12, "the primary may never have shown more");
        }
        let replica = open_replica(&copy).unwrap();
        assert_eq!(shown(&replica, "crashed"), 12);
        replica.shipping().set_visible_limit(visible[5]);
        assert_eq!(shown(&replica, "an old limit"), 12);
        replica.shipping().set_visible_limit(primary.shipping().visible());
        assert_eq!(shown(&replica, "the limit"), 25);
        assert_eq!(replica.shipping().applied(), primary.shipping().visible());
    }
    // All of it is visible, so closing folds it.
    assert_eq!(shown(&open_replica(&copy).unwrap(), "closed"), 25);
}

#[test]
fn a_keyspace_handle_follows_what_the_primary_does_to_it() {
    let disk = SimDisk::new(1);
    let primary = builder(&disk).open().unwrap();
    let old = primary.keyspace("old").unwrap();
    old.insert("a", "1").unwrap();
    primary.checkpoint().unwrap();
    let copy = new_replica(&primary, &disk, 2);
    let replica = open_replica(&copy).unwrap();
    let (seen, before) = (replica.open_keyspace("old").unwrap().unwrap(), replica.snapshot());
    assert!(before.get(&seen, "a").unwrap().is_some());
    primary.drop_keyspace(old).unwrap();
    let again = primary.keyspace("old").unwrap();
    again.insert("b", "1").unwrap();
    ship(&primary, &replica).unwrap();
    assert!(seen.get("a").unwrap().is_some(), "not shown yet");
    follow(&primary, &replica);
    assert!(matches!(seen.get("a"), Err(Error::KeyspaceMissing(_))));
    assert!(before.get(&seen, "a").unwrap().is_some());
    let new = replica.open_keyspace("old").unwrap().unwrap();
    assert!(new.get("a").unwrap().is_none() && new.get("b").unwrap().is_some());
    assert!(matches!(before.get(&new, "b"), Err(Error::KeyspaceMissing(_))), "it was not there then");
}

#[test]
fn a_streamed_value_that_the_log_does_not_hold_takes_a_new_image() {
    let disk = SimDisk::new(1);
    let primary = builder(&disk).stream(4 << 10, 4 << 10).open().unwrap();
    let rows = primary.keyspace("rows").unwrap();
    let copy = new_replica(&primary, &disk, 2);
    let replica = open_replica(&copy).unwrap();
    rows.insert("before", "1").unwrap();
    let mut tx = primary.begin();
    tx.insert_from(&rows, "large", 100 << 10, &mut &vec![7; 100 << 10][..]).unwrap();
    tx.commit().unwrap();
    let shipped = ship(&primary, &replica);
    assert!(matches!(&shipped, Err(Error::NeedsImage { .. })), "{shipped:?}");
    replica.shipping().set_visible_limit(Lsn::MAX);
    assert!(replica.open_keyspace("rows").unwrap().unwrap().get("before").unwrap().is_some());
    assert!(replica.shipping().apply().is_err(), "and it stays so");
    drop(replica);
    assert!(matches!(open_replica(&copy), Err(Error::NeedsImage { .. })), "reopened as well");
}

/// What a run has come to, of commits: made, shown by the primary when it said so last, folded by the replica.
#[derive(Default)]
struct Ran {
    made: u64,
    limit: u64,
    folded: u64,
    shown: u64,
}

fn run(seed: u64, mutation: Option<Mutation>) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(seed);
    let primary = builder(&disk).open().unwrap();
    let mut copy = new_replica(&primary, &disk, seed + 1);
    let open = |copy: &Arc<SimDisk>| builder(copy).replica(true).mutation(mutation).open().unwrap();
    let mut replica = open(&copy);
    let (mut ran, mut visible) = (Ran::default(), vec![primary.shipping().visible()]);
    for step in 0..120 {
        let what = format!("seed {seed}, step {step}");
        match rng.below(12) {
            0..4 => {
                ran.made += 1;
                commit(&primary, ran.made).unwrap();
                visible.push(primary.shipping().visible());
            }
            4 => drop(primary.checkpoint().unwrap()),
            5..8 => {
                let bytes = 4096 << rng.below(5);
                match ship_some(&primary, &replica, 1 + rng.below(4) as usize, bytes) {
                    // The primary has given up what this replica lacks: it takes a new image.
                    Err(seawall_wal::Error::Reclaimed { .. }) => {
                        copy = new_replica(&primary, &disk, rng.next_u64());
                        replica = open(&copy);
                        let now = shown(&replica, &what);
                        (ran.shown, ran.folded, ran.limit) = (now, now, ran.limit.max(now));
                        continue;
                    }
                    shipped => drop(shipped.unwrap()),
                }
            }
            8 if rng.chance(1, 3) => {
                let to = visible[rng.below(ran.made + 1) as usize];
                replica.shipping().apply_to(to).unwrap();
            }
            8 => drop(replica.shipping().apply().unwrap()),
            9 => {
                ran.limit = ran.limit.max(rng.below(ran.made + 1));
                replica.shipping().set_visible_limit(visible[ran.limit as usize]);
            }
            10 => match replica.checkpoint() {
                Ok(_) => ran.folded = ran.shown,
                Err(Error::Unacknowledged { .. }) => {}
                Err(error) => panic!("{what}: {error}"),
            },
            _ => {
                if rng.chance(1, 2) {
                    copy = copy.crash();
                    drop(replica);
                } else {
                    replica.close().unwrap();
                }
                replica = open(&copy);
                let now = shown(&replica, &what);
                if !(ran.folded..=ran.shown).contains(&now) {
                    return Err(format!(
                        "{what}: {now} are shown, {} folded, {} shown",
                        ran.folded, ran.shown
                    ));
                }
                // What the primary had shown before, the replica hears again.
                (ran.shown, ran.folded, ran.limit) = (now, now, now);
            }
        }
        let now = shown(&replica, &what);
        if now < ran.shown || now > ran.limit.max(ran.folded) {
            return Err(format!("{what}: {now} are shown, {} were, up to {}", ran.shown, ran.limit));
        }
        ran.shown = now;
    }
    if let Err(error) = ship_some(&primary, &replica, usize::MAX, 1 << 20) {
        assert!(matches!(error, seawall_wal::Error::Reclaimed { .. }), "{error}");
        replica = open(&new_replica(&primary, &disk, seed + 1));
    }
    follow(&primary, &replica);
    assert_eq!(shown(&replica, "at the end"), ran.made);
    assert!(replica.verify(|_| {}).unwrap().problems.is_empty());
    assert_eq!(contents(&replica), model(ran.made));
    Ok(())
}

#[test]
fn whatever_happens_a_replica_shows_a_prefix() {
    for seed in 0..60 {
        run(seed, None).unwrap();
    }
}

/// Ships, applies, shows and folds, now and then, until the replica has all. What was said to be durable, and how much was
/// shown at the last checkpoint.
fn chase(primary: &Db, copy: &Arc<SimDisk>, visible: &[Lsn], done: &mut (Lsn, u64)) -> Result<(), Error> {
    let replica = open_replica(copy)?;
    for (n, limit) in visible.iter().enumerate().step_by(3) {
        done.0 = ship_some(primary, &replica, 2, 8 << 10).map_err(Error::from)?.max(done.0);
        let applied = replica.shipping().apply()?;
        replica.shipping().set_visible_limit(*limit);
        match replica.checkpoint() {
            Ok(_) => done.1 = done.1.max(visible.partition_point(|at| *at <= applied.min(*limit)) as u64 - 1),
            Err(Error::Unacknowledged { .. }) => {}
            Err(error) => return Err(error),
        }
        assert!(replica.shipping().visible() <= *limit, "{n}");
    }
    replica.close()
}

/// The replica's disk failed in whatever way: what it said is durable is there, and what comes again completes it.
fn check_survivor(primary: &Db, copy: &Arc<SimDisk>, made: u64, done: (Lsn, u64), what: &str) {
    let replica = open_replica(copy).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(shown(&replica, what) >= done.1, "{what}: a checkpoint is lost");
    assert!(replica.shipping().applied() >= done.0, "{what}: something durable is lost");
    follow(primary, &replica);
    assert_eq!(shown(&replica, what), made, "{what}");
    assert_eq!(replica.verify(|_| {}).unwrap().problems, Vec::<String>::new(), "{what}");
    replica.shipping().promote(1).unwrap_or_else(|error| panic!("{what}: {error}"));
    commit(&replica, made + 1).unwrap();
    assert_eq!(shown(&replica, what), made + 1, "{what}");
}

#[test]
fn a_replica_that_stops_at_any_call_goes_on_from_there() {
    let (primary, visible, empty) = pair(24);
    for kind in ["power", "error"] {
        let mut has_failed = 0;
        for call in 1.. {
            let copy = empty.crash_copy();
            let fault = if kind == "power" { Fault::power_cut() } else { Fault::eio(Op::Any) };
            copy.fail(fault.at_call(call));
            let mut done = (Lsn::ZERO, 0);
            let before = copy.calls();
            let chased = chase(&primary, &copy, &visible, &mut done);
            has_failed += u32::from(chased.is_err());
            let is_over = copy.calls() < before + call;
            let copy = if kind == "power" { copy.crash() } else { copy };
            copy.clear_faults();
            check_survivor(&primary, &copy, 24, done, &format!("{kind}, call {call}"));
            if is_over {
                chased.unwrap();
                break;
            }
        }
        assert!(has_failed > 30, "{kind}: {has_failed}");
    }
}

#[test]
fn a_replica_that_shows_what_is_not_shown_is_noticed() {
    assert!((0..20).any(|seed| run(seed, Some(Mutation::ShowUnshipped)).is_err()));
}

#[test]
fn prepared_transactions_are_rows_like_others() {
    let (primary, _, copy) = pair(5);
    let rows = primary.open_keyspace("rows").unwrap().unwrap();
    let mut tx = primary.begin();
    tx.insert(&rows, "held", "1").unwrap();
    tx.prepare(Xid::new(1, "a", "b").unwrap()).unwrap();
    let replica = open_replica(&copy).unwrap();
    follow(&primary, &replica);
    assert!(!contents(&replica)["rows"].contains_key(&b"held"[..]));
    primary.prepared().next().unwrap().commit().unwrap();
    follow(&primary, &replica);
    assert!(contents(&replica)["rows"].contains_key(&b"held"[..]));
    assert!(replica.verify(|_| {}).unwrap().problems.is_empty());
}
