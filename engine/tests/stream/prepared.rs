//! Streamed values of prepared transactions: theirs while they are in doubt, whatever is written, folded and crashes
//! meanwhile; a tree's after a commit; free after a rollback.

use super::{MIN, all, builder, bytes, is_sound, put};
use seawall_engine::mutation::Mutation;
use seawall_engine::{Db, DbBuilder, Error, Heuristic, Keyspace, Prepared, Readable, Result, Vote, Xid};
use seawall_wal::SimDisk;
use seawall_wal::disk::sim::{Fault, Op};
use std::sync::Arc;

fn xid(n: u64) -> Xid {
    Xid::new(1, n.to_string(), "stream").unwrap()
}

/// In one piece, in several, and too short to be streamed.
fn value_of(n: u64) -> Vec<u8> {
    bytes(n, [3 * MIN + 7, MIN, 100, 5 * MIN + 1][n as usize % 4])
}

fn prepare(db: &Db, ks: &Keyspace, n: u64) -> Result<Prepared> {
    let mut tx = db.begin();
    let value = value_of(n);
    tx.insert_from(ks, n.to_string(), value.len() as u64, &value[..])?;
    match tx.prepare(xid(n))? {
        Vote::Prepared(prepared) => Ok(prepared),
        Vote::ReadOnly(_) => panic!("it writes"),
    }
}

fn again(db: &Db, n: u64) -> Prepared {
    db.prepared_by(&xid(n)).unwrap().expect("it is in doubt")
}

/// What would take the place of extents that nobody has.
fn churn(db: &Db, ks: &Keyspace, rounds: u64) {
    for n in 0..rounds {
        put(db, ks, "churn", &bytes(100 + n, 7 * MIN));
        db.checkpoint().unwrap();
        is_sound(db);
    }
}

fn used(disk: &Arc<SimDisk>, db: &Db) -> u64 {
    disk.read_file("/dir/store/data").unwrap().len() as u64 - db.stats().free_bytes
}

#[test]
fn what_is_in_doubt_outlives_checkpoints_and_crashes_and_is_committed_whole() {
    let mut disk = SimDisk::new(1);
    let db = builder(&disk).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    for n in 0..4 {
        drop(prepare(&db, &ks, n).unwrap());
        assert!(db.snapshot().open_value(&ks, n.to_string()).unwrap().is_none(), "nobody sees it yet");
    }
    // In the log, then in the tree, then in the log of an earlier tree.
    for rounds in [0, 3, 1] {
        churn(&db, &ks, rounds);
        let copy = disk.crash_copy();
        for replay_bytes in [None, Some(4096)] {
            let copy = copy.crash_copy();
            let db = builder(&copy).replay_bytes(replay_bytes).open().unwrap();
            let ks = db.keyspace("a").unwrap();
            churn(&db, &ks, 4);
            for n in 0..4 {
                again(&db, n).commit().unwrap();
                assert!(all(db.snapshot().open_value(&ks, n.to_string()).unwrap().unwrap()) == value_of(n));
            }
            churn(&db, &ks, 3);
            drop((ks, db));
            let db = builder(&copy.crash()).open().unwrap();
            let ks = db.keyspace("a").unwrap();
            for n in 0..4 {
                assert!(db.snapshot().get(&ks, n.to_string()).unwrap().unwrap()[..] == value_of(n)[..]);
            }
            is_sound(&db);
        }
    }
    drop((ks, db));
    disk = disk.crash();
    let db = builder(&disk).open().unwrap();
    assert_eq!(db.prepared().count(), 4);
}

