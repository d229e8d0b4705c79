//! The bank: 1,000 accounts in each of two keyspaces, and a ledger that says what every balance must be.
//!
//! A transfer is one transaction: it reads an account of each keyspace, changes both, and adds a row to the ledger,
//! keyed by (writer, sequence), that holds both changes. Each writer's sequence numbers have no gaps, and a writer
//! begins a transfer only after the one before was acknowledged *and reported*. So after a kill:
//!
//! - *nothing lost*: the ledger holds every (writer, sequence) that was reported;
//! - *nothing more than was tried*: at most one more of each writer, the one under way;
//! - *nothing half done*: every balance is what it began with plus the ledger's changes to it;
//! - *the total is unchanged*.

use crate::command::Outcome;
use crate::command::measure::random::Random;
use seawall::{Db, Keyspace, Readable, Transaction, WriteBatch};
use std::collections::BTreeMap;
use std::fmt;

const ACCOUNTS: u32 = 1000;
const BALANCE: i64 = 1000;
const SIDES: [&str; 2] = ["checking", "savings"];
const LEDGER: &str = "ledger";

/// Gives every account its first balance, all in one transaction.
pub(super) fn open_accounts(db: &Db) -> Outcome {
    db.keyspace(LEDGER)?;
    let mut batch = WriteBatch::new();
    for name in SIDES {
        let side = db.keyspace(name)?;
        for account in 0..ACCOUNTS {
            batch.insert(&side, account.to_be_bytes(), BALANCE.to_le_bytes());
        }
    }
    db.write(batch)?;
    Ok(())
}

/// The open bank, for writers.
#[derive(Clone)]
pub(super) struct Bank {
    sides: [Keyspace; 2],
    ledger: Keyspace,
}

impl Bank {
    pub(super) fn open(db: &Db) -> Outcome<Bank> {
        let [checking, savings] = SIDES;
        Ok(Bank { sides: [db.keyspace(checking)?, db.keyspace(savings)?], ledger: db.keyspace(LEDGER)? })
    }

    /// The last sequence number of a writer in the ledger; 0 if there is none.
    pub(super) fn last_sequence(&self, writer: u32) -> Outcome<u64> {
        let last = self.ledger.range(ledger_key(writer, 0)..=ledger_key(writer, u64::MAX)).next_back();
        Ok(last.transpose()?.and_then(|(key, _)| parse_ledger_key(&key)).map_or(0, |(_, sequence)| sequence))
    }

    /// Moves a random amount between an account of each keyspace, within the caller's transaction.
    pub(super) fn transfer(
        &self,
        transaction: &mut Transaction,
        random: &mut Random,
        writer: u32,
        sequence: u64,
    ) -> seawall::Result<()> {
        let accounts = [(); 2].map(|()| random.below(u64::from(ACCOUNTS)) as u32);
        let mut balances = [0i64; 2];
        for ((balance, side), account) in balances.iter_mut().zip(&self.sides).zip(accounts) {
            let stored = transaction.get(side, account.to_be_bytes())?;
            *balance = stored.as_deref().and_then(parse_balance).unwrap_or_default();
        }
        let amount = 1 + random.below(100) as i64;
        // Nobody is overdrawn; a transfer of nothing is a transfer all the same.
        let [checking, savings] = balances;
        let delta = if random.below(2) == 0 { -amount.min(checking) } else { amount.min(savings) };
        let changes =
            [Change { account: accounts[0], delta }, Change { account: accounts[1], delta: -delta }];
        for ((side, change), balance) in self.sides.iter().zip(&changes).zip(balances) {
            let balance = balance + change.delta;
            transaction.insert(side, change.account.to_be_bytes(), balance.to_le_bytes())?;
        }
        transaction.insert(&self.ledger, ledger_key(writer, sequence), encode_changes(&changes))
    }
}

/// What a transfer did to one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    account: u32,
    delta: i64,
}

fn ledger_key(writer: u32, sequence: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&writer.to_be_bytes());
    key[4..].copy_from_slice(&sequence.to_be_bytes());
    key
}

fn parse_ledger_key(key: &[u8]) -> Option<(u32, u64)> {
    let (writer, sequence) = key.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*writer), u64::from_be_bytes(sequence.try_into().ok()?)))
}

