//! Slots: what they keep of the log, over checkpoints, restarts, power cuts and failing calls; what they cost at most.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use seawall_engine::mutation::Mutation;
use seawall_engine::{
    Db, DbBuilder, Error, Event, EventListener, Lsn, Readable, Result, SlotOptions, SlotState,
};
use seawall_wal::disk::sim::{Fault, Op};
use seawall_wal::disk::{Disk, Open};
use seawall_wal::{SimDisk, SimRuntime, Wal};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const DIR: &str = "/dir/store";
const SEGMENT_BYTES: u64 = 64 << 10;

/// A fault by its name.
type Named = (&'static str, fn() -> Fault);

thread_local! {
    /// The mistake that stores opened by this thread make.
    static MUTATION: Cell<Option<Mutation>> = const { Cell::new(None) };
}

fn builder(disk: &Arc<SimDisk>) -> DbBuilder {
    Db::builder(DIR)
        .disk(disk.clone())
        .segment_bytes(SEGMENT_BYTES)
        .memory_budget(1 << 20)
        .background(false)
        .mutation(MUTATION.get())
}

fn open(disk: &Arc<SimDisk>) -> Db {
    builder(disk).open().unwrap()
}

fn unlimited() -> SlotOptions {
    SlotOptions::default()
}

/// About `bytes` of log, in commits of 8 KiB.
fn write(db: &Db, bytes: u64) -> Result<Lsn> {
    let rows = db.keyspace("rows")?;
    let mut end = Lsn::ZERO;
    for n in 0..bytes.div_ceil(8 << 10) {
        end = rows.insert(format!("{}", n % 5), vec![n as u8; 8000])?;
    }
    Ok(end)
}

/// Where the log begins, as its files have it. The store must be closed.
fn log_begins(disk: &Arc<SimDisk>) -> Lsn {
    let wal = Wal::options().disk(disk.clone()).read_only(true).open(Path::new(DIR).join("log")).unwrap();
    wal.first_lsn()
}

fn slot(db: &Db, name: &str) -> seawall_engine::SlotStatus {
    db.slots().into_iter().find(|slot| slot.name == name).unwrap_or_else(|| panic!("no slot {name}"))
}

#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl EventListener for Told {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[test]
fn a_slot_keeps_the_log_from_its_position_on_until_it_moves_or_goes() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    write(&db, 100 << 10).unwrap();
    db.checkpoint().unwrap();
    let begin = db.stats().checkpoint_lsn;
    db.create_slot("a", unlimited()).unwrap();
    assert_eq!((slot(&db, "a").lsn, slot(&db, "a").confirmed), (begin, begin));
    for _ in 0..4 {
        write(&db, 200 << 10).unwrap();
        db.checkpoint().unwrap();
    }
    let held = slot(&db, "a");
    assert!(held.retained_bytes > 800 << 10, "{held:?}");
    let retained = db.stats().log_retained;
    assert!(retained.iter().any(|one| one.who == "slot a" && one.lsn == begin), "{retained:?}");
    assert!(db.stats().log_bytes + 4096 >= held.retained_bytes);
    db.close().unwrap();
    assert!(log_begins(&disk) <= begin);
    // And for who opens it next.
    let db = open(&disk);
    let middle = write(&db, 100 << 10).unwrap();
    db.checkpoint().unwrap();
    assert_eq!(slot(&db, "a").lsn, begin);
    db.advance_slot("a", middle, middle).unwrap();
    // A position that is behind changes nothing.
    db.advance_slot("a", begin, begin).unwrap();
    write(&db, 100 << 10).unwrap();
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert_eq!((slot(&db, "a").lsn, slot(&db, "a").confirmed), (middle, middle));
    let bytes = db.stats().log_bytes;
    assert!(bytes < 300 << 10, "{bytes} bytes of log are kept for a slot that has moved");
    db.drop_slot("a").unwrap();
    assert!(db.slots().is_empty());
    assert!(matches!(db.drop_slot("a"), Err(Error::SlotMissing(name)) if name == "a"));
    assert!(matches!(db.advance_slot("a", middle, middle), Err(Error::SlotMissing(_))));
    write(&db, 100 << 10).unwrap();
    db.checkpoint().unwrap();
    assert!(db.stats().log_bytes < 200 << 10);
    db.close().unwrap();
    assert!(open(&disk).slots().is_empty());
}