#[test]
fn what_is_rolled_back_is_free_again_and_what_an_operator_ends_too() {
    type End = fn(&Prepared) -> Result<()>;
    let ends: [End; 4] = [
        |prepared| prepared.rollback().map(drop),
        |prepared| prepared.rollback_pipelined()?.wait().map(drop),
        |prepared| {
            prepared.complete(Heuristic::RolledBack)?;
            prepared.forget()
        },
        |prepared| prepared.complete(Heuristic::Hazard).map(drop),
    ];
    for (i, end) in ends.into_iter().enumerate() {
        for crashes in [0, 1, 2] {
            let mut disk = SimDisk::new(2);
            let mut db = builder(&disk).open().unwrap();
            let mut ks = db.keyspace("a").unwrap();
            churn(&db, &ks, 2);
            let before = used(&disk, &db);
            let mut prepared = prepare(&db, &ks, 3).unwrap();
            churn(&db, &ks, 1);
            for crash in 0..crashes {
                drop((ks, db, prepared));
                disk = disk.crash();
                db = builder(&disk).open().unwrap();
                ks = db.keyspace("a").unwrap();
                churn(&db, &ks, crash);
                prepared = again(&db, 3);
            }
            assert!(used(&disk, &db) >= before + 5 * MIN as u64, "it is kept");
            end(&prepared).unwrap();
            db.sync().unwrap();
            // A recovery that meets the end in the log.
            let copy = disk.crash_copy();
            for (disk, db) in [(&disk, db.clone()), (&copy, builder(&copy).open().unwrap())] {
                let ks = db.keyspace("a").unwrap();
                assert!(
                    db.prepared_by(&xid(3)).unwrap().is_none_or(|prepared| prepared.heuristic().is_some())
                );
                churn(&db, &ks, 3);
                assert!(db.snapshot().open_value(&ks, "3").unwrap().is_none());
                let now = used(disk, &db);
                assert!(
                    now < before + 2 * MIN as u64,
                    "end {i}, {crashes} crashes: {before} before, {now} now"
                );
            }
        }
    }
}

/// A vote that is refused leaves nothing behind.
#[test]
fn a_vote_that_is_refused_gives_its_extents_back() {
    let disk = SimDisk::new(3);
    let db = builder(&disk).open().unwrap();
    let ks = db.keyspace("a").unwrap();
    churn(&db, &ks, 2);
    let before = used(&disk, &db);
    let mut tx = db.begin();
    tx.insert_from(&ks, "churn", 5 * MIN as u64, &bytes(1, 5 * MIN)[..]).unwrap();
    put(&db, &ks, "churn", b"short");
    assert!(tx.prepare(xid(1)).unwrap_err().is_conflict());
    assert_eq!(used(&disk, &db), before);
    is_sound(&db);
}

/// How far it came, for each transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unknown,
    Voting,
    Voted,
    Committing,
    Committed,
    RollingBack,
    RolledBack,
}

const TRANSACTIONS: u64 = 8;

/// Each second one is decided about at once, the others after a while; and much else is written and folded.
fn work(db: &Db, stages: &mut [Stage]) -> Result<()> {
    let ks = db.keyspace("a")?;
    for n in 0..TRANSACTIONS + 3 {
        if n < TRANSACTIONS {
            stages[n as usize] = Stage::Voting;
            drop(prepare(db, &ks, n)?);
            stages[n as usize] = Stage::Voted;
        }
        let mut tx = db.begin();
        let value = bytes(n + 50, 2 * MIN);
        tx.insert_from(&ks, "other", value.len() as u64, &value[..])?;
        tx.commit()?;
        for decided in [n, n.wrapping_sub(3)].into_iter().filter(|decided| *decided < TRANSACTIONS) {
            if (decided == n) != decided.is_multiple_of(2) {
                continue;
            }
            let Some(prepared) = db.prepared_by(&xid(decided))? else { panic!("{decided} is in doubt") };
            let stage = &mut stages[decided as usize];
            if decided % 4 < 2 {
                *stage = Stage::Committing;
                prepared.commit()?;
                *stage = Stage::Committed;
            } else {
                *stage = Stage::RollingBack;
                prepared.rollback()?;
                *stage = Stage::RolledBack;
            }
        }
        if n % 2 == 1 {
            db.checkpoint()?;
        }
    }
    db.sync().map(drop)
}

