//! Deliberate mistakes, one a run: each switches a durable step, or a check, off. A test that stays green with one of
//! them proves nothing; `seawall torture --layer engine --mutation NAME` must fail.
//!
//! They stand in one table: what is left out, its name on the command line, what it belongs to, and who notices it. The
//! rest of this file, and the tests that go through them all, follow from that table.

/// What a mistake belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Group {
    /// Folding, the log's end, creation, recovery: `tests/bugs.rs` notices them too.
    Life,
    /// Validation and visibility: `tests/history.rs` notices them.
    Isolation,
    /// Prepared transactions: `tests/prepared.rs` notices them too.
    Prepared,
    /// Streamed values: `tests/stream.rs` notices them too.
    Streams,
    /// Compressed leaves.
    Compression,
    /// Blocks read where they lie in a mapping of the file.
    Mapping,
    /// Runs beside the trees.
    Runs,
    /// A store and those that follow it: `tests/shipping.rs`, `tests/slots.rs` and `tests/rewind.rs` notice them.
    Shipping,
}

/// Who must notice a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub enum Noticed {
    /// `seawall torture`, within the first so many seeds.
    Torture(u64),
    /// Not torture, for this reason.
    Elsewhere(&'static str),
}

/// Torture compares contents. What shows in the order of concurrent transactions alone takes a check of that order.
const ORDER: Noticed =
    Noticed::Elsewhere("only an order of concurrent transactions shows it: tests/history.rs");

/// Torture runs one store.
const REPLICAS: Noticed = Noticed::Elsewhere("it takes two stores: tests/shipping.rs");
/// Torture's stores are followed by nobody.
const FOLLOWED: Noticed =
    Noticed::Elsewhere("only a store that is followed shows it: tests/slots.rs, tests/rewind.rs");

