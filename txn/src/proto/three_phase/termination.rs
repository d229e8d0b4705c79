//! The termination protocol of three-phase commit: how participants end a transaction without its coordinator.
//!
//! Whoever has waited too long asks everyone how far they are, waits once more, and takes silence for death. Among the
//! nodes that are up and have not crashed since the transaction began, the first stands in for the coordinator:
//!
//! | somebody … | then |
//! |---|---|
//! | knows the outcome | follow it |
//! | is the coordinator, up and undecided | wait for it |
//! | is up and comes before this node | wait for them to stand in |
//! | that is up is in the second phase | bring all that are up there, then commit |
//! | otherwise | abort |
//!
//! A node that crashed and came back does not count, for the others may have gone on without it; it asks, and waits for
//! those that did not crash. Only if *everyone* has crashed and is back do they decide by what all of them know.
//!
//! **This is right only while silence means death.** In a network that loses or delays messages two halves can decide
//! differently: `tests/three_phase.rs` has the run. See `docs/atomic-commit.md`.
//!
//! Source: Skeen, *Nonblocking Commit Protocols* (SIGMOD 1981), and *A Quorum-Based Commit Protocol* (1982) for the central
//! site's termination rules; the treatment of total failure follows Skeen, *Determining the Last Process to Fail* (1985), in
//! its simplest form: wait for all.

use crate::id::{Group, NodeId};
use crate::message::{Body, Decision, Protocol, Role, Stage};
use crate::proto::Out;
use std::collections::{BTreeMap, BTreeSet};

/// What others said.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answers {
    /// Whether the coordinator is up without having crashed; none if it did not answer.
    pub coordinator: Option<bool>,
    /// How far the other participants are, and whether they are up without having crashed.
    pub participants: BTreeMap<NodeId, (Stage, bool)>,
}

/// What a node makes of the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again.
    Wait,
    /// Nobody that is up can have been told to commit.
    Abort,
    /// Bring these to the second phase, and oneself; then commit.
    PreCommit(BTreeSet<NodeId>),
}

pub(crate) fn ask(me: NodeId, coordinator: NodeId, group: &Group, out: &mut Out) {
    out.send(coordinator, Body::Inquire(Protocol::ThreePhase));
    let others = group.participants.iter().filter(|&&node| node != me);
    out.send_all(others, &Body::Ask { of: Role::Participant, by: Role::Participant });
}

/// The table above, but for its first row: who knows the outcome is followed as soon as it says so.
///
/// ```
/// use seawall_txn::proto::three_phase::termination::{Answers, Verdict, verdict};
/// use seawall_txn::{Group, NodeId, Stage};
/// let group = Group { participants: vec![NodeId(1), NodeId(2)], acceptors: vec![] };
/// let other = |node| Answers { coordinator: None, participants: [(NodeId(node), (Stage::Uncertain, true))].into() };
/// assert_eq!(verdict(NodeId(1), (Stage::Uncertain, true), &group, &other(2)), Verdict::Abort);
/// assert_eq!(verdict(NodeId(2), (Stage::Uncertain, true), &group, &other(1)), Verdict::Wait);
/// ```
pub fn verdict(me: NodeId, mine: (Stage, bool), group: &Group, answers: &Answers) -> Verdict {
    let (my_stage, operational) = mine;
    if answers.coordinator == Some(true) {
        return Verdict::Wait;
    }
    let is_up = |node: &NodeId| answers.participants.get(node).is_some_and(|(_, up)| *up);
    let is_in_doubt = |node: &NodeId| {
        let stage = answers.participants.get(node).map(|(stage, _)| *stage);
        matches!(stage, Some(Stage::Uncertain | Stage::PreCommitted))
    };
    let others = || group.participants.iter().filter(|&&node| node != me);
    if operational {
        let waits = others().any(|node| *node < me && is_up(node) && is_in_doubt(node));
        let counted: Vec<&NodeId> = others().filter(|&node| is_up(node)).collect();
        return if waits { Verdict::Wait } else { by_stages(my_stage, &counted, answers) };
    }
    let all_are_back =
        answers.coordinator.is_some() && others().all(|node| answers.participants.contains_key(node));
    // Without any trace is no state to wait for: it never voted yes, or the coordinator knows how it ended.
    let someone_is_up = others().any(|node| is_up(node) && is_in_doubt(node));
    if someone_is_up || !all_are_back {
        return Verdict::Wait;
    }
    by_stages(my_stage, &others().collect::<Vec<_>>(), answers)
}

fn by_stages(mine: Stage, counted: &[&NodeId], answers: &Answers) -> Verdict {
    let stage_of = |node: &NodeId| answers.participants.get(node).map(|(stage, _)| *stage);
    let advanced = |stage| matches!(stage, Stage::PreCommitted | Stage::Ended(Decision::Commit));
    if advanced(mine) || counted.iter().any(|node| stage_of(node).is_some_and(advanced)) {
        let behind = counted.iter().filter(|node| stage_of(node) == Some(Stage::Uncertain));
        return Verdict::PreCommit(behind.map(|node| **node).collect());
    }
    Verdict::Abort
}
