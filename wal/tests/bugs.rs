//! One test for each class of bug that cost others their data, as far as the log alone can have it. Each is written to
//! fail on a log that has the bug, and the last test here shows that they do. `docs/failure-model.md` lists the classes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "bugs/failures.rs"]
mod failures;
#[path = "bugs/marks.rs"]
mod marks;
#[path = "bugs/names.rs"]
mod names;
#[path = "bugs/rig.rs"]
mod rig;

use failures::*;
use marks::*;
use names::*;
use seawall_wal::mutation::Mutation;

/// A mistake, and the tests that are there for it.
type Guard = (Mutation, &'static [fn()]);

/// These tests are worth something: each deliberate mistake turns those red that are there for it.
#[test]
fn every_deliberate_mistake_is_noticed() {
    let guards: [Guard; 10] = [
        (
            Mutation::BelieveAnyTail,
            &[bug_28_a_misdirected_log_write, bug_41_a_watermark_that_does_not_advance],
        ),
        (
            Mutation::DurableWriteAsBarrier,
            &[bug_01_durable_without_a_flush, bug_34_acknowledged_before_its_own_sync],
        ),
        (Mutation::HeaderEarly, &[bug_07_the_older_tail_is_lost_and_the_newer_survives]),
        (Mutation::RetrySync, &[bug_14_a_failed_sync_is_tried_again]),
        (
            Mutation::ReclaimBeforeAnchor,
            &[bug_04_an_unlink_overtakes_a_rename, bug_25_an_aborted_reclaim_loses_data],
        ),
        (Mutation::ShowUnsynced, &[bug_14_a_failed_sync_is_tried_again]),
        (Mutation::GoOnBehindTornTail, &[bug_09_appending_behind_a_partial_record]),
        (Mutation::GoOnAfterFailure, &[bug_15_going_on_after_a_write_error]),
        (Mutation::ReadRecordsInPart, &[bug_06_a_torn_write_of_many_pages, bug_23_a_batch_in_part]),
        (
            Mutation::AcknowledgeWritten,
            &[bug_01_durable_without_a_flush, bug_34_acknowledged_before_its_own_sync],
        ),
    ];
    // Several frames in flight whose completions come in an unlucky order are a matter of seeds, and seen by torture's;
    // cuts have `truncate.rs` and `exhaustive.rs`, which has full disks too, followers `follow.rs` and `tail.rs`, noted
    // ends `closed.rs`.
    let elsewhere = [
        Mutation::AcknowledgeOutOfOrder,
        Mutation::CutLazily,
        Mutation::CutWithoutAnchor,
        Mutation::FollowPastDurable,
        Mutation::ForgetUnwritten,
        Mutation::TrustStaleEnd,
    ];
    let is_guarded = |mutation: &Mutation| guards.iter().any(|(guarded, _)| guarded == mutation);
    assert!(Mutation::ALL.iter().all(|mutation| is_guarded(mutation) != elsewhere.contains(mutation)));
    for (mutation, tests) in guards {
        for test in tests {
            assert!(rig::notices(*test, mutation), "{} goes unnoticed", mutation.name());
        }
    }
}
