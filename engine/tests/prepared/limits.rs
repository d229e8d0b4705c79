//! Limits on what is prepared, who is told, and verbs that are handed over.

use super::*;

struct Heard(Mutex<Vec<(Xid, Duration)>>);

impl EventListener for Heard {
    fn event(&self, event: &Event) {
        if let Event::PreparedOld { xid, age } = event {
            self.0.lock().unwrap().push((xid.clone(), *age));
        }
    }
}

#[test]
fn limits_on_number_and_age() {
    let disk = SimDisk::new(3);
    let runtime = SimRuntime::new(3);
    let heard = Arc::new(Heard(Mutex::default()));
    let open = || {
        let builder = builder(&disk).runtime(runtime.clone()).events(heard.clone());
        builder.prepared_max(2).prepared_age_max(Duration::from_secs(60)).open().unwrap()
    };
    let db = open();
    let ks = db.keyspace("rows").unwrap();
    let held: Vec<_> = (0..2).map(|i| prepare(&db, &format!("{i}"), |tx| tx.insert(&ks, [i], "1"))).collect();
    let mut tx = db.begin();
    tx.insert(&ks, "c", "1").unwrap();
    assert!(matches!(tx.prepare(xid("third")), Err(Error::TooLarge { len: 3, max: 2, .. })));
    db.checkpoint().unwrap();
    assert!(heard.0.lock().unwrap().is_empty());
    runtime.advance(Duration::from_secs(61));
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    let told = heard.0.lock().unwrap().clone();
    assert_eq!(
        told.iter().map(|(xid, _)| xid).collect::<Vec<_>>(),
        held.iter().map(Prepared::xid).collect::<Vec<_>>()
    );
    assert!(told.iter().all(|(_, age)| *age >= Duration::from_secs(61)));
    drop((db, ks, held));
    assert!(open().prepared().all(|prepared| prepared.age() >= Duration::from_secs(61)));
}

/// Handed over and awaited later; a commit that was not forced may be taken back into doubt by a crash, and is forced by who
/// asks for it once more.
#[test]
fn what_is_handed_over_counts_when_it_is_durable() {
    let (disk, db, ks) = store();
    db.sync().unwrap();
    let mut tx = db.begin();
    tx.insert(&ks, "a", "1").unwrap();
    let (prepared, ticket) = tx.prepare_pipelined(xid("t")).unwrap();
    let prepared = vote(Ok(prepared));
    ticket.wait().unwrap();
    let syncs = db.stats().syncs;
    let lsn = prepared.commit_pipelined(seawall_wal::Durability::Memory).unwrap().wait().unwrap();
    assert_eq!(
        (get(&ks, "a"), db.stats().syncs),
        (Some(b"1".to_vec()), syncs),
        "visible, and nothing forced"
    );
    let back = open(&barely(&disk));
    assert_eq!(back.prepared().count(), 1, "a crash takes it back into doubt");
    drop(back);
    assert_eq!(prepared.commit().unwrap(), lsn);
    assert_eq!(db.stats().syncs, syncs + 1, "forced now");
    let back = open(&barely(&disk));
    assert_eq!(back.prepared().count(), 0);
    assert!(get(&back.keyspace("rows").unwrap(), "a").is_some());
    // Nothing to write, nothing to wait for; and the other outcome.
    assert!(matches!(db.begin().prepare_pipelined(xid("r")).unwrap(), (Vote::ReadOnly(_), _)));
    let prepared = prepare(&db, "u", |tx| tx.remove(&ks, "a"));
    prepared.rollback_pipelined().unwrap().wait().unwrap();
    assert!(matches!(
        prepared.commit_pipelined(seawall_wal::Durability::Synced),
        Err(Error::XidFinished { is_committed: false, .. })
    ));
}

/// Whoever comes late, by a handle from before, hears how an operator had ended it, not that it was rolled back.
#[test]
fn a_forgotten_outcome_is_not_denied() {
    for outcome in [Heuristic::Committed, Heuristic::RolledBack, Heuristic::Hazard] {
        let disk = SimDisk::new(5);
        let db = builder(&disk).open().unwrap();
        let ks = db.keyspace("rows").unwrap();
        let branch = prepare(&db, "1", |tx| tx.insert(&ks, "a", "1"));
        branch.complete(outcome).unwrap();
        branch.forget().unwrap();
        branch.forget().unwrap();
        let (committed, rolled_back) = (branch.commit().map(drop), branch.rollback().map(drop));
        let is_said = |result: &Result<()>| matches!(result, Err(Error::Heuristic { outcome: told, .. }) if *told == outcome);
        assert!(
            is_said(&committed) != (outcome == Heuristic::Committed && committed.is_ok()),
            "{committed:?}"
        );
        assert!(
            is_said(&rolled_back) != (outcome == Heuristic::RolledBack && rolled_back.is_ok()),
            "{rolled_back:?}"
        );
        assert_eq!(ks.get("a").unwrap().is_some(), outcome == Heuristic::Committed);
    }
}
