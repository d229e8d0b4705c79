//! Paxos Commit: each participant's vote is a value that 2F+1 acceptors agree on, one instance of Paxos for each.
//!
//! ```text
//! participants ── ballot 0: my vote ──► F+1 acceptors ── all votes, one record ──► leader ── outcome ──► participants
//!                    (2a, after T1)                          (2b, after T6)
//! ```
//!
//! The transaction commits if *prepared* is chosen in every instance, and aborts if *aborted* is chosen in one. Ballot 0 of
//! an instance belongs to its participant, so the usual case needs no first phase: two forced writes follow each other, the
//! participants' and the acceptors', N+F+1 in all. The coordinator writes nothing and may vanish: whoever is in doubt leads a
//! higher [`Ballot`](crate::Ballot) and learns from any F+1 acceptors what was chosen, or has what was not chosen aborted.
//!
//! With F = 0 and the acceptor at the coordinator this is two-phase commit: N+1 forced writes, the acceptor's being
//! the decision record. Acceptors at participants' nodes save messages, not forced writes.
//!
//! - No two leaders share a ballot, be they of one node, before a crash and after it (T10).
//! - An acceptor writes once, when it has all votes of ballot 0; and again only for higher ballots.
//! - A participant that votes no tells the leader alone. It never proposed *prepared*, so nothing else can be chosen: the
//!   leader aborts without any forced write.
//! - A participant that only read writes nothing, but its vote must be chosen all the same, or a recovery leader would
//!   abort what others have seen committed. It stays in memory until it is told the outcome.
//! - Acceptors forget when told that everyone knows (T7), or when everyone says so: [`acceptor`].
//!
//! Source: Gray and Lamport, *Consensus on Transaction Commit* (TODS 2006); sections 4.2 (the algorithm), 4.3 (F+1
//! acceptors, co-location) and 4.4 (why F = 0 is two-phase commit).

pub mod acceptor;
pub mod leader;

pub use acceptor::Acceptor;
pub use leader::Leader;
