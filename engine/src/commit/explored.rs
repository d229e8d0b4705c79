//! What the exploration of interleavings switches on in the commit path and in the tree. Compiled only with
//! `--cfg seawall_shuttle`; the tests are in `shuttle_tests` and `tree/shuttle_tests`.

use std::cell::Cell;

/// Deliberate mistakes in the order of things, each of which the exploration of interleavings must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misorder {
    /// A commit counts as applied before its rows are in the delta.
    CountUnapplied,
    /// A freeze gives the lock back between fixing C and swapping the deltas.
    SwapUnlocked,
    /// Sleepers are woken before visible moves.
    AnnounceEarly,
    /// A sleeper counts itself after it has looked.
    CountLate,
    /// A listener says that it is there after it has looked.
    WantLate,
    /// A failure is noted, and nobody is woken.
    FailSilently,
    /// What was withdrawn leaves the delta after visible has passed it.
    DiscardLate,
    /// A commit that was withdrawn while it was applied does not let those behind it pass.
    StayBehind,
    /// Whoever hears late of a withdrawal takes back what was placed since.
    TakeBackLater,
    /// A snapshot's position is read after its view, and without the view's lock.
    LookApart,
    /// A snapshot has its position before anybody knows that it is held.
    HoldLate,
    /// What a transaction would be validated against goes, and nobody remembers that it has.
    ForgetFloor,
    /// A row that is free is locked in a second step.
    LookThenQueue,
    /// A lock is handed over, and nobody is woken.
    HandOverSilently,
    /// Whoever gives up waiting does not look whether it has the lock by now.
    LeaveBlindly,
    /// Those who wait for each other are not told.
    OverlookCircle,
    /// Folded deltas leave the view before the root that holds their rows is there.
    DropBeforeRoot,
    /// The file is cut, or a hole made, while somebody streams a value in.
    CutBesideStreams,
    /// Somebody begins to stream a value in while the file is cut, or a hole made.
    StreamBesideCut,
    /// A hole is made in what was free some time ago.
    PunchUnseen,
    /// The file is cut where its used part ended some time ago.
    CutUnseen,
    /// The cache tells blocks apart by their place alone.
    CacheByPlace,
    /// Who puts a block in front of the cache does not look whether the cache still has it.
    KeepUnasked,
}

std::thread_local! {
    /// Shuttle's tasks all run on the thread of their test.
    static MISORDER: Cell<Option<Misorder>> = const { Cell::new(None) };
}

/// The mistake that this thread's explorations make from now on.
pub(crate) fn err_by(misorder: Option<Misorder>) {
    MISORDER.set(misorder);
}

/// Whether that is it.
pub(crate) fn errs(misorder: Misorder) -> bool {
    MISORDER.get() == Some(misorder)
}
