//! Going back to where two logs part: from any moment of a store that is followed, and from any call of going back itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use seawall_engine::mutation::Mutation;
use seawall_engine::tree::Superblock;
use seawall_engine::{
    Db, DbBuilder, Error, Event, EventListener, ImageWriter, Keyspace, Lsn, Readable, Result, Rewound,
    SlotOptions, rewind,
};
use seawall_wal::disk::sim::{Fault, Op};
use seawall_wal::disk::{Disk, Open};
use seawall_wal::{History, SimDisk, SimRuntime, Turn, Wal, WalOptions};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const DIR: &str = "/dir/store";
const COPY: &str = "/dir/copy";
const COMMITS: u64 = 40;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A fault by its name.
type Named = (&'static str, fn() -> Fault);

thread_local! {
    /// The mistake that stores opened by this thread make.
    static MUTATION: Cell<Option<Mutation>> = const { Cell::new(None) };
}

fn builder_of(disk: &Arc<SimDisk>, dir: &str) -> DbBuilder {
    Db::builder(dir)
        .disk(disk.clone())
        .runtime(SimRuntime::new(1))
        .segment_bytes(64 << 10)
        .memory_budget(2 << 20)
        .background(false)
        .mutation(MUTATION.get())
}

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    builder_of(disk, DIR)
}

fn log_options(disk: &Arc<SimDisk>) -> WalOptions {
    Wal::options().segment_bytes(64 << 10).disk(disk.clone()).runtime(SimRuntime::new(1)).background(false)
}

/// Commit `n` of a store that began with `tag`.
fn commit(db: &Db, ks: &Keyspace, tag: u8, n: u64) -> Result<Lsn> {
    db.transact(|tx| {
        let len = if n.is_multiple_of(5) { 9000 } else { 300 };
        tx.insert(ks, format!("row {}", n % 9), vec![tag ^ n as u8; len])?;
        tx.insert(ks, "n", n.to_string())?;
        tx.add_i64(ks, "sum", n as i64)?;
        if n.is_multiple_of(7) {
            tx.remove_range(ks, "row 2".."row 5")?;
        }
        Ok(())
    })?;
    // Behind the commit's frame.
    Ok(Lsn(db.sync()?.0.next_multiple_of(4096)))
}

fn apply(rows: &mut Rows, tag: u8, n: u64) {
    let len = if n.is_multiple_of(5) { 9000 } else { 300 };
    rows.insert(format!("row {}", n % 9).into_bytes(), vec![tag ^ n as u8; len]);
    rows.insert(b"n".to_vec(), n.to_string().into_bytes());
    let sum = rows.get(&b"sum"[..]).map_or(0, |sum| i64::from_le_bytes(sum[..].try_into().unwrap()));
    rows.insert(b"sum".to_vec(), (sum + n as i64).to_le_bytes().to_vec());
    if n.is_multiple_of(7) {
        rows.retain(|key, _| !(&b"row 2"[..]..&b"row 5"[..]).contains(&&key[..]));
    }
}

fn model(n: u64) -> Rows {
    let mut rows = Rows::new();
    (1..=n).for_each(|n| apply(&mut rows, 0, n));
    rows
}

