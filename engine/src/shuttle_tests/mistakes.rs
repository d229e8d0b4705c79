//! Every ordering that matters, gotten wrong on purpose: exploration that does not notice proves nothing.

use super::commits;
use super::{find, folds, isolation, locks, outcomes};
use crate::commit::explored::{Misorder, err_by};
use crate::mutation::Mutation;

fn noticed(misorder: Option<Misorder>, scenario: impl Fn() + Send + Sync + Clone + 'static, how: &str) {
    err_by(misorder);
    let found = find(20_000, scenario);
    err_by(None);
    let found = found.unwrap_or_else(|| panic!("{misorder:?} goes unnoticed"));
    assert!(found.contains(how), "{misorder:?} is noticed as: {found}");
}

macro_rules! noticed {
    ($($name:ident: $misorder:ident, $scenario:path, $how:literal;)*) => {$(
        #[test]
        fn $name() {
            noticed(Some(Misorder::$misorder), $scenario, $how);
        }
    )*};
}

noticed! {
    counting_as_applied_before_applying: CountUnapplied, commits::commits_beside_readers, "there, or lost";
    counting_as_applied_before_applying_loses_updates: CountUnapplied, folds::counting, "an update is lost";
    swapping_deltas_without_the_lock: SwapUnlocked, folds::freezing, "lost by a fold";
    swapping_deltas_without_the_lock_loses_rows: SwapUnlocked, folds::folds, "lost";
    staying_in_the_way_when_withdrawn: StayBehind, outcomes::withdrawal, "";
    taking_back_what_was_placed_since: TakeBackLater, outcomes::withdrawal, "";
    waking_before_visible_moves: AnnounceEarly, commits::two_commits, "deadlock";
    counting_oneself_after_looking: CountLate, commits::two_commits, "deadlock";
    listening_after_looking: WantLate, commits::receipts, "";
    failing_without_waking: FailSilently, outcomes::failure_beside_a_freeze, "deadlock";
    discarding_after_visible_has_passed: DiscardLate, outcomes::withdrawal, "there, or lost";
    a_position_read_apart_from_its_view: LookApart, folds::folds, "there, or lost";
    a_snapshot_held_after_it_was_taken: HoldLate, folds::counting_alone, "a conflict with nobody";
    forgetting_what_was_given_up: ForgetFloor, folds::counting_beside_expiry, "an update is lost";
    dropping_deltas_before_their_root_is_there: DropBeforeRoot, folds::folds, "there";
    locking_a_free_row_in_two_steps: LookThenQueue, locks::counting, "two held a lock at once";
    handing_a_lock_over_without_waking: HandOverSilently, locks::counting, "deadlock";
    giving_up_a_lock_that_one_has: LeaveBlindly, locks::giving_up, "";
    overlooking_a_circle: OverlookCircle, locks::circle, "deadlock";
}

#[test]
fn folding_before_visible_has_come() {
    noticed(None, || folds::folds_with(Some(Mutation::FoldUnfrozen)), "E4");
}

#[test]
fn validating_apart_from_taking_the_place() {
    let unlocked = Some(Mutation::ValidateUnlocked);
    noticed(None, move || isolation::skew_of_points_with(unlocked), "both have left");
    noticed(None, move || isolation::skew_of_spans_with(unlocked), "both have left");
}

#[test]
fn leaving_out_commits_that_are_being_applied() {
    let skipping = Some(Mutation::SkipPending);
    noticed(None, move || isolation::skew_of_points_with(skipping), "both have left");
    noticed(None, move || isolation::skew_of_spans_with(skipping), "both have left");
}

#[test]
fn forgetting_commits_that_come_while_one_validates() {
    noticed(None, || isolation::skew_of_spans_with(Some(Mutation::ForgetRecent)), "both have left");
}