/// What is wrong, if anything.
fn check(open: &dyn Fn() -> DbBuilder, stages: &[Stage]) -> std::result::Result<(), String> {
    let told = |error: Error| error.to_string();
    let db = open().open().map_err(told)?;
    let ks = db.keyspace("a").map_err(told)?;
    for (n, stage) in stages.iter().enumerate() {
        let prepared = db.prepared_by(&xid(n as u64)).map_err(told)?;
        let found = db.snapshot().get(&ks, n.to_string()).map_err(told)?;
        let is_whole = found.as_deref().is_none_or(|found| *found == *value_of(n as u64));
        let is_right = match stage {
            Stage::Unknown => prepared.is_none() && found.is_none(),
            Stage::Voting => found.is_none(),
            Stage::Voted => prepared.is_some() && found.is_none(),
            Stage::Committing => prepared.is_some() != found.is_some(),
            Stage::Committed => prepared.is_none() && found.is_some(),
            // Not forced: it may have to be rolled back again.
            Stage::RollingBack | Stage::RolledBack => found.is_none(),
        };
        if !is_right || !is_whole {
            return Err(format!("{n}: {stage:?}, prepared {}, {found:?}", prepared.is_some()));
        }
    }
    // It goes on from there: what is in doubt keeps its place, and can be decided about either way.
    let churn = |rounds: u64| -> Result<()> {
        for n in 0..rounds {
            let mut tx = db.begin();
            tx.insert_from(&ks, "other", 7 * MIN as u64, &bytes(n, 7 * MIN)[..])?;
            tx.commit()?;
            db.checkpoint()?;
        }
        Ok(())
    };
    churn(3).map_err(told)?;
    let mut committed = Vec::new();
    for (n, stage) in stages.iter().enumerate() {
        if let Some(prepared) = db.prepared_by(&xid(n as u64)).map_err(told)? {
            if matches!(stage, Stage::RollingBack | Stage::RolledBack) {
                prepared.rollback().map_err(told)?;
            } else {
                prepared.commit().map_err(told)?;
                committed.push(n as u64);
            }
        }
    }
    churn(2).map_err(told)?;
    for n in committed {
        let found = db.snapshot().get(&ks, n.to_string()).map_err(told)?;
        if found.as_deref() != Some(&value_of(n)[..]) {
            return Err(format!("{n} is committed and has other bytes"));
        }
    }
    match &db.verify(|_| {}).map_err(told)?.problems[..] {
        [] => Ok(()),
        problems => Err(format!("{problems:?}")),
    }
}

fn calls() -> u64 {
    let disk = SimDisk::new(1);
    let mut stages = [Stage::Unknown; TRANSACTIONS as usize];
    work(&builder(&disk).open().unwrap(), &mut stages).unwrap();
    check(&|| builder(&disk), &stages).unwrap();
    disk.calls()
}

/// Works until the fault, then looks what survived, by way of recoveries that fold and of ones that do not.
fn survive(seed: u64, fault: Fault, mutation: Option<Mutation>) -> std::result::Result<(), String> {
    let disk = SimDisk::new(seed);
    disk.fail(fault);
    let mut stages = [Stage::Unknown; TRANSACTIONS as usize];
    let open = |disk: &Arc<SimDisk>| builder(disk).mutation(mutation);
    let worked = open(&disk).open().and_then(|db| work(&db, &mut stages));
    if let Err(error @ (Error::Corruption { .. } | Error::BadInput(_))) = worked {
        return Err(error.to_string());
    }
    disk.clear_faults();
    let survived = disk.crash();
    check(&|| open(&survived.crash_copy()), &stages)?;
    check(&|| open(&survived.crash_copy()).replay_bytes(Some(4096)), &stages)?;
    // A recovery that folds on its way, cut short.
    survived.fail(Fault::power_cut().at_call(seed % 23 + 1));
    drop(open(&survived).replay_bytes(Some(4096)).open());
    let again = survived.crash();
    check(&|| open(&again), &stages)
}

#[test]
fn a_power_cut_at_any_call_leaves_what_is_in_doubt_whole() {
    for call in 1..=calls() {
        survive(call, Fault::power_cut().at_call(call), None)
            .unwrap_or_else(|what| panic!("call {call}: {what}"));
    }
}

#[test]
fn any_call_may_fail_while_something_is_in_doubt() {
    for call in 1..=calls() {
        for (name, fault) in [("EIO", Fault::eio(Op::Any)), ("ENOSPC", Fault::full(Op::Any))] {
            survive(call, fault.at_call(call), None)
                .unwrap_or_else(|what| panic!("{name} at call {call}: {what}"));
        }
    }
}

/// Whether a mistake shows in the runs above.
pub(super) fn is_found(mutation: Mutation) -> bool {
    (1..=calls()).any(|call| survive(call, Fault::power_cut().at_call(call), Some(mutation)).is_err())
}

#[test]
fn what_is_left_out_for_what_is_prepared_is_found() {
    for mutation in [Mutation::RestoreUnreserved, Mutation::FreeStreamed, Mutation::StreamUnsynced] {
        assert!(is_found(mutation), "{mutation:?}");
    }
}
