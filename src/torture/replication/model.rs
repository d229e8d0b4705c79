//! What clients have done, in the order of the log, and what stores may therefore show.

use super::Violation;
use super::node::{Node, Up};
use seawall_engine::{Keyspace, Lsn, Readable, Ticket};
use seawall_wal::History;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A commit that has its place.
pub(super) struct Commit {
    pub(super) number: u64,
    pub(super) lsn: Lsn,
    /// The node that took it, and its epoch.
    pub(super) by: u64,
    pub(super) epoch: u64,
    /// Whether replicas are to have it before it counts.
    pub(super) is_replicated: bool,
    /// Whether it has added to the count: what was prepared has not.
    pub(super) is_counted: bool,
    pub(super) ticket: Option<Ticket>,
    pub(super) is_acked: bool,
    /// By whom it was shown to readers.
    pub(super) shown_by: BTreeSet<u64>,
    /// Whether a primary has shown it, of whatever line.
    pub(super) is_shown: bool,
}

impl Commit {
    /// It is not in the log any more, which is all right but for what was promised of it.
    fn check_given_up(&self, may_be_shown_to_nobody: bool) -> Result<(), Violation> {
        let Commit { number, lsn, .. } = self;
        if self.is_acked {
            return Err(format!("commit {number} at {lsn} was acknowledged, and is lost"));
        }
        match self.shown_by.first().filter(|_| may_be_shown_to_nobody) {
            Some(by) => Err(format!("commit {number} at {lsn} was shown by n{by}, and is taken back")),
            None => Ok(()),
        }
    }
}

/// What a promotion has left of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fork {
    pub(super) lost: u64,
    /// Not in the log before, and there now.
    pub(super) back: u64,
    /// Acknowledged, and there.
    pub(super) acked: u64,
    /// Shown by a replica, and there.
    pub(super) shown: u64,
}

/// All commits of the log as it is now, in its order.
#[derive(Default)]
pub(super) struct Model {
    pub(super) commits: Vec<Commit>,
    pub(super) next: u64,
    /// Commits that are no part of the log: of a primary that another has taken the place of. Some of their clients still
    /// wait; and a store that has them may be promoted yet.
    pub(super) foreign: Vec<Commit>,
    /// Prepared, and no outcome yet: the name, the epoch, and below which position the vote stands.
    pub(super) prepared: BTreeMap<u64, (u64, Lsn)>,
    /// The log's epochs.
    pub(super) history: History,
}

/// Whether what stands there, and was written in that epoch, is part of the log with this history.
fn is_of(history: &History, epoch: u64, lsn: Lsn) -> bool {
    let is_common = epoch == 0 || history.turns().iter().any(|turn| turn.epoch == epoch);
    is_common && history.turns().iter().find(|turn| turn.epoch > epoch).is_none_or(|turn| lsn < turn.start)
}

/// The rows of one commit: two, so that half of one is seen.
pub(super) fn marks(number: u64) -> [String; 2] {
    [format!("a/{number:04}"), format!("z/{number:04}")]
}

/// Whether its client was told that it is so.
fn is_told(ticket: &mut Option<Ticket>) -> bool {
    let Some(asked) = ticket.take() else { return false };
    match asked.wait_timeout(Duration::ZERO) {
        Ok(Some(_)) => true,
        Ok(None) => {
            *ticket = Some(asked);
            false
        }
        // Not known: it may be there or not.
        Err(_) => false,
    }
}

impl Model {
    /// Another store's log is the log from now on. What that has not is taken back: says how much there was, if that was
    /// allowed.
    pub(super) fn fork(&mut self, history: &History) -> Result<Fork, Violation> {
        self.history = *history;
        let mut fork = Fork::default();
        let all = std::mem::take(&mut self.commits).into_iter().map(|commit| (commit, true));
        let others = std::mem::take(&mut self.foreign).into_iter().map(|commit| (commit, false));
        for (commit, was_there) in all.chain(others) {
            if is_of(history, commit.epoch, commit.lsn) {
                fork.acked += u64::from(commit.is_acked);
                fork.shown += u64::from(commit.shown_by.iter().any(|by| *by != commit.by));
                fork.back += u64::from(!was_there);
                self.commits.push(commit);
                continue;
            }
            commit.check_given_up(commit.is_replicated)?;
            fork.lost += u64::from(was_there);
            self.foreign.push(commit);
        }
        self.commits.sort_by_key(|commit| commit.lsn);
        self.prepared.retain(|_, (epoch, lsn)| is_of(history, *epoch, Lsn(lsn.0.saturating_sub(1))));
        Ok(fork)
    }

