//! The sequencer over a log that does what a test says, and when.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::Xid;
use crate::commit::log::OnNews;
use crate::commit::pending::APPLIED;
use crate::commit::prepared::branch::{Branch, Ending, Fate};
use crate::commit::prepared::table::Limits;
use crate::commit::ticket::Ticket;
use crate::memory::Charge;
use crate::read::track::ReadSet;
use crate::read::view::View;
use crate::record::{Builder, CatalogueRow, Completion, KeyspaceOptions, PreparedRow};
use crate::tree::{Superblock, TreeStore};
use seawall_wal::disk::{Disk, Open};
use seawall_wal::{Durability, OsRuntime, RecordRef, Recovery, Retainer, SimDisk, WalStats};
use std::path::Path;

fn uncharged() -> Charge {
    Charge::none(&Arc::default())
}

const ACK_TIMEOUT: Duration = Duration::from_millis(30);

/// Every record takes 10; what is reached, and what fails, is set by hand.
#[derive(Default)]
struct Mock {
    state: Mutex<MockState>,
    recovery: Recovery,
}

#[derive(Default)]
struct MockState {
    next: u64,
    reached: u64,
    withdrawn: Option<(Lsn, Lsn)>,
    has_failed: bool,
    listener: Option<Arc<OnNews>>,
    rooms_refused: u32,
}

impl MockState {
    fn outcome(&self, place: &Place) -> Option<Result<Outcome>> {
        if place.end.0 <= self.reached {
            Some(Ok(Outcome::Reached))
        } else if let Some((from, to)) = self.withdrawn.filter(|(from, to)| (*from..*to).contains(&place.lsn))
        {
            Some(Ok(Outcome::Withdrawn { from, to }))
        } else {
            self.has_failed.then_some(Err(Error::CommitUnknown { lsn: place.lsn }))
        }
    }
}

impl Mock {
    fn change(&self, change: impl FnOnce(&mut MockState)) {
        let (listener, news) = {
            let mut state = self.state.lock();
            change(&mut state);
            let news = match state.withdrawn {
                _ if state.has_failed => News::Failed,
                Some((from, to)) => News::Withdrawn { from, to },
                None => News::Moved,
            };
            (state.listener.clone(), news)
        };
        if let Some(listener) = listener {
            listener(news);
        }
    }

    fn reach(&self, lsn: u64) {
        self.change(|state| state.reached = lsn);
    }
}

impl CommitLog for Mock {
    fn make_room(&self, _: usize) -> Result<()> {
        let state = self.state.lock();
        if state.has_failed {
            return Err(Error::Poisoned(Arc::new(Error::BadInput("the disk is on fire".into()))));
        }
        Ok(())
    }
    fn place(&self, _: &[u8], _: Durability) -> Result<Option<Place>> {
        let mut state = self.state.lock();
        if state.rooms_refused > 0 {
            state.rooms_refused -= 1;
            return Ok(None);
        }
        state.next += 10;
        Ok(Some(Place::mock(Lsn(state.next), Lsn(state.next + 10))))
    }
    fn is_reached(&self, place: &Place) -> bool {
        self.state.lock().reached >= place.end.0
    }
    fn wait_for(&self, place: &Place, timeout: Option<Duration>) -> Result<Outcome> {
        let outcome = self.state.lock().outcome(place);
        outcome.unwrap_or_else(|| {
            assert!(timeout.is_some(), "nobody would ever wake this waiter");
            Ok(Outcome::TimedOut)
        })
    }
    fn drive(&self, _: &Place) {}
    fn listen(&self, listener: OnNews) {
        self.state.lock().listener = Some(Arc::new(listener));
    }
    fn barrier(&self) -> Result<Lsn> {
        Ok(Lsn(self.state.lock().next + 10))
    }
    fn sync(&self) -> Result<Lsn> {
        Ok(Lsn::ZERO)
    }
    fn sync_to(&self, _: Lsn) -> Result<()> {
        Ok(())
    }
    fn next_lsn(&self) -> Lsn {
        Lsn(self.state.lock().next)
    }
    fn log_bytes(&self) -> u64 {
        0
    }
    fn release_before(&self, _: Lsn) -> Result<()> {
        Ok(())
    }
    fn retained(&self) -> Vec<Retainer> {
        Vec::new()
    }
    fn stats(&self) -> WalStats {
        WalStats::default()
    }
    fn recovery(&self) -> &Recovery {
        &self.recovery
    }
    fn replay(&self, _: Lsn, _: &mut dyn FnMut(RecordRef<'_>) -> Result<()>) -> Result<()> {
        Ok(())
    }
    fn dir(&self) -> &Path {
        Path::new("mock")
    }
    fn resume(&self) -> Result<()> {
        Ok(())
    }
    fn close(&self) -> Result<()> {
        Ok(())
    }
}

struct World {
    log: Arc<Mock>,
    reads: Arc<Reads>,
    catalogue: Arc<Catalogue>,
    sequencer: Arc<Sequencer>,
}

impl World {
    fn new() -> World {
        let path = Path::new("/data");
        let file = SimDisk::new(1).open(path, Open::CreateNew).unwrap();
        TreeStore::create(Arc::clone(&file), path, &Superblock::default()).unwrap();
        let (store, root) = TreeStore::open(SimDisk::new(0), file, path, 1 << 20, false).unwrap();
        let runtime: Arc<dyn Runtime> = OsRuntime::new();
        let view = View { active: Arc::default(), frozen: Vec::new(), root };
        let reads = Arc::new(Reads::new(store, view, Lsn(5), Arc::clone(&runtime)));
        let catalogue = Arc::new(Catalogue::new(1, 1));
        let log = Arc::new(Mock::default());
        let gate = Arc::new(Gate::new(ACK_TIMEOUT));
        let sequencer =
            Sequencer::new(Arc::clone(&log) as _, gate, runtime, Arc::clone(&reads), Arc::clone(&catalogue));
        World { log, reads, catalogue, sequencer }
    }