#[test]
fn names_positions_and_stores_that_cannot_have_slots_are_refused() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    for name in ["", "A", "a b", "../a", &"x".repeat(65)] {
        assert!(matches!(db.create_slot(name, unlimited()), Err(Error::BadInput(_))), "{name}");
    }
    db.create_slot(&"x".repeat(64), unlimited()).unwrap();
    db.create_slot("a", unlimited()).unwrap();
    assert!(matches!(db.create_slot("a", unlimited()), Err(Error::BadInput(_))));
    let far = Lsn(1 << 40);
    assert!(matches!(db.advance_slot("a", far, Lsn::ZERO), Err(Error::BadInput(_))));
    assert!(matches!(db.advance_slot("a", Lsn::ZERO, far), Err(Error::BadInput(_))));
    db.close().unwrap();
    let db = builder(&disk).read_only(true).open().unwrap();
    assert_eq!(db.slots().len(), 2);
    assert!(db.stats().log_retained.iter().any(|one| one.who == "slot a"));
    assert!(matches!(db.create_slot("b", unlimited()), Err(Error::ReadOnly)));
    assert!(matches!(db.advance_slot("a", Lsn::ZERO, Lsn::ZERO), Err(Error::ReadOnly)));
    assert!(matches!(db.drop_slot("a"), Err(Error::ReadOnly)));
}

#[test]
fn a_position_is_durable_at_last_after_a_second_or_much_log() {
    let runtime = SimRuntime::new(1);
    let disk = SimDisk::new(1);
    let db = builder(&disk).runtime(runtime.clone()).open().unwrap();
    db.create_slot("a", unlimited()).unwrap();
    let on_disk = |name| slot(&builder(&disk.crash_copy()).open().unwrap(), name).lsn;
    let begin = on_disk("a");
    let one = write(&db, 8 << 10).unwrap();
    db.advance_slot("a", one, one).unwrap();
    assert_eq!(on_disk("a"), begin, "one write for each position would be too many");
    runtime.advance(Duration::from_secs(2));
    let two = write(&db, 8 << 10).unwrap();
    db.advance_slot("a", two, two).unwrap();
    assert_eq!(on_disk("a"), two);
    let three = write(&db, 17 << 20).unwrap();
    db.advance_slot("a", three, three).unwrap();
    assert_eq!(on_disk("a"), three);
    let four = write(&db, 8 << 10).unwrap();
    db.advance_slot("a", four, four).unwrap();
    assert_eq!(on_disk("a"), three);
    db.sync_slots().unwrap();
    assert_eq!(on_disk("a"), four);
    let five = write(&db, 8 << 10).unwrap();
    db.advance_slot("a", five, five).unwrap();
    db.close().unwrap();
    assert_eq!(on_disk("a"), five);
}