    /// A primary has come back, and has this in its log: what is not there is nowhere.
    pub(super) fn recovered(
        &mut self,
        id: u64,
        is_primary: bool,
        epoch: u64,
        is_there: impl Fn(Lsn) -> bool,
    ) -> Result<u64, Violation> {
        let is_gone = |commit: &mut Commit| commit.by == id && commit.epoch == epoch && !is_there(commit.lsn);
        let mut lost = 0;
        for commit in self.commits.extract_if(.., is_gone).chain(self.foreign.extract_if(.., is_gone)) {
            commit.check_given_up(true)?;
            lost += 1;
        }
        match self.commits.last().filter(|last| is_primary && !is_there(last.lsn)) {
            Some(Commit { number, lsn, .. }) => Err(format!("n{id} has lost commit {number} at {lsn}")),
            None => Ok(lost),
        }
    }

    /// Takes in what clients are told.
    pub(super) fn poll(&mut self) -> Result<(), Violation> {
        for commit in &mut self.commits {
            commit.is_acked |= is_told(&mut commit.ticket) && commit.is_replicated;
        }
        for Commit { number, lsn, by, is_replicated, ticket, .. } in &mut self.foreign {
            if is_told(ticket) && *is_replicated {
                return Err(format!(
                    "n{by} acknowledges commit {number} at {lsn}, which the log does not have"
                ));
            }
        }
        Ok(())
    }

    /// A process is gone, and what its clients waited for with it.
    pub(super) fn forget_tickets(&mut self, of: u64) {
        let all = self.commits.iter_mut().chain(&mut self.foreign);
        all.filter(|commit| commit.by == of).for_each(|commit| commit.ticket = None);
    }

    /// The first commit that stands there or behind it.
    fn first_from(&self, lsn: Lsn) -> Lsn {
        let next = self.commits.partition_point(|commit| commit.lsn < lsn);
        self.commits.get(next).map_or(Lsn::MAX, |commit| commit.lsn)
    }

    /// A primary of this history shows everything below.
    pub(super) fn shows(&mut self, history: &History, visible: Lsn) {
        for commit in self.commits.iter_mut().chain(&mut self.foreign) {
            commit.is_shown |= commit.lsn < visible && is_of(history, commit.epoch, commit.lsn);
        }
    }

    /// Where the log's epoch begins.
    pub(super) fn begin(&self) -> Lsn {
        self.history.turns().last().map_or(Lsn::ZERO, |turn| turn.start)
    }

    /// What a replica shows a primary has shown, and it is on the replica's own device.
    pub(super) fn check_shown(&self, id: u64, up: &Up, since: Lsn) -> Result<(), Violation> {
        let (at, durable) = (up.db.snapshot().lsn(), up.shipping.wal().durable_lsn());
        let hidden =
            self.commits.iter().find(|commit| !commit.is_shown).map_or(Lsn::MAX, |commit| commit.lsn);
        if at > hidden {
            return Err(format!("n{id} at {at} shows the commit at {hidden}, which no primary has shown"));
        }
        let beyond = self.first_from(durable);
        // What it begins with came with an image, perhaps.
        if at > beyond && since > Lsn::ZERO {
            return Err(format!("n{id} at {at} shows the commit at {beyond}, and has durably {durable}"));
        }
        Ok(())
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
        let below = self.commits.partition_point(|commit| commit.lsn < at);
        let (shown, _) = self.commits.split_at_mut(below);
        let expected: BTreeSet<u64> = shown.iter().map(|commit| commit.number).collect();
        if a != expected {
            let wrong: Vec<_> = a.symmetric_difference(&expected).collect();
            return Err(format!("n{id} at {at} shows {} commits of {}: {wrong:?}", a.len(), expected.len()));
        }
        let count = match snapshot.get(rows, "count") {
            Ok(row) => row.and_then(|row| row.as_ref().try_into().ok()).map_or(0, i64::from_le_bytes),
            Err(_) => return Ok(()),
        };
        let counted = shown.iter().filter(|commit| commit.is_counted).count();
        if count != counted as i64 {
            return Err(format!("n{id} counts {count} commits of {counted}"));
        }
        for commit in shown {
            commit.shown_by.insert(id);
        }
        Ok(())
    }

    /// One that another has taken the place of shows nothing of what it alone has, but what asked for no more.
    pub(super) fn look_at_deposed(&self, node: &Node, rows: &Keyspace) -> Result<(), Violation> {
        let Some(up) = node.up.as_ref() else { return Ok(()) };
        let snapshot = up.db.snapshot();
        for Commit { number, lsn, .. } in self.foreign.iter().filter(|commit| commit.is_replicated) {
            let [mark, _] = marks(*number);
            if matches!(snapshot.get(rows, mark), Ok(Some(_))) {
                let id = node.id;
                return Err(format!("n{id} shows commit {number} at {lsn}, which the log does not have"));
            }
        }
        Ok(())
    }
}