fn rows(db: &Db) -> Rows {
    let Some(ks) = db.open_keyspace("rows").unwrap() else { return Rows::new() };
    let all = db.snapshot().range(&ks, ..);
    all.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// What a run has come to.
#[derive(Clone, Debug, Default)]
struct Trace {
    /// Behind each commit that was acknowledged, from the keyspace's creation on.
    places: Vec<Lsn>,
    /// The last commit that the follower said it has.
    confirmed: Option<usize>,
    checkpoints: u64,
    postponed: u64,
}

impl Trace {
    fn confirm(&mut self, db: &Db, upto: usize) -> Result<()> {
        let place = self.places[upto];
        // Told before it is heard: whoever confirms has it.
        self.confirmed = Some(upto);
        db.advance_slot("replica", place, place.min(db.sync()?))
    }
}

/// Commits, with a follower that is `lag` commits behind; checkpoints, and reopenings, until something fails.
fn work(disk: &Arc<SimDisk>, lag: usize, trace: &mut Trace) -> Result<()> {
    let mut is_new = true;
    loop {
        let db = builder(disk).open()?;
        let ks = db.keyspace("rows")?;
        if is_new {
            trace.places.push(Lsn(db.sync()?.0.next_multiple_of(4096)));
            db.create_slot("replica", SlotOptions::default())?;
            trace.confirm(&db, 0)?;
            is_new = false;
        }
        loop {
            let n = trace.places.len() as u64;
            if n > COMMITS {
                drop(ks);
                return db.close();
            }
            let place = commit(&db, &ks, 0, n)?;
            trace.places.push(place);
            if n.is_multiple_of(3) && n as usize > lag {
                trace.confirm(&db, n as usize - lag)?;
            }
            if n.is_multiple_of(4) {
                let made = db.checkpoint()?;
                trace.checkpoints += u64::from(made.bytes > 0);
                trace.postponed += u64::from(made.bytes == 0);
            }
            if n.is_multiple_of(15) {
                break;
            }
        }
        drop(ks);
        db.close()?;
    }
}

fn history(to: Lsn) -> History {
    let mut history = History::default();
    history.push(Turn { epoch: 1, start: to }).unwrap();
    history
}

fn go_back(disk: &Arc<SimDisk>, to: Lsn) -> Result<Rewound> {
    rewind(&builder(disk), to, 1, &history(to))
}

/// The store that was taken back, as one that goes on by itself.
fn promoted(disk: &Arc<SimDisk>, dir: &str, epoch: u64) -> Db {
    let log = log_options(disk).replica(true).open(Path::new(dir).join("log")).unwrap();
    log.promote(epoch).unwrap();
    log.close().unwrap();
    let db = builder_of(disk, dir).create(false).open().unwrap();
    assert_eq!(db.verify(|_| {}).unwrap().problems, [""; 0]);
    db
}

/// It holds the first `n` commits, and goes on from there.
fn check(disk: &Arc<SimDisk>, n: u64, what: &str) {
    let db = promoted(disk, DIR, 2);
    assert!(rows(&db) == model(n), "{what}: not exactly the first {n} commits");
    let mut expected = model(n);
    let ks = db.keyspace("rows").unwrap();
    for n in n + 1..n + 12 {
        commit(&db, &ks, 77, n).unwrap();
        apply(&mut expected, 77, n);
        if n.is_multiple_of(3) {
            db.checkpoint().unwrap();
        }
    }
    drop((ks, db));
    let db = builder(&disk.crash()).open().unwrap();
    assert!(rows(&db) == expected, "{what}: what came after");
    assert_eq!(db.verify(|_| {}).unwrap().problems, [""; 0], "{what}");
}

/// Whether the newer superblock is beyond that.
fn is_ahead(disk: &Arc<SimDisk>, to: Lsn) -> bool {
    let mut head = vec![0; 8192];
    let file = disk.open(&Path::new(DIR).join("data"), Open::Read).unwrap();
    file.read_at(&mut head, 0).unwrap();
    Superblock::newest(&head).unwrap().checkpoint_lsn > to
}

#[test]
fn a_store_that_is_followed_goes_back_to_what_its_follower_has() {
    let mut went_back = 0;
    for lag in [0, 1, 2, 5] {
        let disk = SimDisk::new(lag as u64);
        let mut trace = Trace::default();
        work(&disk, lag, &mut trace).unwrap();
        assert!(trace.checkpoints > 2, "{trace:?}");
        let confirmed = trace.confirmed.unwrap();
        for n in confirmed..trace.places.len() {
            let copy = disk.crash_copy();
            let to = trace.places[n];
            went_back += u64::from(is_ahead(&copy, to));
            let rewound = go_back(&copy, to).unwrap();
            assert!(rewound.checkpoint_lsn <= to);
            // Behind the last commit there is a seal, at most.
            let is_last = n + 1 == trace.places.len();
            assert!(if is_last { rewound.cut_bytes <= 4096 } else { rewound.cut_bytes > 0 }, "{rewound:?}");
            // Once more changes nothing.
            assert_eq!(go_back(&copy, to).unwrap().checkpoint_lsn, rewound.checkpoint_lsn);
            check(&copy, n as u64, &format!("lag {lag}, back to commit {n}"));
        }
    }
    assert!(went_back > 5, "{went_back}");
}

#[test]
fn from_any_call_of_a_store_that_is_followed_there_is_a_way_back() {
    let calls = {
        let disk = SimDisk::new(1);
        work(&disk, 2, &mut Trace::default()).unwrap();
        disk.calls()
    };
    let (mut went_back, mut rewound) = (0, 0);
    for call in 1..=calls {
        let disk = SimDisk::new(call);
        let fault = if call % 3 == 0 { Fault::eio(Op::Any) } else { Fault::power_cut() };
        disk.fail(fault.at_call(call));
        let mut trace = Trace::default();
        let _ = work(&disk, 2, &mut trace);
        let Some(confirmed) = trace.confirmed else { continue };
        let (disk, to) = (disk.crash(), trace.places[confirmed]);
        went_back += u64::from(is_ahead(&disk, to));
        rewound += 1;
        let what = format!("call {call}, back to commit {confirmed}");
        go_back(&disk, to).unwrap_or_else(|error| panic!("{what}: {error}"));
        check(&disk, confirmed as u64, &what);
    }
    assert!(rewound > 100 && went_back > 10, "{rewound} {went_back}");
}

#[test]
fn a_fault_at_any_call_of_going_back_leaves_a_store_that_goes_back() {
    let mut trace = Trace::default();
    // Its end is a moment at which only the older superblock will do.
    let mut is_usable = |disk: &Arc<SimDisk>, call: u64| {
        trace = Trace::default();
        disk.fail(Fault::power_cut().at_call(call));
        let _ = work(disk, 3, &mut trace);
        let crashed = disk.crash();
        let confirmed = trace.confirmed.filter(|_| trace.places.len() > 25)?;
        is_ahead(&crashed, trace.places[confirmed]).then_some((crashed, confirmed))
    };
    let (disk, confirmed) = (200..).step_by(3).find_map(|call| is_usable(&SimDisk::new(1), call)).unwrap();
    let to = trace.places[confirmed];
    let calls = {
        let copy = disk.crash_copy();
        let before = copy.calls();
        go_back(&copy, to).unwrap();
        copy.calls() - before
    };
    let faults: [Named; 4] = [
        ("a power cut", Fault::power_cut),
        ("EIO", || Fault::eio(Op::Any)),
        ("ENOSPC", || Fault::full(Op::Any)),
        ("a dropped sync", Fault::dropped_sync),
    ];
    for (name, fault) in faults {
        for call in 1..=calls {
            let copy = disk.crash_copy();
            copy.fail(fault().at_call(copy.calls() + call));
            let done = go_back(&copy, to).is_ok();
            assert!(!done || name != "a power cut", "the power failed, and nothing was missed");
            let copy = copy.crash();
            let what = format!("{name} at call {call}");
            go_back(&copy, to).unwrap_or_else(|error| panic!("{what}: {error}"));
            check(&copy, confirmed as u64, &what);
        }
    }
}

/// A primary, a replica that takes over, and the way of the first one to follow the second.
#[test]
fn a_primary_that_was_ahead_of_its_successor_follows_it() {
    let (one, two) = (SimDisk::new(1), SimDisk::new(2));
    let db = builder(&one).open().unwrap();
    let ks = db.keyspace("rows").unwrap();
    for n in 1..20 {
        commit(&db, &ks, 0, n).unwrap();
    }
    db.create_slot("replica", SlotOptions::default()).unwrap();
    let image = db.image().unwrap();
    let mut writer = ImageWriter::begin(&builder_of(&two, COPY), image.info()).unwrap();
    while let Some(piece) = image.piece(writer.offset(), 1 << 20).unwrap() {
        writer.write(&piece).unwrap();
    }
    writer.finish(0, &History::default()).unwrap();
    drop(image);
    let mut shipped = Lsn::ZERO;
    for n in 20..30 {
        shipped = commit(&db, &ks, 0, n).unwrap();
    }
    db.advance_slot("replica", shipped, db.sync().unwrap()).unwrap();
    let primary = log_options(&one.crash_copy()).open(Path::new(DIR).join("log")).unwrap();
    let replica = log_options(&two).replica(true).open(Path::new(COPY).join("log")).unwrap();
    let ship = |from: &Wal, to: &Wal| {
        let mut shipper = from.ship(to.tail().place).unwrap();
        while let Some(piece) = shipper.next_piece(32 << 10).unwrap() {
            to.accept(&piece).unwrap();
        }
        to.sync_replica().unwrap();
    };
    ship(&primary, &replica);
    drop((primary, replica));
    // More that nobody has, and checkpoints over it, as far as they are made.
    for n in 30..50 {
        commit(&db, &ks, 0, n).unwrap();
        if n.is_multiple_of(4) {
            db.checkpoint().unwrap();
        }
    }
    drop((ks, db));
    let one = one.crash();
    let log = log_options(&two).replica(true).open(Path::new(COPY).join("log")).unwrap();
    log.promote(1).unwrap();
    let timeline = log.timeline();
    log.close().unwrap();
    let successor = builder_of(&two, COPY).open().unwrap();
    let mut expected = model(29);
    assert!(rows(&successor) == expected);
    let ks = successor.keyspace("rows").unwrap();
    for n in 30..45 {
        commit(&successor, &ks, 9, n).unwrap();
        apply(&mut expected, 9, n);
    }
    let fork = timeline.history.turns().last().unwrap().start;
    assert_eq!(fork, shipped);
    assert!(is_ahead(&one, fork), "the way back is the older superblock");
    let rewound = rewind(&builder(&one), fork, 1, &timeline.history).unwrap();
    assert!(rewound.cut_bytes > 0 && rewound.checkpoint_lsn <= fork);
    let follower = log_options(&one).replica(true).open(Path::new(DIR).join("log")).unwrap();
    let log = log_options(&two.crash_copy()).open(Path::new(COPY).join("log")).unwrap();
    ship(&log, &follower);
    follower.close().unwrap();
    let follower = promoted(&one, DIR, 2);
    assert!(rows(&follower) == expected);
    assert_eq!(follower.slots(), [], "they were the primary's");
}

#[test]
fn what_cannot_go_back_says_so_and_stays_as_it_is() {
    let disk = SimDisk::new(1);
    let db = builder(&disk).open().unwrap();
    let ks = db.keyspace("rows").unwrap();
    let early = commit(&db, &ks, 0, 1).unwrap();
    for n in 2..30 {
        commit(&db, &ks, 0, n).unwrap();
        if n.is_multiple_of(10) {
            db.checkpoint().unwrap();
        }
    }
    assert!(matches!(go_back(&disk, early), Err(Error::Locked { .. })));
    drop((ks, db));
    assert!(matches!(go_back(&disk, early), Err(Error::NeedsImage { to, .. }) if to == early));
    let db = builder(&disk).open().unwrap();
    assert!(rows(&db) == model(29));
}

/// Values that were streamed in before anybody followed, and that what is cut names, or what stays.
#[test]
fn what_cut_records_name_is_free_again() {
    let disk = SimDisk::new(1);
    let streaming = || builder(&disk).stream(16 << 10, 16 << 10);
    let db = streaming().open().unwrap();
    let ks = db.keyspace("rows").unwrap();
    let stream = |key: &str, byte: u8| {
        db.transact(|tx| tx.insert_from(&ks, key, 100_000, std::io::repeat(byte).take(100_000))).unwrap();
        Lsn(db.sync().unwrap().0.next_multiple_of(4096))
    };
    stream("replaced", 1);
    let to = stream("stays", 2);
    stream("goes", 3);
    stream("replaced", 4);
    let mut prepared = db.begin();
    prepared.insert_from(&ks, "in doubt", 50_000, std::io::repeat(5).take(50_000)).unwrap();
    prepared.prepare(seawall_engine::Xid::new(7, "in doubt", "x").unwrap()).unwrap();
    let disk = disk.crash_copy();
    go_back(&disk, to).unwrap();
    let db = promoted(&disk, DIR, 2);
    let expected = |db: &Db| {
        let rows = rows(db);
        assert_eq!(rows[&b"replaced"[..]], vec![1; 100_000]);
        assert_eq!(rows[&b"stays"[..]], vec![2; 100_000]);
        assert!(!rows.contains_key(&b"goes"[..]) && db.prepared().next().is_none());
    };
    expected(&db);
    let ks = db.keyspace("rows").unwrap();
    for n in 1..60 {
        commit(&db, &ks, 0, n).unwrap();
        if n.is_multiple_of(6) {
            db.checkpoint().unwrap();
            expected(&db);
            assert_eq!(db.verify(|_| {}).unwrap().problems, [""; 0]);
        }
    }
}

/// They were the primary's. As a replica's, nobody would move them on, and they would hold its log for ever.
#[test]
fn slots_of_the_primary_that_it_was_are_gone() {
    let disk = SimDisk::new(1);
    let mut trace = Trace::default();
    work(&disk, 2, &mut trace).unwrap();
    let db = builder(&disk).open().unwrap();
    let last = trace.places.len() - 1;
    db.create_slot_at("behind", SlotOptions::default(), trace.places[last - 2]).unwrap();
    db.create_slot("ahead", SlotOptions::default()).unwrap();
    db.advance_slot("ahead", trace.places[last], db.sync().unwrap()).unwrap();
    db.close().unwrap();
    go_back(&disk, trace.places[last - 1]).unwrap();
    let db = promoted(&disk, DIR, 2);
    assert_eq!(db.slots(), []);
    let first = db.shipping().wal().first_lsn();
    let ks = db.open_keyspace("rows").unwrap().unwrap();
    for n in 0..200_u64 {
        ks.insert(n.to_be_bytes(), vec![7; 4000]).unwrap();
    }
    db.checkpoint().unwrap();
    assert!(db.shipping().wal().first_lsn() > first, "the log is given back");
}

#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl EventListener for Told {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[test]
fn checkpoints_wait_for_followers_but_not_at_any_price() {
    let disk = SimDisk::new(1);
    let runtime = SimRuntime::new(1);
    let told = Arc::new(Told::default());
    let db = builder(&disk).runtime(runtime.clone()).events(told.clone()).open().unwrap();
    let ks = db.keyspace("rows").unwrap();
    db.create_slot("replica", SlotOptions::default()).unwrap();
    let first = commit(&db, &ks, 0, 1).unwrap();
    db.advance_slot("replica", first, first.min(db.sync().unwrap())).unwrap();
    // One checkpoint beyond the follower is harmless: the older superblock stays.
    commit(&db, &ks, 0, 2).unwrap();
    assert!(db.checkpoint().unwrap().bytes > 0);
    commit(&db, &ks, 0, 3).unwrap();
    assert_eq!(db.checkpoint().unwrap().bytes, 0, "a second one would take the way back");
    // The follower comes along.
    let place = Lsn(db.sync().unwrap().0.next_multiple_of(4096));
    db.advance_slot("replica", place, db.sync().unwrap()).unwrap();
    commit(&db, &ks, 0, 4).unwrap();
    assert!(db.checkpoint().unwrap().bytes > 0);
    commit(&db, &ks, 0, 5).unwrap();
    assert_eq!(db.checkpoint().unwrap().bytes, 0);
    // One that is not heard of any more is not waited for.
    runtime.advance(Duration::from_secs(11));
    assert!(db.checkpoint().unwrap().bytes > 0);
    let given_up =
        || told.0.lock().unwrap().iter().filter(|event| matches!(event, Event::RewindGivenUp { .. })).count();
    assert_eq!(given_up(), 0);
    // And memory is worth more than a way back.
    db.advance_slot("replica", place, place.min(db.sync().unwrap())).unwrap();
    let mut made = 0;
    for n in 6..120_u64 {
        ks.insert(format!("filler {n}"), vec![1; 15_000]).unwrap();
        made += u64::from(n.is_multiple_of(3) && db.checkpoint().unwrap().bytes > 0);
    }
    assert!(made > 1 && given_up() > 0, "{made} checkpoints, {} given up", given_up());
    assert_eq!(db.verify(|_| {}).unwrap().problems, [""; 0]);
}

#[test]
fn checkpoints_that_take_the_way_back_are_noticed() {
    MUTATION.set(Some(Mutation::OverwriteOlder));
    let guards: [fn(); 2] = [
        a_store_that_is_followed_goes_back_to_what_its_follower_has,
        from_any_call_of_a_store_that_is_followed_there_is_a_way_back,
    ];
    let outcomes = guards.map(std::panic::catch_unwind);
    MUTATION.set(None);
    assert!(outcomes.iter().all(std::result::Result::is_err));
}