#[test]
fn a_slot_beyond_its_limits_is_lost_at_a_checkpoint_and_told_of() {
    let runtime = SimRuntime::new(1);
    let disk = SimDisk::new(1);
    let told = Arc::new(Told::default());
    let builder = || builder(&disk).runtime(runtime.clone()).events(told.clone()).log_bytes_max(256 << 10);
    let db = builder().open().unwrap();
    db.create_slot("bytes", SlotOptions { bytes_max: Some(500 << 10), age_max: None }).unwrap();
    let hour = Duration::from_secs(3600);
    db.create_slot("age", SlotOptions { bytes_max: None, age_max: Some(hour) }).unwrap();
    db.create_slot("free", unlimited()).unwrap();
    write(&db, 300 << 10).unwrap();
    db.checkpoint().unwrap();
    assert!(db.slots().iter().all(|slot| slot.state == SlotState::Extended), "{:?}", db.slots());
    let moved = write(&db, 300 << 10).unwrap();
    db.advance_slot("age", moved, moved).unwrap();
    write(&db, 10 << 10).unwrap();
    assert_eq!(slot(&db, "bytes").state, SlotState::Extended, "nothing is given up before a checkpoint");
    runtime.advance(Duration::from_secs(11));
    db.checkpoint().unwrap();
    assert_eq!(slot(&db, "bytes").state, SlotState::Lost);
    assert_eq!(slot(&db, "bytes").retained_bytes, 0);
    assert_eq!(slot(&db, "age").state, SlotState::Reserved);
    assert!(matches!(db.advance_slot("bytes", moved, moved), Err(Error::SlotLost(name)) if name == "bytes"));
    runtime.advance(hour);
    write(&db, 100 << 10).unwrap();
    db.checkpoint().unwrap();
    assert_eq!(slot(&db, "age").state, SlotState::Lost);
    let lost: Vec<String> = told
        .0
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::SlotLost { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(lost, ["bytes", "age"]);
    db.close().unwrap();
    // It is lost for ever, until it is dropped or created anew.
    let db = builder().open().unwrap();
    assert_eq!(slot(&db, "bytes").state, SlotState::Lost);
    db.drop_slot("bytes").unwrap();
    db.create_slot("age", unlimited()).unwrap();
    assert_eq!(slot(&db, "age").state, SlotState::Reserved);
    assert!(db.stats().log_retained.iter().any(|one| one.who == "slot age"));
    assert_eq!(slot(&db, "free").state, SlotState::Extended);
}

#[test]
fn a_slot_that_is_idle_and_keeps_nothing_is_not_lost() {
    let runtime = SimRuntime::new(1);
    let db = builder(&SimDisk::new(1)).runtime(runtime.clone()).open().unwrap();
    db.create_slot("a", SlotOptions { bytes_max: Some(1 << 20), age_max: Some(Duration::from_secs(60)) })
        .unwrap();
    write(&db, 100 << 10).unwrap();
    runtime.advance(Duration::from_secs(11));
    db.checkpoint().unwrap();
    let end = db.stats().visible_lsn;
    db.advance_slot("a", end, end).unwrap();
    runtime.advance(Duration::from_secs(3600));
    db.checkpoint().unwrap();
    assert_eq!(slot(&db, "a").state, SlotState::Reserved);
}

#[test]
fn a_damaged_file_is_corruption_and_never_no_slots() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    db.create_slot("a", unlimited()).unwrap();
    db.close().unwrap();
    let path = Path::new(DIR).join("slots");
    let file = disk.open(&path, Open::ReadWrite).unwrap();
    let len = file.len().unwrap();
    for at in 0..len {
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[byte[0] ^ 4], at).unwrap();
        for read_only in [false, true] {
            match builder(&disk).read_only(read_only).open() {
                Err(Error::Corruption { file, .. }) => assert_eq!(file, path),
                other => panic!("byte {at}: {other:?}"),
            }
        }
        file.write_at(&byte, at).unwrap();
    }
    assert_eq!(open(&disk).slots().len(), 1);
    for len in [0, 1, 63, 64, len - 1] {
        file.set_len(len).unwrap();
        assert!(matches!(builder(&disk).open(), Err(Error::Corruption { .. })), "{len} bytes");
    }
    file.set_len(1 << 30).unwrap();
    assert!(matches!(builder(&disk).open(), Err(Error::Corruption { .. })));
}

