//! Deliberate mistakes, one a run: each switches a durable step, or a check, off. A test that stays green with one of
//! them proves nothing; `seawall torture --mutation NAME` must fail.

/// A step that is left out, or a check that looks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Mutation {
    /// Recovery does not compare the end that it found with what was promised.
    BelieveAnyTail,
    /// A durable write is taken for a barrier: earlier frames are not synced (W4).
    DurableWriteAsBarrier,
    /// A segment begins before its predecessor is durable (W1).
    HeaderEarly,
    /// A failed sync is tried again, and believed.
    RetrySync,
    /// Segments are reclaimed before the anchor says so.
    ReclaimBeforeAnchor,
    /// Recovery shows what it read without syncing it first.
    ShowUnsynced,
    /// Writing goes on in a segment with a torn tail.
    GoOnBehindTornTail,
    /// A log that failed goes on (W8).
    GoOnAfterFailure,
    /// A record cut over frames is acknowledged with its first.
    ReadRecordsInPart,
    /// Commits are acknowledged when they are written.
    AcknowledgeWritten,
    /// Of several frames in flight, the first one's end is taken for that of all: the sync comes before the others.
    AcknowledgeOutOfOrder,
    /// The header that cuts the log is not written durably.
    CutLazily,
    /// The anchor does not vouch for the segment that cuts the log.
    CutWithoutAnchor,
    /// A follower shows what is written.
    FollowPastDurable,
    /// A log that found no room goes on behind the frame that it could not write.
    ForgetUnwritten,
    /// The end that a clean close noted is not taken back when the log is written again, and is believed whatever was
    /// written since (W12).
    TrustStaleEnd,
    /// A replica calls durable what it has received (W14).
    AcknowledgeReceived,
    /// A replica judges its tail by what the primary's frames say was durable there.
    JudgeByPrimary,
}

impl Mutation {
    /// Those of a replica's log.
    pub const REPLICAS: [Mutation; 2] = [Mutation::AcknowledgeReceived, Mutation::JudgeByPrimary];

    /// Those of any log.
    pub const ALL: [Mutation; 16] = [
        Mutation::BelieveAnyTail,
        Mutation::DurableWriteAsBarrier,
        Mutation::HeaderEarly,
        Mutation::RetrySync,
        Mutation::ReclaimBeforeAnchor,
        Mutation::ShowUnsynced,
        Mutation::GoOnBehindTornTail,
        Mutation::GoOnAfterFailure,
        Mutation::ReadRecordsInPart,
        Mutation::AcknowledgeWritten,
        Mutation::AcknowledgeOutOfOrder,
        Mutation::CutLazily,
        Mutation::CutWithoutAnchor,
        Mutation::FollowPastDurable,
        Mutation::ForgetUnwritten,
        Mutation::TrustStaleEnd,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mutation::BelieveAnyTail => "believe-any-tail",
            Mutation::DurableWriteAsBarrier => "durable-write-as-barrier",
            Mutation::HeaderEarly => "header-early",
            Mutation::RetrySync => "retry-sync",
            Mutation::ReclaimBeforeAnchor => "reclaim-before-anchor",
            Mutation::ShowUnsynced => "show-unsynced",
            Mutation::GoOnBehindTornTail => "go-on-behind-torn-tail",
            Mutation::GoOnAfterFailure => "go-on-after-failure",
            Mutation::ReadRecordsInPart => "read-records-in-part",
            Mutation::AcknowledgeWritten => "acknowledge-written",
            Mutation::AcknowledgeOutOfOrder => "acknowledge-out-of-order",
            Mutation::CutLazily => "cut-lazily",
            Mutation::CutWithoutAnchor => "cut-without-anchor",
            Mutation::FollowPastDurable => "follow-past-durable",
            Mutation::ForgetUnwritten => "forget-unwritten",
            Mutation::TrustStaleEnd => "trust-stale-end",
            Mutation::AcknowledgeReceived => "acknowledge-received",
            Mutation::JudgeByPrimary => "judge-by-primary",
        }
    }

    /// The mutation of that name.
    pub fn named(name: &str) -> Option<Mutation> {
        Mutation::ALL.into_iter().chain(Mutation::REPLICAS).find(|mutation| mutation.name() == name)
    }
}
