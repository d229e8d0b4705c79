//! Atomic commit across stores: every store commits, or none does, whatever crashes and however long.
//!
//! A [`Coordinator`] commits transactions over several stores of a process; a [`Store`] is a seawall store as one of them,
//! and anything else can be one by the verbs of [`Participant`]. Below them the protocols are state machines without I/O
//! ([`proto`]), a node's machines together a [`Site`]; a [`Host`] carries out their effects: it hands records to the log,
//! messages to whom they are for, and keeps time.
//!
//! ```text
//! client ──► coordinator ── Prepare ──► participants        one machine a transaction and role
//!               ▲   │                      │  ▲
//!               │   └────── Decide ────────┼──┘             Input in, Effects out; Persist is answered by Persisted
//!               └────────── Vote ──────────┘
//! ```
//!
//! | protocol | forced writes, N participants that wrote | one after another | blocked by a dead coordinator |
//! |---|---|---|---|
//! | one participant | 1 | 1 | — |
//! | [two-phase](proto::two_phase), presumed abort | N+1; N if the decision merges with a branch's commit | 2 | yes |
//! | [three-phase](proto::three_phase) | 2N+2 | 4 | no, but it splits under partition |
//! | [Paxos Commit](proto::paxos_commit), F faults | N+F+1 | 2 | no, with F+1 of 2F+1 acceptors |
//!
//! Participants that only read write nothing, in any of them. `docs/atomic-commit.md` says when to use which.
//!
//! Modules, from the bottom up: ids, bytes, [`Message`], [`Record`], [`BranchName`] (pure), the machines (pure), [`Site`];
//! [`Participant`] and [`DecisionLog`] (the seams), [`Store`], [`Host`], [`Coordinator`] (the face).

mod bytes;
mod coordinator;
mod decision;
mod error;
mod host;
mod id;
mod message;
mod participant;
mod record;
mod site;
mod store;
mod xid;

#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod mutation;
#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod proto;

pub use bytes::Malformed;
pub use coordinator::{Coordinator, CoordinatorBuilder, Global, Listener, Pending, Transport};
pub use decision::DecisionLog;
pub use error::{Error, Result};
pub use host::{Backlog, FLUSH_US, Host, Notice, SWEEP_US};
pub use id::{Ballot, Group, NodeId, TxnId};
pub use message::{Accepted, Body, Decision, Message, Protocol, Role, Stage, Value, Vote};
pub use participant::{Answer, Found, Participant, Reply};
pub use proto::{Context, Effect, Input, Plan, Timer, Timing, Token};
pub use record::{Durable, Entry, Record};
pub use site::{Key, Site};
pub use store::{KEYSPACE, Store};
pub use xid::{BranchName, XID_FORMAT};
