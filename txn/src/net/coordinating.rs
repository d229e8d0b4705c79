//! The coordinator for clients that are no node: they work at the participants, and commit here.

use super::incoming::{Gate, blocking};
use super::status;
use super::wire::coordinator_server::Coordinator as Service;
use super::wire::{AwaitRequest, BeginRequest, CommitRequest, Outcome, State, Txn};
use crate::coordinator::{Coordinator, Global, Pending};
use crate::error::Error;
use crate::id::{Group, NodeId, TxnId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Response, Status};

/// How long one call waits.
const WAIT_MAX: Duration = Duration::from_secs(30);

enum Known {
    Begun(Instant, Global),
    /// And since when its outcome is known to be there: not before that does it age.
    Committing(Option<Instant>, Pending),
}

#[derive(Clone)]
pub(super) struct Coordinating {
    gate: Arc<Gate>,
    coordinator: Coordinator,
    known: Arc<Mutex<BTreeMap<TxnId, Known>>>,
}

impl Coordinating {
    pub(super) fn new(gate: &Arc<Gate>, coordinator: &Coordinator) -> Coordinating {
        Coordinating { gate: Arc::clone(gate), coordinator: coordinator.clone(), known: Arc::default() }
    }

    /// What nobody came back for goes; what has an outcome, some time after it. How many have none yet.
    pub(super) fn tidy(&self) -> usize {
        let (age, now) = (self.gate.limits().branch_age, Instant::now());
        let mut over = Vec::new();
        let mut known = self.known.lock();
        known.retain(|txn, known| match known {
            Known::Begun(since, _) => now.duration_since(*since) < age,
            Known::Committing(_, pending) if !pending.is_over() => true,
            Known::Committing(since, _) => {
                let since = *since.get_or_insert(now);
                over.push((since, *txn));
                now.duration_since(since) < age
            }
        });
        let outcomes_max = self.gate.limits().branches;
        if over.len() > outcomes_max {
            // What is over holds nobody up: the oldest half goes before its time.
            over.sort_unstable();
            over.iter().take(over.len() / 2).for_each(|(_, txn)| drop(known.remove(txn)));
        }
        known.values().filter(|known| !known.is_over()).count()
    }
}

impl Known {
    fn is_over(&self) -> bool {
        matches!(self, Known::Committing(Some(_), _))
    }
}

impl Coordinating {
    fn hand_over(&self, txn: TxnId, participants: &[u64]) -> Result<Pending, Status> {
        // The transaction stays as it is: it can be committed with fewer.
        Group::check_participants(participants.len()).map_err(|error| status::of(&error))?;
        let mut known = self.known.lock();
        let (since, pending) = match known.remove(&txn) {
            Some(Known::Begun(_, mut global)) => {
                for node in participants {
                    global.enlist(NodeId(*node)).map_err(|error| status::of(&error))?;
                }
                (None, global.commit_pipelined().map_err(|error| status::of(&error))?)
            }
            // Once more: the first answer was lost.
            Some(Known::Committing(since, pending)) => (since, pending),
            None => return Err(status::unknown_branch(&txn.to_string())),
        };
        known.insert(txn, Known::Committing(since, pending.clone()));
        Ok(pending)
    }
}

fn txn_of(txn: Option<&Txn>) -> Result<TxnId, Status> {
    let txn = txn.ok_or_else(|| status::invalid("a transaction is needed"))?;
    Ok(TxnId { coordinator: NodeId(txn.coordinator), epoch: txn.epoch, sequence: txn.sequence })
}

/// What a wait of at most so long comes to.
async fn outcome(
    pending: Pending,
    limit: Duration,
    permit: OwnedSemaphorePermit,
) -> Result<Response<Outcome>, Status> {
    let done = blocking(move || {
        // The thread's, whether or not its client is still there.
        let _permit = permit;
        match pending.wait_timeout(limit) {
            Ok(Some(_)) => Ok((State::Committed, String::new(), false)),
            Ok(None) => Ok((State::Unknown, String::new(), false)),
            Err(error @ Error::Aborted { .. }) => {
                Ok((State::Aborted, error.to_string(), error.is_retryable()))
            }
            Err(error) => Err(status::of(&error)),
        }
    });
    let (state, cause, retryable) = done.await?;
    Ok(Response::new(Outcome { state: state.into(), cause, retryable }))
}

#[tonic::async_trait]
impl Service for Coordinating {
    async fn begin(&self, request: Request<BeginRequest>) -> Result<Response<Txn>, Status> {
        self.gate.admit(&request)?;
        if self.tidy() >= self.gate.limits().branches {
            return Err(status::busy("too many transactions are open"));
        }
        let global = self.coordinator.begin();
        let txn = global.txn();
        self.known.lock().insert(txn, Known::Begun(Instant::now(), global));
        Ok(Response::new(Txn { coordinator: txn.coordinator.0, epoch: txn.epoch, sequence: txn.sequence }))
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<Outcome>, Status> {
        self.gate.admit(&request)?;
        let request = request.into_inner();
        let txn = txn_of(request.txn.as_ref())?;
        let permit = self.gate.wait()?;
        let pending = self.hand_over(txn, &request.participants)?;
        outcome(pending, WAIT_MAX, permit).await
    }

    async fn r#await(&self, request: Request<AwaitRequest>) -> Result<Response<Outcome>, Status> {
        self.gate.admit(&request)?;
        let request = request.into_inner();
        let txn = txn_of(request.txn.as_ref())?;
        let pending = match self.known.lock().get(&txn) {
            Some(Known::Committing(_, pending)) => pending.clone(),
            Some(Known::Begun(..)) => return Err(status::protocol(format!("{txn} was not committed yet"))),
            None => return Err(status::unknown_branch(&txn.to_string())),
        };
        let limit = Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
        outcome(pending, limit, self.gate.wait()?).await
    }
}
