//! Every ordering that matters, gotten wrong on purpose: exploration that does not notice proves nothing.

use super::commit::{self, Scenario};
use super::failure;
use super::find;
use super::follow;
use crate::commit::explored::Misorder;

fn noticed(misorder: Misorder, scenario: Scenario, how: &str) {
    let found = find(20_000, move || scenario(Some(misorder)));
    let found = found.unwrap_or_else(|| panic!("{misorder:?} goes unnoticed"));
    assert!(found.contains(how), "{misorder:?} is noticed as: {found}");
}

macro_rules! noticed {
    ($($name:ident: $misorder:ident, $scenario:path, $how:literal;)*) => {$(
        #[test]
        fn $name() {
            noticed(Misorder::$misorder, $scenario, $how);
        }
    )*};
}

noticed! {
    waking_before_publishing: WakeBeforePublish, commit::synced_commits, "deadlock";
    waking_before_changing_the_word: WakeBeforeChange, commit::synced_commits, "deadlock";
    waking_before_changing_the_word_of_marks: WakeBeforeChange, commit::waiting_for_room, "deadlock";
    counting_sleepers_before_changing_the_word: CountBeforeChange, commit::one_waits_for_room, "deadlock";
    leaving_without_handing_over: LeaveSilently, commit::a_tender_leaves, "deadlock";
    a_token_free_before_publishing: FreeBeforePublish, commit::synced_commits, "nothing to write";
    a_token_free_while_writing: FreeBeforeWrite, commit::synced_commits, "leader";
    failing_without_waking: FailSilently, failure::a_failed_write, "deadlock";
    a_panic_that_nobody_is_told_of: PanicSilently, failure::a_leader_panics, "deadlock";
    registering_without_looking_again: RegisterBlindly, commit::registering, "called once";
    promising_before_writing: PromiseBeforeWrite, commit::synced_commits, "";
    forgetting_to_wake_the_others: RelayForgotten, commit::in_turns, "deadlock";
    telling_followers_before_publishing: TellFollowersFirst, follow::one_follows, "deadlock";
    counting_followers_before_changing_the_word: CountFollowersFirst, follow::one_follows, "deadlock";
    ending_without_telling_followers: EndSilently, follow::following_to_the_end, "deadlock";
    ending_before_all_is_drained: EndBeforeDraining, follow::following_to_the_end, "ended early";
    tending_a_batch_that_is_not_waited_for: TendOwnBatch, commit::behind_a_memory_commit, "deadlock";
}