/// What the workload knows of one slot: it is there, and where it may stand after a power cut.
#[derive(Clone, Debug)]
struct Known {
    /// What was surely durable, and what it was last moved to.
    places: (Lsn, Lsn),
    /// A call was made that may have dropped it.
    is_doubtful: bool,
}

/// Creates, moves, drops; commits and checkpoints in between, and the store is opened again, until something fails.
fn work(disk: &Arc<SimDisk>, known: &mut BTreeMap<&'static str, Known>) -> Result<()> {
    for round in 0..3 {
        let db = builder(disk).open()?;
        for (name, at) in [("a", 0), ("b", 1)] {
            if round == at {
                let here = db.stats().checkpoint_lsn;
                known.insert(name, Known { places: (here, here), is_doubtful: true });
                db.create_slot(name, SlotOptions::default())?;
                known.insert(name, Known { places: (here, here), is_doubtful: false });
            }
        }
        for step in 0..3 {
            let end = write(&db, 48 << 10)?;
            for (name, known) in known.iter_mut() {
                if (step + name.len()) % 2 == 0 || *name == "b" {
                    known.places.1 = end;
                    db.advance_slot(name, end, end)?;
                }
            }
            if step == 1 {
                db.sync_slots()?;
                known.values_mut().for_each(|known| known.places.0 = known.places.1);
            }
            match db.checkpoint() {
                Ok(_) | Err(Error::NoSpace) => {}
                Err(error) => return Err(error),
            }
        }
        if round == 2 {
            known.get_mut("a").unwrap().is_doubtful = true;
            db.drop_slot("a")?;
            known.remove("a");
        }
        db.close()?;
    }
    Ok(())
}

fn check(disk: &Arc<SimDisk>, known: &BTreeMap<&'static str, Known>, what: &str) {
    let begins = |disk: &Arc<SimDisk>| {
        let path = Path::new(DIR).join("data");
        if disk.exists(&path).unwrap() { log_begins(disk) } else { Lsn::ZERO }
    };
    let first = begins(disk);
    let db = builder(disk).open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let slots = db.slots();
    for found in &slots {
        let known = known.get(&*found.name).unwrap_or_else(|| panic!("{what}: {} is back", found.name));
        assert!(
            found.state != SlotState::Lost && found.lsn >= first,
            "{what}: overtaken at {first}: {found:?}"
        );
        let (low, high) = known.places;
        assert!(found.lsn >= low && found.lsn <= high, "{what}: {found:?}, and {known:?}");
        let pinned = db.stats().log_retained.iter().any(|one| one.who == format!("slot {}", found.name));
        assert!(pinned, "{what}: {found:?} keeps nothing");
    }
    for (name, known) in known {
        assert!(known.is_doubtful || slots.iter().any(|slot| slot.name == *name), "{what}: {name} is gone");
    }
    // It goes on, and still nothing is overtaken.
    write(&db, 200 << 10).unwrap();
    db.checkpoint().unwrap();
    let rows = db.keyspace("rows").unwrap();
    assert_eq!(db.snapshot().range(&rows, ..).count(), 5);
    drop((rows, db));
    let first = begins(disk);
    for found in slots {
        assert!(found.lsn >= first, "{what}: overtaken later, at {first}: {found:?}");
    }
}

fn calls() -> u64 {
    let disk = SimDisk::new(1);
    let mut known = BTreeMap::new();
    work(&disk, &mut known).unwrap();
    let calls = disk.calls();
    check(&disk, &known, "no fault");
    calls
}

#[test]
fn a_power_cut_at_any_call_loses_no_slot_and_nothing_that_one_keeps() {
    for call in 1..=calls() {
        let disk = SimDisk::new(call);
        disk.fail(Fault::power_cut().at_call(call));
        let mut known = BTreeMap::new();
        let _ = work(&disk, &mut known);
        check(&disk.crash(), &known, &format!("power cut at call {call}"));
    }
}