fn encode_changes(changes: &[Change; 2]) -> Vec<u8> {
    changes
        .iter()
        .flat_map(|change| [&change.account.to_le_bytes()[..], &change.delta.to_le_bytes()].concat())
        .collect()
}

fn parse_changes(bytes: &[u8]) -> Option<[Change; 2]> {
    let one = |bytes: &[u8]| {
        let (account, delta) = bytes.split_first_chunk::<4>()?;
        Some(Change {
            account: u32::from_le_bytes(*account),
            delta: i64::from_le_bytes(delta.try_into().ok()?),
        })
    };
    Some([one(bytes.get(..12)?)?, one(bytes.get(12..)?)?])
}

fn parse_balance(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.try_into().ok()?))
}

/// A transfer that the child reported as committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    pub(super) writer: u32,
    pub(super) sequence: u64,
    pub(super) commit_us: u32,
}

/// What was acknowledged so far: the last sequence number of each writer, over all runs.
#[derive(Debug)]
pub(super) struct History {
    acknowledged: Vec<u64>,
}

impl History {
    pub(super) fn new(writers: u32) -> History {
        History { acknowledged: vec![0; writers as usize] }
    }

    pub(super) fn writers(&self) -> u32 {
        self.acknowledged.len() as u32
    }

    /// Compares the store with what a run reported. What the store kept beyond it counts as acknowledged from then
    /// on: a later loss of it would be a loss.
    pub(super) fn check(&mut self, db: &Db, run: &[Acknowledged]) -> Outcome<Check> {
        for report in run {
            if let Some(last) = self.acknowledged.get_mut(report.writer as usize) {
                *last = report.sequence.max(*last);
            }
        }
        let bank = Bank::open(db)?;
        let mut check = Check::default();
        let mut found = vec![0u64; self.acknowledged.len()];
        let mut counts = vec![0u64; self.acknowledged.len()];
        let mut changes = [BTreeMap::<u32, i64>::new(), BTreeMap::new()];
        for row in bank.ledger.range(..) {
            let (key, value) = row?;
            let parsed = parse_ledger_key(&key).zip(parse_changes(&value));
            let known = parsed.and_then(|((writer, sequence), change)| {
                Some((found.get_mut(writer as usize)?, counts.get_mut(writer as usize)?, sequence, change))
            });
            let Some((last, count, sequence, row_changes)) = known else {
                check.half_applied += 1;
                continue;
            };
            *last = sequence.max(*last);
            *count += 1;
            for (side, change) in changes.iter_mut().zip(row_changes) {
                *side.entry(change.account).or_default() += change.delta;
            }
        }
        for ((acknowledged, found), count) in self.acknowledged.iter_mut().zip(found).zip(counts) {
            // Keys are unique, so a ledger of `count` rows up to `found` has `found - count` gaps.
            let gaps = found.saturating_sub(count);
            check.lost += gaps + acknowledged.saturating_sub(found);
            let kept = found.saturating_sub(*acknowledged);
            check.kept_unacknowledged += kept.min(1);
            check.never_tried += kept.saturating_sub(1);
            *acknowledged = found.max(*acknowledged);
        }
        check.balances(&bank, &changes)?;
        Ok(check)
    }
}

/// What a check of the store found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Check {
    /// Acknowledged and not there.
    pub(super) lost: u64,
    /// Accounts whose balance is not what the ledger says, and ledger rows that make no sense.
    pub(super) half_applied: u64,
    /// There, though nobody tried it.
    pub(super) never_tried: u64,
    /// There and not acknowledged: under way at the kill. Fine.
    pub(super) kept_unacknowledged: u64,
    /// The sum of all balances is what it was.
    pub(super) total_unchanged: bool,
}

