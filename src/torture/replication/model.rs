//! What clients have done, in the order of the log, and what stores may therefore show.

use super::Violation;
use super::node::Node;
use seawall_engine::{Keyspace, Lsn, Readable, Ticket};
use std::collections::{BTreeMap, BTreeSet};

/// A commit that has its place.
pub(super) struct Commit {
    pub(super) number: u64,
    pub(super) lsn: Lsn,
    /// Whether replicas are to have it before it counts.
    pub(super) is_replicated: bool,
    pub(super) ticket: Option<Ticket>,
    pub(super) is_acked: bool,
    /// By whom it was shown to readers.
    pub(super) shown_by: BTreeSet<u64>,
}

/// All commits of the log as it is now, in its order.
#[derive(Default)]
pub(super) struct Model {
    pub(super) commits: Vec<Commit>,
    pub(super) next: u64,
    /// Commits that were taken back: no store of this line may have them.
    pub(super) gone: BTreeSet<u64>,
    /// Prepared, and no outcome yet: the name, and below which position the vote stands.
    pub(super) prepared: BTreeMap<u64, Lsn>,
}

/// The rows of one commit: two, so that half of one is seen.
pub(super) fn marks(number: u64) -> [String; 2] {
    [format!("a/{number:04}"), format!("z/{number:04}")]
}

impl Model {
    /// The log goes on from a place; what stood behind it is taken back. Says whether that was allowed.
    pub(super) fn fork(&mut self, at: Lsn) -> Result<u64, Violation> {
        let behind = self.commits.partition_point(|commit| commit.lsn < at);
        let mut lost = 0;
        for commit in self.commits.drain(behind..) {
            if commit.is_acked {
                return Err(format!(
                    "commit {} at {} was acknowledged, and is lost",
                    commit.number, commit.lsn
                ));
            }
            if let Some(by) = commit.shown_by.first().filter(|_| commit.is_replicated) {
                return Err(format!(
                    "commit {} at {} was shown by n{by}, and is taken back",
                    commit.number, commit.lsn
                ));
            }
            self.gone.insert(commit.number);
            lost += 1;
        }
        self.prepared.retain(|_, lsn| *lsn <= at);
        Ok(lost)
    }

    /// Takes in what tickets say.
    pub(super) fn poll(&mut self) {
        for commit in &mut self.commits {
            let Some(ticket) = commit.ticket.take() else { continue };
            match ticket.wait_timeout(std::time::Duration::ZERO) {
                Ok(Some(_)) => commit.is_acked = commit.is_replicated,
                Ok(None) => commit.ticket = Some(ticket),
                // Not known: it may be there or not.
                Err(_) => {}
            }
        }
    }

    pub(super) fn forget_tickets(&mut self) {
        self.commits.iter_mut().for_each(|commit| commit.ticket = None);
    }

    /// A store of this line shows the first so many commits, and all of each.
    pub(super) fn look(&mut self, node: &Node, rows: &Keyspace) -> Result<(), Violation> {
        let Some(up) = node.up.as_ref() else { return Ok(()) };
        let snapshot = up.db.snapshot();
        let id = node.id;
        let (at, mut found) = (snapshot.lsn(), [BTreeSet::new(), BTreeSet::new()]);
        for (place, prefix) in ["a/", "z/"].into_iter().enumerate() {
            for row in snapshot.prefix(rows, prefix) {
                // The disk has failed: it shows nothing.
                let Ok((key, _)) = row else { return Ok(()) };
                let number = std::str::from_utf8(&key[2..]).ok().and_then(|text| text.parse().ok());
                let Some(number) = number else { return Err(format!("n{id} has a row of nobody")) };
                if let Some(found) = found.get_mut(place) {
                    found.insert(number);
                }
            }
        }
        let [a, z] = found;
        if a != z {
            return Err(format!("n{id} shows half of {:?}", a.symmetric_difference(&z).collect::<Vec<_>>()));
        }
        let expected: BTreeSet<u64> =
            self.commits.iter().filter(|commit| commit.lsn < at).map(|commit| commit.number).collect();
        if a != expected {
            let wrong: Vec<_> = a.symmetric_difference(&expected).collect();
            return Err(format!("n{id} at {at} shows {} commits of {}: {wrong:?}", a.len(), expected.len()));
        }
        let count = match snapshot.get(rows, "count") {
            Ok(row) => row.and_then(|row| row.as_ref().try_into().ok()).map_or(0, i64::from_le_bytes),
            Err(_) => return Ok(()),
        };
        if count != expected.len() as i64 {
            return Err(format!("n{id} counts {count} commits of {}", expected.len()));
        }
        for commit in self.commits.iter_mut().filter(|commit| commit.lsn < at) {
            commit.shown_by.insert(id);
        }
        Ok(())
    }
}
