//! Deliberate mistakes, one a run: each leaves out a step, or makes a check look away. A simulation that stays green with one
//! of them proves nothing.

/// A step that is left out, or a check that looks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(hidden)]
pub enum Mutation {
    /// A replica says that it is durable what it has only received.
    AckUnsynced,
    /// A replica follows a new epoch before its promise is durable.
    PromiseLate,
    /// A replica follows a primary of a lower epoch than it has promised; a primary does not look at what it has.
    IgnoreFence,
    /// A replica shows what it has applied, whatever the primary shows.
    ShowUnshipped,
    /// A replica hands pieces to its log as they come.
    IgnoreGaps,
    /// A primary welcomes whoever comes, whatever its history.
    IgnoreHistory,
    /// A primary believes any marks.
    BelieveMarks,
    /// A replica goes on showing by what an earlier primary showed, beyond what it has.
    ShowAhead,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 8] = [
        Mutation::AckUnsynced,
        Mutation::PromiseLate,
        Mutation::IgnoreFence,
        Mutation::ShowUnshipped,
        Mutation::IgnoreGaps,
        Mutation::IgnoreHistory,
        Mutation::BelieveMarks,
        Mutation::ShowAhead,
    ];
}
