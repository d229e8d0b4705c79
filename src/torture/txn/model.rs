//! What was begun, what clients were told, and what stores may therefore show.

use super::Violation;
use super::node::Node;
use seawall_engine::{Keyspace, Readable};
use seawall_txn::{Decision, NodeId, TxnId};
use std::collections::BTreeMap;

/// A transaction of a client.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) number: u64,
    /// Those that it writes to.
    pub(super) writes: Vec<NodeId>,
    /// What its client was told.
    pub(super) told: Option<Decision>,
    /// A store has shown it.
    pub(super) shown: bool,
}

/// All transactions of a seed.
#[derive(Default)]
pub(super) struct Model {
    pub(super) begun: BTreeMap<TxnId, Begun>,
}

/// The rows that say that a transaction is there: two, so that half a transaction is seen.
pub(super) fn marks(number: u64) -> [String; 2] {
    [format!("a/{number:04}"), format!("b/{number:04}")]
}

/// Whether a store shows a transaction; half of it is a violation.
fn shows(
    node: &Node,
    rows: &Keyspace,
    reader: &impl Readable,
    number: u64,
) -> Result<Option<bool>, Violation> {
    let mut found = [false; 2];
    for (found, key) in found.iter_mut().zip(marks(number)) {
        *found = match reader.get(rows, &key) {
            Ok(row) => row.is_some(),
            // The disk has failed: it shows nothing.
            Err(_) => return Ok(None),
        };
    }
    match found {
        [a, b] if a == b => Ok(Some(a)),
        _ => Err(format!("{} shows half of transaction {number}", node.id)),
    }
}

impl Model {
    pub(super) fn told(&mut self, txn: TxnId, decision: Decision) -> Result<(), Violation> {
        let Some(begun) = self.begun.get_mut(&txn) else { return Ok(()) };
        match begun.told.replace(decision) {
            Some(before) if before != decision => {
                Err(format!("the client of {txn} was told {before:?}, then {decision:?}"))
            }
            _ => Ok(()),
        }
    }

    /// What a node that is up shows now: whole transactions, none that its client heard was aborted.
    pub(super) fn look(&mut self, node: &Node) -> Result<(), Violation> {
        let Some(up) = &node.up else { return Ok(()) };
        let snapshot = up.db.snapshot();
        for (txn, begun) in &mut self.begun {
            if begun.writes.contains(&node.id)
                && let Some(true) = shows(node, &up.rows, &snapshot, begun.number)?
            {
                begun.shown = true;
                if begun.told == Some(Decision::Abort) {
                    return Err(format!("{} shows {txn}, which was aborted", node.id));
                }
            }
        }
        Ok(())
    }

    /// At the end every transaction is everywhere or nowhere, as was told, and what was shown stays. How many committed comes
    /// back, and how many did not.
    pub(super) fn settled(&self, nodes: &BTreeMap<NodeId, Node>) -> Result<(u64, u64), Violation> {
        let (mut committed, mut aborted) = (0, 0);
        for (txn, begun) in self.begun.iter().filter(|(_, begun)| !begun.writes.is_empty()) {
            let mut outcomes = Vec::new();
            for id in &begun.writes {
                let Some((node, up)) = nodes.get(id).and_then(|node| Some((node, node.up.as_ref()?))) else {
                    return Err(format!("{id} is down at the end"));
                };
                let shows = shows(node, &up.rows, &up.db.snapshot(), begun.number)?;
                outcomes.push(shows.ok_or_else(|| format!("{id} cannot be read at the end"))?);
            }
            let is_there = outcomes.first() == Some(&true);
            if outcomes.iter().any(|other| *other != is_there) {
                return Err(format!("{txn} is mixed: {:?} show {outcomes:?}", begun.writes));
            }
            match (begun.told, begun.shown, is_there) {
                (Some(Decision::Commit), _, false) => {
                    return Err(format!("{txn} was acknowledged, and is gone"));
                }
                (Some(Decision::Abort), _, true) => return Err(format!("{txn} was aborted, and is there")),
                (_, true, false) => return Err(format!("{txn} was shown, and is gone")),
                (_, _, true) => committed += 1,
                (_, _, false) => aborted += 1,
            }
        }
        Ok((committed, aborted))
    }
}