#[test]
fn a_call_that_fails_loses_no_slot_and_nothing_that_one_keeps() {
    let faults: [Named; 3] = [
        ("EIO", || Fault::eio(Op::Any)),
        ("ENOSPC", || Fault::full(Op::Any)),
        ("a dropped sync", Fault::dropped_sync),
    ];
    for call in 1..=calls() {
        let (name, fault) = faults[call as usize % 3];
        let disk = SimDisk::new(call);
        disk.fail(fault().at_call(call));
        let mut known = BTreeMap::new();
        let _ = work(&disk, &mut known);
        disk.clear_faults();
        check(&disk.crash_copy(), &known, &format!("{name} at call {call}, then a power cut"));
        check(&disk.kill(), &known, &format!("{name} at call {call}, then a kill"));
    }
}

#[test]
fn slots_that_keep_nothing_are_noticed() {
    MUTATION.set(Some(Mutation::IgnoreSlots));
    let guards: [fn(); 2] = [
        a_slot_keeps_the_log_from_its_position_on_until_it_moves_or_goes,
        a_power_cut_at_any_call_loses_no_slot_and_nothing_that_one_keeps,
    ];
    let outcomes = guards.map(std::panic::catch_unwind);
    MUTATION.set(None);
    assert!(outcomes.iter().all(std::result::Result::is_err));
}

#[test]
fn with_a_slot_values_that_are_streamed_in_go_through_the_log() {
    let disk = SimDisk::new(1);
    let db = builder(&disk).memory_budget(64 << 20).stream(1 << 10, 4 << 10).open().unwrap();
    let rows = db.keyspace("rows").unwrap();
    let stream = |tx: &mut seawall_engine::Transaction, key: &str| {
        tx.insert_from(&rows, key, 20_000, std::io::repeat(7).take(20_000))
    };
    use std::io::Read;
    // Before there is one, the log only names them.
    let mut early = db.begin();
    stream(&mut early, "early").unwrap();
    early.commit().unwrap();
    let refused = db.create_slot_at("b", unlimited(), db.stats().checkpoint_lsn);
    assert!(matches!(refused, Err(Error::NeedsImage { .. })), "{refused:?}");
    let mut late = db.begin();
    stream(&mut late, "late").unwrap();
    db.create_slot("a", unlimited()).unwrap();
    let begin = slot(&db, "a").lsn;
    assert!(begin > db.stats().checkpoint_lsn, "behind what is named");
    assert!(matches!(late.commit(), Err(Error::Conflict)), "its bytes are in no log");
    db.transact(|tx| stream(tx, "late")).unwrap();
    let long = 17 << 20;
    let mut tx = db.begin();
    assert!(matches!(
        tx.insert_from(&rows, "long", long, std::io::repeat(7).take(long)),
        Err(Error::TooLarge { max, .. }) if max == 16 << 20
    ));
    drop(tx);
    // From the slot on, the log alone has all of it.
    db.sync_slots().unwrap();
    drop((rows, db));
    let wal = Wal::options().disk(disk.clone()).read_only(true).open(Path::new(DIR).join("log")).unwrap();
    let sizes: Vec<usize> = wal.read(begin..).unwrap().map(|record| record.unwrap().payload.len()).collect();
    assert!(sizes.iter().any(|bytes| *bytes > 20_000), "{sizes:?}");
    drop(wal);
    let db = open(&disk);
    let rows = db.keyspace("rows").unwrap();
    for key in ["early", "late"] {
        assert_eq!(rows.get(key).unwrap().unwrap(), vec![7; 20_000]);
    }
    db.checkpoint().unwrap();
    db.create_slot_at("b", unlimited(), begin).unwrap();
    assert_eq!(slot(&db, "b").lsn, begin);
    let gone = db.create_slot_at("c", unlimited(), Lsn(100));
    assert!(matches!(gone, Err(Error::NeedsImage { .. })), "{gone:?}");
    assert_eq!(db.slots().len(), 2);
}
