//! Deliberate mistakes, one a run: each leaves out a durable step, or makes a check look away. A model or a simulation
//! that stays green with one of them proves nothing.

/// A step that is left out, or a check that looks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(hidden)]
pub enum Mutation {
    /// A participant votes yes, and never writes its prepare record.
    VoteUnprepared,
    /// A participant votes yes before its prepare record is durable.
    VoteEarly,
    /// A coordinator announces a commit that it has not written down.
    DecideUnlogged,
    /// A coordinator announces a commit before its record is durable.
    DecideEarly,
    /// An acceptor does not write down what it promises.
    PromiseUnlogged,
    /// An acceptor does not write down what it accepts.
    AcceptUnlogged,
    /// A leader decides by fewer acceptors than a majority.
    DecideByFew,
    /// A recovery leader proposes to abort whatever acceptors have told it.
    IgnoreAccepted,
    /// A coordinator of three-phase commit does not write down that it goes into the second phase.
    PreCommitUnlogged,
    /// A coordinator forgets a commit before all participants have it.
    ForgetEarly,
    /// A prepared participant gives up by itself.
    AbortPrepared,
    /// A participant acknowledges an outcome that is not durable yet.
    AckEarly,
    /// What comes from a coordinator's earlier incarnation is believed.
    IgnoreFence,
    /// A coordinator that came back answers for transactions that began after it.
    AnswerForSuccessor,
    /// A leader leads in the ballots of an earlier one of its node. Random runs hardly come to it: a model that begins where the first one
    /// crashed does (`tests/production.rs`), and single runs (`tests/ballots.rs`, `tests/scenarios.rs`).
    ReuseBallots,
    /// An acceptor forgets votes, and not that a later incarnation of the coordinator was through (`tests/production.rs`,
    /// `tests/ballots.rs`).
    ForgetUnfenced,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 16] = [
        Mutation::VoteUnprepared,
        Mutation::VoteEarly,
        Mutation::DecideUnlogged,
        Mutation::DecideEarly,
        Mutation::PromiseUnlogged,
        Mutation::AcceptUnlogged,
        Mutation::DecideByFew,
        Mutation::IgnoreAccepted,
        Mutation::PreCommitUnlogged,
        Mutation::ForgetEarly,
        Mutation::AbortPrepared,
        Mutation::AckEarly,
        Mutation::IgnoreFence,
        Mutation::AnswerForSuccessor,
        Mutation::ReuseBallots,
        Mutation::ForgetUnfenced,
    ];
}

/// A sync that a [`Store`](crate::Store) leaves out: what should be on the device is only on its way there when it is said to be
/// durable. A prepare's is the engine's own, and left out there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Unsynced {
    /// A coordinator's decision to commit.
    Decision,
    /// What an acceptor promises and accepts.
    Accept,
    /// The commit of the only participant.
    OnePhase,
}

impl Unsynced {
    /// All of them.
    pub const ALL: [Unsynced; 3] = [Unsynced::Decision, Unsynced::Accept, Unsynced::OnePhase];

    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Unsynced::Decision => "decision-unsynced",
            Unsynced::Accept => "accept-unsynced",
            Unsynced::OnePhase => "one-phase-unsynced",
        }
    }
}
