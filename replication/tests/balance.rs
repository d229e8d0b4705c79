//! The router: who is asked, who is left out, and how the load spreads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use seawall_replication::balance::{
    Choice, Consistency, Need, Nobody, Report, Router, Session, Strategy, Target,
};
use seawall_wal::Lsn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Store {
    name: String,
    visible: AtomicU64,
    stale_us: AtomicU64,
    /// 0: no lease.
    lease: AtomicU64,
    healthy: AtomicU64,
    weight: u32,
}

impl Target for Store {
    fn name(&self) -> &str {
        &self.name
    }

    fn visible(&self) -> Lsn {
        Lsn(self.visible.load(Relaxed))
    }

    fn stale_us(&self) -> u64 {
        self.stale_us.load(Relaxed)
    }

    fn lease_until(&self) -> Option<u64> {
        Some(self.lease.load(Relaxed)).filter(|until| *until > 0)
    }

    fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed) > 0
    }

    fn weight(&self) -> u32 {
        self.weight
    }
}

fn store(name: &str, visible: u64, weight: u32) -> Arc<Store> {
    Arc::new(Store {
        name: name.to_owned(),
        visible: AtomicU64::new(visible),
        stale_us: AtomicU64::new(0),
        lease: AtomicU64::new(0),
        healthy: AtomicU64::new(1),
        weight,
    })
}

fn stores() -> Vec<Arc<Store>> {
    vec![store("a", 100, 1), store("b", 200, 2), store("c", 300, 5)]
}

fn asked(choice: Choice) -> Vec<usize> {
    match choice {
        Choice::Ask(places) => places,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_reads_its_own_writes_and_never_goes_back() {
    let mut router = Router::new(stores(), Strategy::Random, 1);
    let mut session = Session::default();
    session.wrote(Lsn(250));
    for _ in 0..50 {
        assert_eq!(asked(router.choose(0, &session.need(Need::any()))), [2]);
        router.report(0, 2, Report::Answered { latency_us: 10 });
    }
    session.saw(Lsn(400));
    assert_eq!(
        router.choose(0, &session.need(Need::any())),
        Choice::Wait(vec![2]),
        "the nearest is waited for"
    );
    router.report(0, 2, Report::Withdrawn);
    let hurried = Need { may_wait: false, ..session.need(Need::any()) };
    assert_eq!(router.choose(0, &hurried), Choice::Nobody(Nobody::Behind));
    session.saw(Lsn(10));
    assert_eq!(session.need(Need::any()).at_least, Lsn(400));
}

#[test]
fn what_is_too_old_is_not_asked() {
    let all = stores();
    all[0].stale_us.store(50, Relaxed);
    all[1].stale_us.store(5_000, Relaxed);
    all[2].stale_us.store(90_000, Relaxed);
    let mut router = Router::new(all, Strategy::RoundRobin, 1);
    let need = Need { stale_us_max: Some(10_000), ..Need::any() };
    let found: Vec<usize> = (0..4).flat_map(|_| asked(router.choose(0, &need))).collect();
    assert_eq!(found, [0, 1, 0, 1]);
    let need = Need { stale_us_max: Some(10), ..Need::any() };
    assert_eq!(router.choose(0, &need), Choice::Nobody(Nobody::Behind), "waiting makes nobody younger");
}

#[test]
fn consistency_is_so_many_answers() {
    let all = stores();
    let mut router = Router::new(all.clone(), Strategy::Random, 7);
    let by_name = |name: &str| Need { consistency: Consistency::by_name(name).unwrap(), ..Need::any() };
    let mut quorum = asked(router.choose(0, &by_name("quorum")));
    quorum.sort_unstable();
    quorum.dedup();
    assert_eq!(quorum.len(), 2);
    let mut found = asked(router.choose(0, &by_name("all")));
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2]);
    assert_eq!(router.choose(0, &by_name("primary")), Choice::Nobody(Nobody::NoPrimary));
    all[1].lease.store(500, Relaxed);
    all[2].lease.store(900, Relaxed);
    assert_eq!(asked(router.choose(400, &by_name("primary"))), [2], "the one whose lease lasts longest");
    assert_eq!(router.choose(900, &by_name("primary")), Choice::Nobody(Nobody::NoPrimary), "it has run out");
    all[0].healthy.store(0, Relaxed);
    assert_eq!(router.choose(0, &by_name("all")), Choice::Nobody(Nobody::Unhealthy));
    assert_eq!(asked(router.choose(0, &by_name("quorum"))).len(), 2, "two of three are left");
    all[1].healthy.store(0, Relaxed);
    assert_eq!(router.choose(0, &by_name("quorum")), Choice::Nobody(Nobody::Unhealthy), "a majority of all");
    assert_eq!(Consistency::by_name("most"), None);
}