    fn try_put(&self, key: &str, snapshot: Option<Lsn>) -> Result<Arc<Pending>> {
        let mut builder = Builder::default();
        builder.put(1, key.as_bytes(), b"v");
        let reads = ReadSet::default();
        let seen = snapshot.map(|snapshot| Seen { snapshot, reads: &reads });
        self.sequencer.commit(builder.finish(), &[], seen, Reach::local(Durability::Synced))
    }

    fn put(&self, key: &str) -> Arc<Pending> {
        self.try_put(key, None).unwrap()
    }

    fn get(&self, key: &str) -> Option<seawall_wal::Slice> {
        let (view, lsn) = self.reads.now();
        self.reads.get(&view, lsn, 1, key.as_bytes()).unwrap()
    }

    fn settled(&self, pending: &Pending) -> Option<Result<Lsn>> {
        self.sequencer.settled(pending)
    }
}

#[test]
fn a_commit_is_visible_only_when_the_log_has_reached_it_and_all_before() {
    let world = World::new();
    let (a, b) = (world.put("a"), world.put("b"));
    assert!(world.get("a").is_none() && world.settled(&a).is_none());
    world.log.reach(a.end().0);
    world.sequencer.advance();
    assert!(world.get("a").is_some() && world.get("b").is_none());
    assert!(matches!(world.settled(&a), Some(Ok(lsn)) if lsn == a.lsn()));
    assert_eq!(world.sequencer.wait(&b, Some(Duration::ZERO)).map(|r| r.is_ok()), None);
    world.log.reach(b.end().0);
    assert!(world.sequencer.wait(&b, None).unwrap().is_ok());
    assert!(world.get("b").is_some());
}

#[test]
fn an_unapplied_predecessor_holds_back_what_follows() {
    let world = World::new();
    let (a, b) = (world.put("a"), world.put("b"));
    a.flags.store(0, Ordering::SeqCst);
    world.log.reach(b.end().0);
    world.sequencer.advance();
    assert!(world.settled(&b).is_none() && world.get("b").is_none());
    // Validation sees it all the same.
    assert!(world.try_put("a", Some(Lsn(5))).unwrap_err().is_conflict());
    let waiter = {
        let (sequencer, b) = (Arc::clone(&world.sequencer), Arc::clone(&b));
        OsRuntime::new().spawn("waiter", Box::new(move || assert!(sequencer.wait(&b, None).unwrap().is_ok())))
    };
    a.flags.store(APPLIED, Ordering::SeqCst);
    assert!(world.sequencer.wait(&a, None).unwrap().is_ok());
    assert!(!waiter.unwrap().join());
}

#[test]
fn the_first_committer_wins_even_while_it_is_invisible() {
    let world = World::new();
    let snapshot = world.reads.snapshot(1, true);
    world.put("a");
    assert!(world.try_put("a", Some(snapshot.lsn())).unwrap_err().is_conflict());
    assert!(world.try_put("b", Some(snapshot.lsn())).is_ok());
    assert!(world.try_put("a", None).is_ok(), "a blind write never conflicts");
    world.log.state.lock().rooms_refused = 3;
    assert!(world.try_put("c", Some(snapshot.lsn())).is_ok(), "room is asked for again");
}

#[test]
fn a_freeze_takes_what_was_reserved_before_it() {
    let world = World::new();
    let a = world.put("a");
    let end = world.sequencer.freeze().unwrap();
    let b = world.put("b");
    assert!(a.end() <= end && b.lsn() >= end);
    let view = world.reads.view();
    assert_eq!((view.frozen.len(), view.frozen[0].end()), (1, end));
    assert!(view.frozen[0].newest_lsn(1, b"a").is_some() && view.active.newest_lsn(1, b"b").is_some());
    world.log.reach(a.end().0);
    world.sequencer.advance();
    assert_eq!(world.reads.visible(), end);
    assert!(world.sequencer.wait_visible(end).is_ok());
    // Nothing new: nothing is frozen.
    world.log.reach(b.end().0);
    world.sequencer.advance();
    world.sequencer.freeze().unwrap();
    world.sequencer.freeze().unwrap();
    assert_eq!(world.reads.view().frozen.len(), 2);
}

#[test]
fn a_failed_log_leaves_what_it_reached_and_loses_the_rest() {
    let world = World::new();
    let (a, b, c) = (world.put("a"), world.put("b"), world.put("c"));
    let told = Arc::new(Mutex::new(None));
    world.sequencer.notify(&c);
    let result = Arc::clone(&told);
    Ticket::pending(Arc::clone(&world.sequencer), Arc::clone(&c), uncharged())
        .on_done(move |r| *result.lock() = Some(r));
    world.log.state.lock().reached = a.end().0;
    world.log.change(|state| state.has_failed = true);
    assert!(matches!(world.settled(&a), Some(Ok(_))));
    assert!(matches!(world.settled(&b), Some(Err(Error::CommitUnknown { lsn })) if lsn == b.lsn()));
    assert!(matches!(&*told.lock(), Some(Err(Error::CommitUnknown { lsn })) if *lsn == c.lsn()));
    assert!(world.get("a").is_some() && world.get("b").is_none());
    world.log.state.lock().has_failed = false;
    let refused = world.try_put("d", None).unwrap_err();
    assert!(matches!(&refused, Error::Poisoned(cause) if cause.to_string().contains("on fire")));
    world.log.reach(c.end().0);
    world.sequencer.advance();
    assert!(world.get("b").is_none(), "visible moves no more");
    assert!(world.sequencer.freeze().is_err());
}

/// A log that is agreed upon with others may take back what nobody has seen.
#[test]
fn what_is_withdrawn_was_never_there() {
    let world = World::new();
    let a = world.put("a");
    let life = world.catalogue.conceive("new", KeyspaceOptions::default()).unwrap();
    let mut builder = Builder::default();
    let row = CatalogueRow::new(life.id(), KeyspaceOptions::default()).encode();
    builder.create_keyspace(life.id(), "new", &row);
    builder.put(life.id(), b"k", b"v");
    builder.put(1, b"b", b"v");
    let b = world
        .sequencer
        .commit(builder.finish(), &[Arc::clone(&life)], None, Reach::local(Durability::Synced))
        .unwrap();
    assert!(life.is_writable());
    world.sequencer.notify(&b);
    world.log.change(|state| state.withdrawn = Some((b.lsn(), b.end())));
    assert!(matches!(world.settled(&b), Some(Err(error)) if error.is_conflict()));
    world.log.state.lock().withdrawn = None;
    let c = world.put("c");
    world.log.reach(c.end().0);
    assert!(world.sequencer.wait(&c, None).unwrap().is_ok());
    assert!(matches!(world.settled(&a), Some(Ok(_))));
    assert!(matches!(world.settled(&b), Some(Err(_))), "it stays withdrawn");
    assert!(world.get("b").is_none() && world.get("c").is_some() && !life.is_writable());
    assert_eq!(world.reads.view().active.keyspaces(), [1]);
}

/// A vote, and an outcome behind it, that the log takes back: nothing is prepared, nothing is held, and who asks for an outcome
/// all the same is told so. An outcome alone that is taken back leaves it prepared.
#[test]
fn what_is_withdrawn_was_never_prepared() {
    let world = World::new();
    let reads = ReadSet::default();
    let mut number = 0;
    let mut vote = || {
        number += 1;
        let mut builder = Builder::default();
        builder.put(1, b"held", b"v");
        let row = PreparedRow {
            serial: world.sequencer.next_serial(),
            lsn: 0,
            time_us: 0,
            is_serializable: false,
            reads: reads.clone(),
            set: builder.finish(),
        };
        let xid = Xid::new(1, [number], "b").unwrap();
        let mut builder = Builder::default();
        builder.prepare(&xid, &row);
        let branch = Arc::new(Branch::new(xid, row, 10));
        let seen = Seen { snapshot: world.reads.visible(), reads: &reads };
        let role = Role::Prepare(&branch, seen, Limits { count: 9, bytes: 99 });
        let pending =
            world.sequencer.commit_as(role, builder.finish(), &[], Reach::local(Durability::Synced)).unwrap();
        (branch, pending)
    };
    let end = |branch: &Arc<Branch>| {
        let mut builder = Builder::behind(&branch.set);
        let completion = Completion { outcome: Ending::Commit.code(), serial: branch.serial, time_us: 0 };
        builder.outcome(&branch.xid, completion);
        let role = Role::Outcome(branch, Ending::Commit);
        world.sequencer.commit_as(role, builder.finish(), &[], Reach::local(Durability::Synced)).unwrap()
    };
    let withdraw = |from: Lsn, to: Lsn| {
        world.log.change(|state| state.withdrawn = Some((from, to)));
        world.log.state.lock().withdrawn = None;
    };
    let is_held = || matches!(world.try_put("held", None), Err(Error::PreparedConflict { .. }));

    let (alone, pending) = vote();
    assert!(is_held() && world.sequencer.prepared_size() == (1, 10));
    withdraw(pending.lsn(), pending.end());
    assert_eq!(world.sequencer.prepared_size(), (0, 0));
    assert!(matches!(*alone.fate.lock(), Fate::Done(_, Ending::Rollback)));
    assert!(world.sequencer.branch(&alone.xid).is_none());

    let (with_outcome, pending) = vote();
    let outcome = end(&with_outcome);
    withdraw(pending.lsn(), outcome.end());
    assert_eq!(world.sequencer.prepared_size(), (0, 0));
    assert!(matches!(*with_outcome.fate.lock(), Fate::Done(_, Ending::Rollback)));

    let (kept, pending) = vote();
    world.log.reach(pending.end().0);
    assert!(world.sequencer.wait(&pending, None).unwrap().is_ok());
    let outcome = end(&kept);
    assert_eq!(world.sequencer.prepared_size(), (0, 0));
    assert!(world.sequencer.branch(&kept.xid).is_some(), "its outcome is not visible yet");
    withdraw(outcome.lsn(), outcome.end());
    assert!(is_held() && matches!(*kept.fate.lock(), Fate::Open));
    assert_eq!(world.sequencer.branches(0, 9).len(), 1);
    let outcome = end(&kept);
    world.log.reach(outcome.end().0);
    assert!(world.sequencer.wait(&outcome, None).unwrap().is_ok());
    assert!(world.sequencer.branch(&kept.xid).is_none() && world.sequencer.branches(0, 9).is_empty());
    assert!(world.try_put("held", None).is_ok());
}

#[test]
fn closing_refuses_commits_and_lets_those_in_flight_end() {
    let world = World::new();
    let a = world.put("a");
    world.sequencer.close();
    assert!(matches!(world.try_put("b", None), Err(Error::Closed)));
    assert!(matches!(world.sequencer.check(), Err(Error::Closed)));
    world.log.reach(a.end().0);
    assert!(world.sequencer.wait(&a, None).unwrap().is_ok());
}

/// Many committers, tickets and blocking ones, and a log that reaches them late and in lumps: nobody hangs.
#[test]
fn nobody_waits_for_ever() {
    let world = World::new();
    let done = Arc::new(AtomicU64::new(0));
    let world = &world;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let done = Arc::clone(&done);
            scope.spawn(move || {
                for n in 0..200 {
                    let pending = world.put(&format!("{thread}-{n}"));
                    world.sequencer.notify(&pending);
                    if n % 2 == 0 {
                        let ready = || world.sequencer.settled(&pending);
                        assert!(world.sequencer.park(None, ready).unwrap().is_ok());
                        done.fetch_add(1, Ordering::SeqCst);
                    } else {
                        let done = Arc::clone(&done);
                        let ticket = Ticket::pending(Arc::clone(&world.sequencer), pending, uncharged());
                        ticket.on_done(move |result| {
                            result.unwrap();
                            done.fetch_add(1, Ordering::SeqCst);
                        });
                    }
                }
            });
        }
        scope.spawn(|| {
            while done.load(Ordering::SeqCst) < 800 {
                let next = world.log.state.lock().next + 10;
                world.log.reach(next);
                std::thread::yield_now();
            }
        });
    });
    assert_eq!(done.load(Ordering::SeqCst), 800);
}
