//! Which nodes are here, for whoever does not want to wait for a pass.

use crate::error::Error;
use crate::id::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// The nodes of a host.
#[derive(Default)]
pub(crate) struct Present {
    here: BTreeSet<NodeId>,
    /// Those that have stopped, for a later incarnation is at work elsewhere, and its epoch.
    fenced: BTreeMap<NodeId, u64>,
}

/// A node that is not here.
#[derive(Clone, Copy)]
pub(crate) struct Absent {
    node: NodeId,
    fenced: Option<u64>,
}

impl Present {
    pub(super) fn comes(&mut self, node: NodeId) {
        self.here.insert(node);
        self.fenced.remove(&node);
    }

    pub(super) fn leaves(&mut self, node: NodeId, fenced: Option<u64>) {
        self.here.remove(&node);
        if let Some(epoch) = fenced {
            self.fenced.insert(node, epoch);
        }
    }

    /// None if it is here.
    pub(crate) fn lacks(&self, node: NodeId) -> Option<Absent> {
        let fenced = self.fenced.get(&node).copied();
        (!self.here.contains(&node)).then_some(Absent { node, fenced })
    }

    /// Why nothing can be asked of it.
    pub(super) fn absent(&self, node: NodeId) -> Absent {
        Absent { node, fenced: self.fenced.get(&node).copied() }
    }
}

impl Absent {
    pub(super) fn fenced(node: NodeId, epoch: u64) -> Absent {
        Absent { node, fenced: Some(epoch) }
    }
}

impl From<Absent> for Error {
    fn from(Absent { node, fenced }: Absent) -> Error {
        match fenced {
            Some(epoch) => Error::Fenced { node, epoch },
            None => Error::NodeMissing(node),
        }
    }
}