#[test]
fn one_that_fails_is_left_out_and_comes_back() {
    let mut router = Router::new(stores(), Strategy::RoundRobin, 3);
    let mut now = 0;
    let mut hits = [0; 3];
    for _ in 0..300 {
        now += 1_000;
        let place = asked(router.choose(now, &Need::any()))[0];
        hits[place] += 1;
        router.report(
            now,
            place,
            if place == 1 { Report::Failed } else { Report::Answered { latency_us: 100 } },
        );
    }
    // Three failures, and one trial after 100 ms, which doubles the pause.
    assert!((4..=5).contains(&hits[1]), "{hits:?}");
    now += 10_000_000;
    // It is tried by one at a time.
    assert_eq!(asked(router.choose(now, &Need::any())), [1]);
    assert!((0..20).all(|_| asked(router.choose(now, &Need::any())) != [1]));
    router.report(now, 1, Report::Answered { latency_us: 100 });
    let again = (0..9).filter(|_| asked(router.choose(now, &Need::any())) == [1]).count();
    assert_eq!(again, 3, "it takes its turn");
}

#[test]
fn a_trial_that_nobody_reports_does_not_shut_a_target_out_for_ever() {
    let mut router = Router::new(vec![store("only", 1, 1)], Strategy::Random, 3);
    for _ in 0..3 {
        asked(router.choose(0, &Need::any()));
        router.report(0, 0, Report::Failed);
    }
    assert_eq!(router.choose(50_000, &Need::any()), Choice::Nobody(Nobody::Unhealthy));
    assert_eq!(asked(router.choose(200_000, &Need::any())), [0]);
    assert_eq!(router.choose(300_000, &Need::any()), Choice::Nobody(Nobody::Unhealthy));
    assert_eq!(asked(router.choose(40_000_000, &Need::any())), [0]);
}

fn spread(strategy: Strategy, rounds: u32, latency: [u64; 3]) -> [u32; 3] {
    let mut router = Router::new(stores(), strategy, 11);
    let mut hits = [0; 3];
    for round in 0..rounds {
        let place = asked(router.choose(u64::from(round), &Need::any()))[0];
        hits[place] += 1;
        router.report(u64::from(round), place, Report::Answered { latency_us: latency[place] });
    }
    hits
}

#[test]
fn each_strategy_spreads_as_it_says() {
    let near = |found: u32, expected: u32| found.abs_diff(expected) < expected / 5;
    assert!(spread(Strategy::Random, 3000, [1; 3]).iter().all(|hits| near(*hits, 1000)));
    assert_eq!(spread(Strategy::RoundRobin, 3000, [1; 3]), [1000; 3]);
    let weighted = spread(Strategy::Weighted, 8000, [1; 3]);
    assert!(
        [1000, 2000, 5000].iter().zip(weighted).all(|(expected, found)| near(found, *expected)),
        "{weighted:?}"
    );
    // Of two by chance the quicker: the slowest is never it, once that is known.
    let two = spread(Strategy::TwoChoices, 3000, [100, 200, 90_000]);
    assert!(two[2] < 30 && two[0] > two[1] && two[1] > 500, "{two:?}");
}

#[test]
fn a_target_that_stays_keeps_what_is_known_of_it() {
    let all = stores();
    let mut router = Router::new(all.clone(), Strategy::Random, 3);
    let only_b = Need { at_least: Lsn(150), ..Need::any() };
    all[2].healthy.store(0, Relaxed);
    for _ in 0..3 {
        assert_eq!(asked(router.choose(0, &only_b)), [1]);
        router.report(0, 1, Report::Failed);
    }
    router.set_targets(vec![all[1].clone(), store("new", 0, 1)]);
    assert_eq!(router.choose(0, &Need { may_wait: false, ..only_b }), Choice::Nobody(Nobody::Behind));
    assert_eq!(router.targets().count(), 2);
    assert_eq!(router.target(0).unwrap().name(), "b");
}
