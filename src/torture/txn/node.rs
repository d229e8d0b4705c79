//! A node: a disk, and, while it is up, a store, its host, and what was handed to both.

use super::Violation;
use seawall_engine::mutation::Mutation as EngineMutation;
use seawall_engine::{Db, Error, Keyspace, Spilling};
use seawall_txn::mutation::{Mutation, Unsynced};
use seawall_txn::{DecisionLog, Host, NodeId, Participant, Store, Timing};
use seawall_wal::{SimDisk, SimRuntime};
use std::sync::Arc;

const SEGMENT_BYTES: u64 = 64 << 10;

/// The mistake of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mistake {
    pub(super) engine: Option<EngineMutation>,
    pub(super) unsynced: Option<Unsynced>,
    pub(super) machine: Option<Mutation>,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) disk: Arc<SimDisk>,
    pub(super) up: Option<Up>,
    runtime: Arc<SimRuntime>,
    mistake: Mistake,
    /// As a coordinator of threads works, or the host alone.
    has_rounds: bool,
}

pub(super) struct Up {
    pub(super) host: Host,
    pub(super) store: Arc<Store>,
    pub(super) db: Db,
    pub(super) rows: Keyspace,
    pub(super) epoch: u64,
    pub(super) sequence: u64,
}

/// How long machines wait, in simulated microseconds.
fn timing() -> Timing {
    Timing { retry_us: 20_000, retry_doublings_max: 4, deadline_us: 400_000 }
}

impl Node {
    pub(super) fn new(id: u64, seed: u64, runtime: &Arc<SimRuntime>, mistake: Mistake) -> Node {
        let disk = SimDisk::new(seed);
        let has_rounds = seed.is_multiple_of(2);
        Node { id: NodeId(id), disk, up: None, runtime: Arc::clone(runtime), mistake, has_rounds }
    }

    /// The process starts: opens the store, and takes up what is there. False if a fault is in the way; then it is down.
    pub(super) fn start(&mut self, now: u64) -> Result<bool, Violation> {
        match self.open(now) {
            Ok(up) => {
                self.up = Some(up);
                Ok(true)
            }
            Err(error) if self.is_explained(&error) => {
                self.crash();
                Ok(false)
            }
            Err(error) => Err(format!("{} does not start: {error}", self.id)),
        }
    }

    fn open(&self, now: u64) -> seawall_txn::Result<Up> {
        let db = Db::builder("/home/store")
            .segment_bytes(SEGMENT_BYTES)
            .memory_budget(1 << 20)
            .disk(self.disk.clone())
            .runtime(self.runtime.clone())
            .background(false)
            .spilling(if self.id.0.is_multiple_of(2) { Spilling::Rolling(2) } else { Spilling::Weighed })
            .mutation(self.mistake.engine)
            .open()?;
        let rows = db.keyspace("rows")?;
        let store = Store::with_unsynced(self.id, &db, self.mistake.unsynced)?;
        let mut host = if self.has_rounds { Host::with_rounds(timing()) } else { Host::new(timing()) };
        host.set_mutation(self.mistake.machine);
        let log: Arc<dyn DecisionLog> = Arc::clone(&store) as _;
        let participant: Arc<dyn Participant> = Arc::clone(&store) as _;
        let epoch = host.attach(now, self.id, Some(log), Some(participant), 0)?;
        Ok(Up { host, store, db, rows, epoch, sequence: 0 })
    }

    /// An error that a fault explains.
    fn is_explained(&self, error: &seawall_txn::Error) -> bool {
        let by_fault = matches!(
            error,
            seawall_txn::Error::Engine(
                Error::Io { .. } | Error::NoSpace | Error::Poisoned(_) | Error::CommitUnknown { .. }
            )
        );
        by_fault || !self.disk.has_power()
    }

    /// The power fails: what was not synced may be gone, or torn, or there.
    pub(super) fn crash(&mut self) {
        let next = self.disk.crash();
        self.up = None;
        self.disk = next;
    }

    /// The process ends, and the power stays.
    pub(super) fn kill(&mut self) {
        let next = self.disk.kill();
        self.up = None;
        self.disk = next;
    }

    /// Another is to take the process's place, which does not end: it is given back, its disk out of its reach.
    pub(super) fn supersede(&mut self, by_crash: bool) -> Option<Up> {
        let up = self.up.take()?;
        self.disk = if by_crash { self.disk.crash() } else { self.disk.kill() };
        Some(up)
    }
}
