//! Cooperative termination: what participants of two-phase commit do while their coordinator does not answer.
//!
//! ```text
//! in doubt ── first time-out ──► Inquire to the coordinator
//!          ── later ones ──────► that, and Ask to all other participants
//!
//! a peer is …            it answers            the one in doubt
//! not asked to vote      aborted, and is so    aborts
//! in doubt itself        uncertain             waits
//! through with it        the outcome           follows
//! without any trace      unknown               waits: it may have committed and forgotten, or never voted
//! ```
//!
//! If all participants are in doubt and the coordinator is gone they stay so: that is what two-phase commit cannot help, and
//! Paxos Commit can. Every prepare message, and so every prepare record, names the participants, so that this works after
//! any crash.
//!
//! Source: Bernstein, Hadzilacos, Goodman, *Concurrency Control and Recovery in Database Systems* (1987), section 7.4.

use crate::id::{Group, NodeId};
use crate::message::{Body, Protocol, Role};
use crate::proto::Out;

/// Asks whoever may know the outcome: the coordinator, and, unless it is the first time, the others.
pub(crate) fn ask(me: NodeId, coordinator: NodeId, group: &Group, attempt: u32, out: &mut Out) {
    out.send(coordinator, Body::Inquire(Protocol::TwoPhase));
    if attempt > 0 {
        let others = group.participants.iter().filter(|&&node| node != me);
        out.send_all(others, &Body::Ask { of: Role::Participant, by: Role::Participant });
    }
}
