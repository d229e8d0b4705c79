//! Atomic commit across stores: every store commits, or none does, whatever crashes and however long.
//!
//! What is here so far decides and remembers nothing by itself: the protocols as state machines without I/O ([`proto`]), a
//! node's machines together ([`Site`]), their messages and records in bytes ([`Message`], [`Record`]). A driver carries out
//! their effects: it writes records to the log, sends messages, and keeps time.
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
//! Modules, from the bottom up: ids and [`Xid`], bytes, [`Message`], [`Record`] (pure), the machines (pure), [`Site`].

mod bytes;
mod id;
mod message;
mod record;
mod site;
mod xid;

#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod mutation;
pub mod proto;

pub use bytes::Malformed;
pub use id::{Ballot, Group, NodeId, TxnId};
pub use message::{Accepted, Body, Decision, Message, Protocol, Role, Stage, Value, Vote};
pub use proto::{Context, Effect, Input, Plan, Timer, Timing, Token};
pub use record::{Durable, Entry, Record};
pub use site::{Key, Site};
pub use xid::{Xid, XidError};
