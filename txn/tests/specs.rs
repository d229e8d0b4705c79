//! Lamport's specifications of transaction commit, two-phase commit and Paxos Commit, as models, with the numbers of distinct
//! states that TLC finds. They are what the production machines are measured against: see `production.rs`.
//!
//! Sources: Lamport, *TCommit.tla*, *TwoPhase.tla* (TLA+ video course; tlaplus/Examples, `transaction_commit`); Gray and
//! Lamport, *Consensus on Transaction Commit*, appendix A, *PaxosCommit.tla*.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod spec;

use spec::{PaxosCommit, TCommit, TwoPhase};
use stateright::{Checker, Model};

#[test]
fn transaction_commit_has_34_states() {
    let checker = TCommit { rms: 3 }.checker().spawn_bfs().join();
    assert_eq!(checker.unique_state_count(), 34);
    checker.assert_properties();
}

#[test]
fn two_phase_commit_has_288_states() {
    let checker = TwoPhase { rms: 3 }.checker().spawn_bfs().join();
    assert_eq!(checker.unique_state_count(), 288);
    checker.assert_properties();
}

#[test]
fn paxos_commit_has_1321761_states() {
    let checker = PaxosCommit.checker().threads(2).spawn_bfs().join();
    assert_eq!(checker.unique_state_count(), 1_321_761);
    checker.assert_properties();
}