impl Check {
    fn balances(&mut self, bank: &Bank, changes: &[BTreeMap<u32, i64>; 2]) -> Outcome {
        let mut total = 0;
        for (side, changes) in bank.sides.iter().zip(changes) {
            let mut accounts = 0;
            for row in side.range(..) {
                let (key, value) = row?;
                let account = key.as_ref().try_into().map(u32::from_be_bytes).ok();
                let balance = parse_balance(&value).unwrap_or_default();
                let expected = account.map(|account| BALANCE + changes.get(&account).copied().unwrap_or(0));
                self.half_applied += u64::from(expected != Some(balance));
                total += balance;
                accounts += 1;
            }
            self.half_applied += u64::from(ACCOUNTS.abs_diff(accounts));
        }
        self.total_unchanged = total == 2 * i64::from(ACCOUNTS) * BALANCE;
        Ok(())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lost, {} half applied, total ", self.lost, self.half_applied)?;
        f.write_str(if self.total_unchanged { "unchanged" } else { "CHANGED" })?;
        if self.never_tried > 0 {
            write!(f, ", {} that nobody tried", self.never_tried)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WRITERS: u32 = 2;
    const TRANSFERS: u64 = 20;

    /// A bank after some transfers, all reported, damaged by `damage`, as the check sees it.
    fn check_after(name: &str, damage: impl Fn(&Bank)) -> Check {
        let dir = std::env::temp_dir().join(format!("seawall-bank-{}-{name}", std::process::id()));
        let db = Db::open(&dir).unwrap();
        open_accounts(&db).unwrap();
        let bank = Bank::open(&db).unwrap();
        let mut random = Random::new();
        let mut reports = Vec::new();
        for sequence in 1..=TRANSFERS {
            for writer in 0..WRITERS {
                db.transact(|transaction| bank.transfer(transaction, &mut random, writer, sequence)).unwrap();
                reports.push(Acknowledged { writer, sequence, commit_us: 1 });
            }
        }
        assert_eq!(bank.last_sequence(1).unwrap(), TRANSFERS);
        damage(&bank);
        let check = History::new(WRITERS).check(&db, &reports).unwrap();
        db.close().unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        check
    }

    fn faults(check: Check) -> (u64, bool, u64, bool) {
        (check.lost, check.half_applied > 0, check.never_tried, check.total_unchanged)
    }

    #[test]
    fn a_bank_that_kept_everything_passes() {
        assert_eq!(faults(check_after("whole", |_| {})), (0, false, 0, true));
        let one_under_way = |bank: &Bank| {
            let changes = [Change { account: 1, delta: 0 }, Change { account: 2, delta: 0 }];
            bank.ledger.insert(ledger_key(0, TRANSFERS + 1), encode_changes(&changes)).unwrap();
        };
        let check = check_after("under-way", one_under_way);
        assert_eq!((faults(check), check.kept_unacknowledged), ((0, false, 0, true), 1));
    }

    #[test]
    fn every_kind_of_loss_is_seen() {
        let nothing = [Change { account: 1, delta: 0 }, Change { account: 2, delta: 0 }];
        let remove = |writer, sequence| {
            move |bank: &Bank| {
                bank.ledger.remove(ledger_key(writer, sequence)).unwrap();
            }
        };
        assert_eq!(check_after("tail", remove(1, TRANSFERS)).lost, 1);
        assert_eq!(check_after("gap", remove(0, 7)).lost, 1);
        let all = check_after("all", |bank| (1..=TRANSFERS).for_each(|sequence| remove(0, sequence)(bank)));
        assert_eq!(all.lost, TRANSFERS);
        let invented = check_after("invented", |bank| {
            for sequence in TRANSFERS + 1..=TRANSFERS + 3 {
                bank.ledger.insert(ledger_key(0, sequence), encode_changes(&nothing)).unwrap();
            }
        });
        assert_eq!(invented.never_tried, 2);
    }

    #[test]
    fn every_kind_of_half_transfer_is_seen() {
        let set = |side: usize, balance: i64| {
            move |bank: &Bank| {
                let account = 3u32.to_be_bytes();
                bank.sides[side].insert(account, balance.to_le_bytes()).unwrap();
            }
        };
        assert_eq!(faults(check_after("balance", set(0, 7_777))), (0, true, 0, false));
        let both = check_after("both", |bank| {
            let [old] = [bank.sides[0].get(3u32.to_be_bytes()).unwrap().as_deref().and_then(parse_balance)];
            let other = bank.sides[1].get(3u32.to_be_bytes()).unwrap().as_deref().and_then(parse_balance);
            set(0, old.unwrap() + 5)(bank);
            set(1, other.unwrap() - 5)(bank);
        });
        assert_eq!(faults(both), (0, true, 0, true));
        let gone = check_after("gone", |bank| {
            bank.sides[1].remove(9u32.to_be_bytes()).unwrap();
        });
        assert_eq!(faults(gone), (0, true, 0, false));
    }
}
