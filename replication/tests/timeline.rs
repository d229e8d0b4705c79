//! Histories against a model that has the logs themselves: who wrote each byte.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use seawall_replication::timeline::{History, NoHistory, Relation, Tail, Turn};
use seawall_wal::Lsn;
use seawall_wal::runtime::Rng;

fn turns(turns: &[(u64, u64)]) -> Vec<Turn> {
    turns.iter().map(|&(epoch, start)| Turn { epoch, start: Lsn(start) }).collect()
}

#[test]
fn what_is_no_history_is_refused() {
    assert_eq!(History::new(vec![]), Ok(History::default()));
    assert_eq!(History::new(turns(&[(0, 0)])), Err(NoHistory::Order));
    assert_eq!(History::new(turns(&[(2, 0), (2, 5)])), Err(NoHistory::Order));
    assert_eq!(History::new(turns(&[(1, 9), (2, 5)])), Err(NoHistory::Order));
    let many =
        |count: u64| History::new((1..=count).map(|epoch| Turn { epoch, start: Lsn(epoch) }).collect());
    assert!(many(64).is_ok());
    assert_eq!(many(65), Err(NoHistory::TooMany));
    let full = many(64).unwrap();
    let next = full.promoted(70, Lsn(64)).unwrap();
    assert_eq!((next.turns().len(), next.turns()[0].epoch, next.epoch()), (64, 2, 70));
    assert_eq!(full.promoted(64, Lsn(99)), Err(NoHistory::Order));
    assert_eq!(next.epoch_at(Lsn(5)), Some(5));
    assert_eq!(next.epoch_at(Lsn(1)), None);
}

/// A log of one byte a place: which epoch wrote it. Epochs are never begun twice.
#[derive(Clone, Debug)]
struct Log {
    bytes: Vec<u64>,
    history: History,
}

impl Log {
    fn tail(&self) -> Tail {
        let place = Lsn(self.bytes.len() as u64);
        Tail { epoch: self.bytes.last().copied().unwrap_or(0), place, whole_end: place, checksum: 0 }
    }

    fn shared(&self, other: &Log) -> u64 {
        self.bytes.iter().zip(&other.bytes).take_while(|(a, b)| a == b).count() as u64
    }
}

#[test]
fn a_fork_is_where_the_bytes_differ() {
    let (mut prefixes, mut forks) = (0, 0);
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let mut logs = vec![Log { bytes: vec![0; 1 + rng.below(20) as usize], history: History::default() }];
        let mut epoch = 0;
        for _ in 0..8 {
            let of = rng.below(logs.len() as u64) as usize;
            let mut log = logs[of].clone();
            // A replica that is behind its primary, and knows its epochs.
            let kept = rng.below(log.bytes.len() as u64 + 1) as usize;
            log.bytes.truncate(kept);
            if rng.chance(2, 3) {
                epoch += 1 + rng.below(3);
                let at = log.tail().place;
                log.history = log.history.known(log.tail()).promoted(epoch, at).unwrap();
                let more = rng.below(20) as usize;
                log.bytes.extend(std::iter::repeat_n(epoch, more));
            }
            logs.push(log);
        }
        for primary in &logs {
            for replica in &logs {
                let shared = primary.shared(replica);
                // The primary may still write what the replica has not: only what a history rules out is a fork.
                let found = primary.history.relation(&replica.history, replica.tail());
                match found {
                    Relation::Prefix => {
                        prefixes += 1;
                        let end = primary.bytes.len().min(replica.bytes.len()) as u64;
                        assert_eq!(shared, end, "seed {seed}: {primary:?} {replica:?}");
                    }
                    Relation::Forked { at } => {
                        forks += 1;
                        assert!(at.0 < replica.tail().place.0);
                        let ours = primary.bytes.len() as u64;
                        assert!(
                            at.0 == shared || at.0 >= ours && shared == ours,
                            "seed {seed}: {at}, {primary:?} {replica:?}"
                        );
                    }
                    Relation::Unrelated => panic!("seed {seed}: they have epoch 0 in common"),
                }
                // Having gone back, it is a prefix.
                if let Relation::Forked { at } = found {
                    let mut back = replica.clone();
                    back.bytes.truncate(at.0 as usize);
                    let again = primary.history.relation(&back.history, back.tail());
                    assert_eq!(again, Relation::Prefix, "seed {seed}: {primary:?} {back:?}");
                }
            }
        }
    }
    assert!(prefixes > 1000 && forks > 1000, "{prefixes} {forks}");
}

#[test]
fn of_two_histories_of_one_log_the_later_one_is_kept() {
    let old = History::new(turns(&[(1, 0), (2, 50)])).unwrap();
    let new = old.promoted(5, Lsn(80)).unwrap();
    assert_eq!(old.merge(&new), Ok(new.clone()));
    assert_eq!(new.merge(&old), Ok(new.clone()));
    let other = old.promoted(4, Lsn(60)).unwrap();
    assert_eq!(new.merge(&other), Err(NoHistory::Order), "two branches");
    assert_eq!(History::default().merge(&new), Ok(new));
}

#[test]
fn what_was_forgotten_is_not_guessed() {
    let many = |from: u64, to: u64| {
        History::new((from..=to).map(|e| Turn { epoch: e, start: Lsn(e * 10) }).collect())
    };
    let (full, old) = (many(7, 70).unwrap(), History::default());
    let tail = |epoch, place| Tail { epoch, place: Lsn(place), whole_end: Lsn(place), checksum: 0 };
    assert_eq!(full.relation(&old, tail(0, 5)), Relation::Unrelated);
    assert_eq!(full.relation(&many(3, 20).unwrap(), tail(20, 205)), Relation::Prefix);
    assert_eq!(full.relation(&many(3, 20).unwrap(), tail(20, 215)), Relation::Forked { at: Lsn(210) });
    // One that has forgotten its beginning gets it back, as far as there is room.
    let longer = many(10, 71).unwrap();
    assert_eq!(longer.merge(&many(1, 20).unwrap()).unwrap().turns().len(), 64);
}

/// The log's own arithmetic, in its anchor's terms, says the same.
#[test]
fn the_log_agrees() {
    for seed in 0..2000 {
        let mut rng = Rng::new(seed);
        let mut history = |from: u64| {
            let (mut epoch, mut start) = (0, 0);
            let mut found = Vec::new();
            for _ in 0..rng.below(5) {
                epoch += 1 + rng.below(2);
                start += rng.below(3) * 10;
                found.push(Turn { epoch, start: Lsn(from + start) });
            }
            History::new(found).unwrap()
        };
        let (ours, theirs) = (history(10), history(10));
        let place = theirs.begins().0 + 1 + seed % 60;
        let tail = Tail { epoch: theirs.epoch(), place: Lsn(place), whole_end: Lsn(place), checksum: 0 };
        let found = match ours.relation(&theirs, tail) {
            Relation::Prefix => None,
            Relation::Forked { at } => Some(at),
            Relation::Unrelated => panic!("seed {seed}"),
        };
        let log = seawall_wal::History::from(&ours);
        let said = log.fork(&seawall_wal::History::from(&theirs), tail.epoch, tail.place);
        assert_eq!(found, said, "seed {seed}: {ours:?} {theirs:?} {tail:?}");
        assert_eq!(History::from(&log), ours);
    }
}