macro_rules! mutations {
    ($($(#[doc = $what:literal])+ $variant:ident, $name:literal, $group:ident, $noticed:expr;)+) => {
        /// A step that is left out, or a check that looks away.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[doc(hidden)]
        pub enum Mutation {
            $($(#[doc = $what])+ $variant,)+
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &[Mutation] = &[$(Mutation::$variant,)+];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutation::$variant => $name,)+
                }
            }

            /// What it belongs to.
            pub fn group(self) -> Group {
                match self {
                    $(Mutation::$variant => Group::$group,)+
                }
            }

            /// Who must notice it.
            pub fn noticed(self) -> Noticed {
                match self {
                    $(Mutation::$variant => $noticed,)+
                }
            }
        }
    };
}

mutations! {
    /// A checkpoint does not sync the log up to where it folds.
    FoldUnsynced, "fold-unsynced", Life, Noticed::Torture(3_000);
    /// A checkpoint folds without waiting until what it folds is visible: the freeze.
    FoldUnfrozen, "fold-unfrozen", Life, Noticed::Torture(16_000);
    /// Space is reused while the older superblock, or a snapshot, still needs it.
    ReuseEarly, "reuse-early", Life, Noticed::Torture(3_000);
    /// The superblock is not repeated in the other slot, and space that the one there leads to is used again.
    RepeatUnwritten, "repeat-unwritten", Life, Noticed::Torture(3_000);
    /// Holes are made in the file where a superblock or a snapshot still leads.
    PunchEarly, "punch-early", Life, Noticed::Torture(3_000);
    /// The log is released before the superblock says that it is not needed.
    ReleaseEarly, "release-early", Life, Noticed::Torture(3_000);
    /// Transactions are not validated.
    SkipValidation, "skip-validation", Isolation, Noticed::Torture(3_000);
    /// Replay begins behind the first record that the tree lacks.
    ReplayLate, "replay-late", Life, Noticed::Torture(3_000);
    /// A new store's name is there before its bytes.
    CreateInPlace, "create-in-place", Life, Noticed::Torture(3_000);
    /// A checkpoint syncs its blocks while some are still on their way.
    SyncEarly, "sync-early", Life, Noticed::Torture(3_000);
    /// Replay applies again what a checkpoint made during an earlier replay has put into the tree.
    RedoApplied, "redo-applied", Life, Noticed::Torture(3_000);
    /// A checkpoint folds rows, and not the ranges that were cleared.
    FoldUncleared, "fold-uncleared", Life, Noticed::Torture(3_000);
    /// Reads overlook what was cleared in a delta that is frozen.
    ReadUncleared, "read-uncleared", Life, Noticed::Torture(3_000);
    /// A checkpoint folds adds twice.
    FoldAddsTwice, "fold-adds-twice", Life, Noticed::Torture(3_000);
    /// Validation takes an add for a write like any other.
    AddsConflict, "adds-conflict", Life, Noticed::Torture(3_000);
    /// Validation overlooks ranges that were cleared.
    ClearUnvalidated, "clear-unvalidated", Life, Noticed::Torture(3_000);
    /// Keys that a transaction has read are not validated.
    SkipPoints, "skip-points", Isolation, ORDER;
    /// What a transaction has scanned is not validated.
    SkipSpans, "skip-spans", Isolation, ORDER;
    /// Commits that have their place and are still being applied are not validated against.
    SkipPending, "skip-pending", Isolation, ORDER;
    /// A transaction is believed although what it would be validated against was given up.
    IgnoreFloor, "ignore-floor", Isolation, ORDER;
    /// The sequencer's lock is given back between validation and the place in the log.
    ValidateUnlocked, "validate-unlocked", Isolation, ORDER;
    /// Commits that become visible while another validates outside the lock are not kept for the rest of its validation.
    ForgetRecent, "forget-recent", Isolation, ORDER;
    /// A commit is shown before the log has reached it.
    ShowUnreached, "show-unreached", Isolation, ORDER;
    /// A transaction's snapshot moves on for a lock that it got, whatever it had read before.
    RefreshBlindly, "refresh-blindly", Isolation, ORDER;
    /// A vote does not wait until it is on the device.
    PrepareUnsynced, "prepare-unsynced", Prepared, Noticed::Torture(3_000);
    /// Recovery does not keep others from what a prepared transaction writes.
    RestoreUnlocked, "restore-unlocked", Prepared, Noticed::Torture(3_000);
    /// Recovery does not keep others from what a prepared transaction has read.
    RestoreUnmarked, "restore-unmarked", Prepared, Noticed::Torture(3_000);
    /// A checkpoint leaves prepared transactions out.
    FoldUnprepared, "fold-unprepared", Prepared, Noticed::Torture(3_000);
    /// A prepared transaction stays when it is committed: it can be committed again.
    KeepPrepared, "keep-prepared", Prepared, Noticed::Torture(3_000);
    /// A streamed value is not synced before a record names it.
    StreamUnsynced, "stream-unsynced", Streams, Noticed::Torture(3_000);
    /// Redo does not set aside the extents of the values that records name.
    RedoUnreserved, "redo-unreserved", Streams, Noticed::Torture(3_000);
    /// Recovery does not set aside the extents of the streamed values of what is prepared.
    RestoreUnreserved, "restore-unreserved", Streams, Noticed::Torture(3_000);
    /// A streamed value's extents are given back when its transaction is gone, although a record names them.
    FreeStreamed, "free-streamed", Streams, Noticed::Torture(3_000);
    /// A compressed leaf is unpacked without its checksum having been looked at.
    UnpackUnverified, "unpack-unverified", Compression, Noticed::Torture(3_000);
    /// Extents are used again while a reader has a part of them, mapped.
    ReuseMapped, "reuse-mapped", Mapping, Noticed::Torture(3_000);
    /// A checkpoint leaves the run that it wrote out of the tree of roots.
    SpillUnlisted, "spill-unlisted", Runs, Noticed::Torture(3_000);
    /// What was cleared stays in the tree and in the runs when the rows become a run.
    SpillUncleared, "spill-uncleared", Runs, Noticed::Torture(3_000);
    /// Reads look below a run that says that a row is removed.
    RunRemovalIgnored, "run-removal-ignored", Runs, Noticed::Torture(3_000);
    /// What a stretch of the tree takes in stays in the runs.
    RollUncleared, "roll-uncleared", Runs, Noticed::Torture(3_000);
    /// Runs that were folded stay beside the tree, their blocks freed.
    RunKept, "run-kept", Runs, Noticed::Torture(3_000);
    /// A replica shows what the primary has not shown.
    ShowUnshipped, "show-unshipped", Shipping, REPLICAS;
    /// A store that was fenced off goes on.
    IgnoreFence, "ignore-fence", Shipping, REPLICAS;
    /// Slots are listed, and keep nothing of the log.
    IgnoreSlots, "ignore-slots", Shipping, FOLLOWED;
    /// A checkpoint replaces the older superblock although a rewind may need it.
    OverwriteOlder, "overwrite-older", Shipping, FOLLOWED;
}

impl Mutation {
    /// Those of a group.
    pub fn of(group: Group) -> impl Iterator<Item = Mutation> {
        Mutation::ALL.iter().copied().filter(move |mutation| mutation.group() == group)
    }

    /// The mutation of that name.
    pub fn named(name: &str) -> Option<Mutation> {
        Mutation::ALL.iter().copied().find(|mutation| mutation.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_variants_own() {
        for mutation in Mutation::ALL {
            let variant = format!("{mutation:?}");
            let mut name = String::new();
            for letter in variant.chars() {
                if letter.is_uppercase() && !name.is_empty() {
                    name.push('-');
                }
                name.push(letter.to_ascii_lowercase());
            }
            assert_eq!(mutation.name(), name);
            assert_eq!(Mutation::named(&name), Some(*mutation));
        }
    }
}
