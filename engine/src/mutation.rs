//! Deliberate mistakes, one a run: each switches a durable step, or a check, off. A test that stays green with one of
//! them proves nothing; `seawall torture --layer engine --mutation NAME` must fail.

/// A step that is left out, or a check that looks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Mutation {
    /// A checkpoint does not sync the log up to where it folds.
    FoldUnsynced,
    /// A checkpoint folds without waiting until what it folds is visible: the freeze.
    FoldUnfrozen,
    /// Space is reused while the older superblock, or a snapshot, still needs it.
    ReuseEarly,
    /// The superblock is not repeated in the other slot, and space that the one there leads to is used again.
    RepeatUnwritten,
    /// Holes are made in the file where a superblock or a snapshot still leads.
    PunchEarly,
    /// The log is released before the superblock says that it is not needed.
    ReleaseEarly,
    /// Transactions are not validated.
    SkipValidation,
    /// Replay begins behind the first record that the tree lacks.
    ReplayLate,
    /// A new store's name is there before its bytes.
    CreateInPlace,
    /// A checkpoint syncs its blocks while some are still on their way.
    SyncEarly,
    /// Replay applies again what a checkpoint made during an earlier replay has put into the tree.
    RedoApplied,
    /// A checkpoint folds rows, and not the ranges that were cleared.
    FoldUncleared,
    /// Reads overlook what was cleared in a delta that is frozen.
    ReadUncleared,
    /// A checkpoint folds adds twice.
    FoldAddsTwice,
    /// Validation takes an add for a write like any other.
    AddsConflict,
    /// Validation overlooks ranges that were cleared.
    ClearUnvalidated,
    /// Keys that a transaction has read are not validated.
    SkipPoints,
    /// What a transaction has scanned is not validated.
    SkipSpans,
    /// Commits that have their place and are still being applied are not validated against.
    SkipPending,
    /// A transaction is believed although what it would be validated against was given up.
    IgnoreFloor,
    /// The sequencer's lock is given back between validation and the place in the log.
    ValidateUnlocked,
    /// Commits that become visible while another validates outside the lock are not kept for the rest of its validation.
    ForgetRecent,
    /// A commit is shown before the log has reached it.
    ShowUnreached,
    /// A transaction's snapshot moves on for a lock that it got, whatever it had read before.
    RefreshBlindly,
    /// A vote does not wait until it is on the device.
    PrepareUnsynced,
    /// Recovery does not keep others from what a prepared transaction writes.
    RestoreUnlocked,
    /// Recovery does not keep others from what a prepared transaction has read.
    RestoreUnmarked,
    /// A checkpoint leaves prepared transactions out.
    FoldUnprepared,
    /// A prepared transaction stays when it is committed: it can be committed again.
    KeepPrepared,
    /// A streamed value is not synced before a record names it.
    StreamUnsynced,
    /// Redo does not set aside the extents of the values that records name.
    RedoUnreserved,
    /// A streamed value's extents are given back when its transaction is gone, although a record names them.
    FreeStreamed,
    /// Extents are used again while a reader has a part of them, mapped.
    ReuseMapped,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 33] = [
        Mutation::FoldUnsynced,
        Mutation::FoldUnfrozen,
        Mutation::ReuseEarly,
        Mutation::RepeatUnwritten,
        Mutation::PunchEarly,
        Mutation::ReleaseEarly,
        Mutation::SkipValidation,
        Mutation::ReplayLate,
        Mutation::CreateInPlace,
        Mutation::SyncEarly,
        Mutation::RedoApplied,
        Mutation::FoldUncleared,
        Mutation::ReadUncleared,
        Mutation::FoldAddsTwice,
        Mutation::AddsConflict,
        Mutation::ClearUnvalidated,
        Mutation::SkipPoints,
        Mutation::SkipSpans,
        Mutation::SkipPending,
        Mutation::IgnoreFloor,
        Mutation::ValidateUnlocked,
        Mutation::ForgetRecent,
        Mutation::ShowUnreached,
        Mutation::RefreshBlindly,
        Mutation::PrepareUnsynced,
        Mutation::RestoreUnlocked,
        Mutation::RestoreUnmarked,
        Mutation::FoldUnprepared,
        Mutation::KeepPrepared,
        Mutation::StreamUnsynced,
        Mutation::RedoUnreserved,
        Mutation::FreeStreamed,
        Mutation::ReuseMapped,
    ];

    /// Those of streamed values: `tests/stream.rs` tells them.
    pub const STREAMS: [Mutation; 3] =
        [Mutation::StreamUnsynced, Mutation::RedoUnreserved, Mutation::FreeStreamed];

    /// Those of isolation, which only several transactions at once can tell: `tests/history.rs` does.
    pub const ISOLATION: [Mutation; 9] = [
        Mutation::SkipValidation,
        Mutation::SkipPoints,
        Mutation::SkipSpans,
        Mutation::SkipPending,
        Mutation::IgnoreFloor,
        Mutation::ValidateUnlocked,
        Mutation::ForgetRecent,
        Mutation::ShowUnreached,
        Mutation::RefreshBlindly,
    ];

    /// Those of prepared transactions: `tests/prepared.rs` notices them.
    pub const PREPARED: [Mutation; 5] = [
        Mutation::PrepareUnsynced,
        Mutation::RestoreUnlocked,
        Mutation::RestoreUnmarked,
        Mutation::FoldUnprepared,
        Mutation::KeepPrepared,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mutation::FoldUnsynced => "fold-unsynced",
            Mutation::FoldUnfrozen => "fold-unfrozen",
            Mutation::ReuseEarly => "reuse-early",
            Mutation::RepeatUnwritten => "repeat-unwritten",
            Mutation::PunchEarly => "punch-early",
            Mutation::ReleaseEarly => "release-early",
            Mutation::SkipValidation => "skip-validation",
            Mutation::ReplayLate => "replay-late",
            Mutation::CreateInPlace => "create-in-place",
            Mutation::SyncEarly => "sync-early",
            Mutation::RedoApplied => "redo-applied",
            Mutation::FoldUncleared => "fold-uncleared",
            Mutation::ReadUncleared => "read-uncleared",
            Mutation::FoldAddsTwice => "fold-adds-twice",
            Mutation::AddsConflict => "adds-conflict",
            Mutation::ClearUnvalidated => "clear-unvalidated",
            Mutation::SkipPoints => "skip-points",
            Mutation::SkipSpans => "skip-spans",
            Mutation::SkipPending => "skip-pending",
            Mutation::IgnoreFloor => "ignore-floor",
            Mutation::ValidateUnlocked => "validate-unlocked",
            Mutation::ForgetRecent => "forget-recent",
            Mutation::ShowUnreached => "show-unreached",
            Mutation::RefreshBlindly => "refresh-blindly",
            Mutation::PrepareUnsynced => "prepare-unsynced",
            Mutation::RestoreUnlocked => "restore-unlocked",
            Mutation::RestoreUnmarked => "restore-unmarked",
            Mutation::FoldUnprepared => "fold-unprepared",
            Mutation::KeepPrepared => "keep-prepared",
            Mutation::StreamUnsynced => "stream-unsynced",
            Mutation::RedoUnreserved => "redo-unreserved",
            Mutation::FreeStreamed => "free-streamed",
            Mutation::ReuseMapped => "reuse-mapped",
        }
    }

    /// The mutation of that name.
    pub fn named(name: &str) -> Option<Mutation> {
        Mutation::ALL.into_iter().find(|mutation| mutation.name() == name)
    }
}
