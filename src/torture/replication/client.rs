//! Clients: they commit at the primary, or at one that another has taken the place of, of which they have not heard.

use super::model::{Commit, marks};
use super::{Violation, World};
use seawall_engine::{Ack, Durability, Keyspace, Ticket, TxOptions, Vote, Xid};
use std::collections::BTreeSet;

impl World {
    /// A client commits, or prepares, or ends what was prepared.
    pub(super) fn write(&mut self) -> Result<(), Violation> {
        let old = self.deposed.keys().copied().find(|id| self.is_writer(*id));
        match old.filter(|_| self.rng.chance(1, 3)) {
            Some(old) => self.commit(old),
            None => match self.rng.below(12) {
                0 if self.model.prepared.len() < 3 => self.prepare(),
                1 if !self.model.prepared.is_empty() => self.end_prepared(),
                _ => self.commit(self.primary),
            },
        }
    }

    fn is_writer(&self, id: u64) -> bool {
        let node = self.nodes.get(&id).filter(|node| !node.is_replica);
        node.is_some_and(|node| node.up.is_some())
    }

    pub(super) fn commit(&mut self, id: u64) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let (Some(rows), Some(up)) = (node.keyspace(), node.up.as_ref()) else { return Ok(()) };
        let is_fenced = up.shipping.fenced().is_some() || up.is_fenced;
        let is_replicated = self.rng.chance(9, 10);
        let ack = Some(if is_replicated { Ack::Durable } else { Ack::Local });
        let number = self.model.next;
        let [a, z] = marks(number);
        let big = self.rng.chance(1, if self.away.is_some() { 3 } else { 12 });
        let value = vec![number as u8; if big { 40_000 } else { 10 + self.rng.below(800) as usize }];
        let mut tx = up.db.begin_with(TxOptions { ack, ..TxOptions::default() });
        let written = tx
            .insert(&rows, a, &value)
            .and_then(|()| tx.add_i64(&rows, "count", 1))
            .and_then(|()| tx.insert(&rows, z, "1"));
        // What is refused has not happened.
        let ticket = match written.and_then(|()| tx.commit_pipelined()) {
            Ok(_) if is_fenced => return Err(format!("n{id} was fenced off, and takes commit {number}")),
            Ok(ticket) => ticket,
            Err(_) if is_fenced => {
                self.hit("refused by a primary that is fenced off");
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        self.model.next += 1;
        if !is_replicated {
            self.hit("commit that asks for no replica");
        }
        self.took(id, number, is_replicated, true, ticket);
        Ok(())
    }

    /// A commit has its place.
    fn took(&mut self, by: u64, number: u64, is_replicated: bool, is_counted: bool, ticket: Ticket) {
        let Some(up) = self.nodes.get(&by).and_then(|node| node.up.as_ref()) else { return };
        let (lsn, epoch) = (ticket.lsn(), up.shipping.wal().timeline().epoch);
        self.say(|| format!("n{by} takes commit {number} at {lsn}, for replicas: {is_replicated}"));
        let commit = Commit {
            number,
            lsn,
            by,
            epoch,
            is_replicated,
            is_counted,
            ticket: Some(ticket),
            is_acked: false,
            shown_by: BTreeSet::new(),
            is_shown: false,
        };
        if by == self.primary {
            self.model.commits.push(commit);
        } else {
            self.hit("commit at one that another has taken the place of");
            self.model.foreign.push(commit);
        }
    }

    fn prepare(&mut self) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&self.primary) else { return Ok(()) };
        let (Some(rows), Some(up)) = (node.keyspace(), node.up.as_ref()) else { return Ok(()) };
        let name = self.model.next;
        let [a, z] = marks(name);
        let mut tx = up.db.begin_with(TxOptions { ack: Some(Ack::Local), ..TxOptions::default() });
        let xid = xid(name)?;
        let written = tx.insert(&rows, a, "held").and_then(|()| tx.insert(&rows, z, "1"));
        let voted = written.and_then(|()| tx.prepare(xid));
        self.model.next += 1;
        if let Ok(Vote::Prepared(_)) = voted {
            let below = (up.shipping.wal().timeline().epoch, up.shipping.wal().durable_lsn());
            self.model.prepared.insert(name, below);
            self.hit("prepared");
            self.say(|| format!("prepared {name}, in epoch {} below {}", below.0, below.1));
        }
        Ok(())
    }

    fn end_prepared(&mut self) -> Result<(), Violation> {
        let Some((&name, &(epoch, _))) = self.model.prepared.first_key_value() else { return Ok(()) };
        let Some(up) = self.nodes.get(&self.primary).and_then(|node| node.up.as_ref()) else { return Ok(()) };
        let is_later = up.shipping.wal().timeline().epoch > epoch;
        let Ok(Some(prepared)) = up.db.prepared_by(&xid(name)?) else { return Ok(()) };
        if self.rng.chance(1, 2) {
            // Whatever comes of it, a later primary may have it as prepared yet.
            let ended = prepared.rollback();
            self.say(|| format!("rolled back {name}: {ended:?}"));
        } else if let Ok(ticket) = prepared.commit_pipelined(Durability::Synced) {
            self.took(self.primary, name, true, false, ticket);
            self.hit(if is_later {
                "prepared, and committed after a promotion"
            } else {
                "prepared, and committed"
            });
        }
        self.model.prepared.remove(&name);
        Ok(())
    }

    /// What was prepared before is prepared there, with its locks.
    pub(super) fn check_prepared(&mut self, id: u64) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let (Some(rows), Some(up)) = (node.keyspace(), node.up.as_ref()) else { return Ok(()) };
        let mut met = 0;
        for name in self.model.prepared.keys() {
            match up.db.prepared_by(&xid(*name)?) {
                Ok(Some(_)) => met += 1,
                Ok(None) => return Err(format!("n{id} does not have what was prepared as {name}")),
                Err(error) => return Err(error.to_string()),
            }
            if takes(up, &rows, *name) {
                return Err(format!("n{id} takes another's write of what was prepared as {name}"));
            }
        }
        self.report.add("replication: prepared, and promoted over", met);
        Ok(())
    }
}

/// Whether another transaction may write what that one has written.
fn takes(up: &super::node::Up, rows: &Keyspace, name: u64) -> bool {
    let [a, _] = marks(name);
    let mut tx = up.db.begin_with(TxOptions { ack: Some(Ack::Local), ..TxOptions::default() });
    tx.insert(rows, a, "another's").and_then(|()| tx.commit_pipelined()).is_ok()
}

fn xid(name: u64) -> Result<Xid, Violation> {
    Xid::new(1, name.to_le_bytes(), "torture").map_err(|error| error.to_string())
}
