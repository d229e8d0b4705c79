//! The flight recorder as an embedder has it: what it keeps, and when it writes that down.
#![cfg(feature = "cli")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use seawall::observe::{Field, FlightOptions, FlightRecorder};
use seawall::replication::node::{Direction, LinkEvent, LinkListener};
use seawall::wal::disk::sim::{Fault, Op};
use seawall::wal::{Disk, SimDisk};
use seawall::{Db, Lsn};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn recorder(change: impl FnOnce(&mut FlightOptions)) -> (Arc<FlightRecorder>, Arc<SimDisk>) {
    let disk = SimDisk::new(7);
    disk.create_dir(Path::new("/flight")).unwrap();
    let mut options = FlightOptions::new("/flight", "db");
    options.disk = disk.clone();
    change(&mut options);
    (FlightRecorder::new(options), disk)
}

fn names(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list(Path::new("/flight")).unwrap();
    names.sort();
    names
}

fn lines(disk: &SimDisk, path: &Path) -> Vec<Value> {
    let text = String::from_utf8(disk.read_file(path).unwrap()).unwrap();
    assert!(text.ends_with("}\n"));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn events(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
}

#[test]
fn what_happened_is_kept_within_its_bounds_and_every_letter_of_it() {
    let (recorder, disk) = recorder(|options| {
        options.events_max = 3;
        options.age_max = Duration::from_millis(300);
    });
    let odd = "quotes \" and \\ and \n and \u{1} and ä";
    for number in 0..5 {
        recorder.note("noted", &[("number", Field::Number(number)), ("odd", Field::Text(odd))]);
    }
    let first = lines(&disk, &recorder.dump("a reason/of mine").unwrap());
    assert_eq!(events(&first), ["noted", "noted", "noted", "dump"]);
    assert_eq!((&first[0]["number"], &first[0]["odd"]), (&2.into(), &odd.into()));
    assert_eq!((&first[3]["events"], &first[3]["forgotten"]), (&3.into(), &2.into()));
    assert_eq!(first[3]["reason"], "a reason/of mine");
    assert!(
        names(&disk)[0].starts_with("db-flight-") && names(&disk)[0].ends_with("-001-a-reason-of-mine.jsonl")
    );
    assert!(first.iter().map(|line| line["time_us"].as_u64().unwrap()).is_sorted());
    std::thread::sleep(Duration::from_millis(400));
    recorder.note("late", &[("share", Field::Fraction(0.5)), ("none", Field::Fraction(f64::NAN))]);
    let second = lines(&disk, &recorder.dump("again").unwrap());
    assert_eq!(events(&second), ["late", "dump"]);
    assert_eq!((&second[0]["share"], &second[0]["none"]), (&0.5.into(), &Value::Null));
}

#[test]
fn the_last_dumps_are_kept_and_nothing_else_is_touched() {
    let (recorder, disk) = recorder(|options| options.files_max = 2);
    disk.write_file("/flight/db-flight-plan.txt", b"mine").unwrap();
    disk.write_file("/flight/other-flight-1.jsonl", b"mine").unwrap();
    for reason in ["one", "two", "three", "four"] {
        recorder.dump(reason).unwrap();
    }
    let names = names(&disk);
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names[0].ends_with("-three.jsonl") && names[1].ends_with("-four.jsonl"), "{names:?}");
    assert_eq!(&names[2..], ["db-flight-plan.txt", "other-flight-1.jsonl"]);
    assert_eq!(recorder.last_dump().unwrap(), Path::new("/flight").join(&names[1]));
}

#[test]
fn a_store_that_fails_and_one_that_is_replaced_write_down_what_led_there() {
    let (recorder, disk) = recorder(|_| {});
    let store = SimDisk::new(1);
    let open = || {
        let builder = Db::builder("/store").disk(store.clone()).segment_bytes(256 << 10).background(false);
        builder.events(recorder.clone()).open().unwrap()
    };
    let db = open();
    let rows = db.keyspace("rows").unwrap();
    rows.insert("a", "1").unwrap();
    db.checkpoint().unwrap();
    assert_eq!(recorder.last_dump(), None, "nothing has failed");
    store.fail(Fault::eio(Op::WriteDurable));
    rows.insert("b", "2").unwrap_err();
    let dump = recorder.last_dump().unwrap();
    assert!(dump.to_str().unwrap().ends_with("-poisoned.jsonl"), "{dump:?}");
    let found = lines(&disk, &dump);
    assert_eq!(events(&found), ["checkpoint_done", "poisoned", "dump"]);
    assert!(!found[1]["why"].as_str().unwrap().is_empty() && found[0]["lsn"].as_u64() > Some(0), "{found:?}");
    drop((rows, db));

    let db = open();
    db.shipping().fence(3).unwrap();
    let dump = recorder.last_dump().unwrap();
    assert!(dump.to_str().unwrap().ends_with("-fenced.jsonl"), "{dump:?}");
    let found = lines(&disk, &dump);
    assert_eq!(found.iter().find(|line| line["event"] == "fenced").unwrap()["epoch"], 3);
}

#[test]
fn a_replica_that_needs_a_hand_writes_down_what_led_there() {
    let (recorder, disk) = recorder(|_| {});
    let tell = |event: LinkEvent| LinkListener::event(&*recorder, "b", Direction::In, &event);
    tell(LinkEvent::Connected { from: Lsn(4096) });
    tell(LinkEvent::Disconnected { why: Some("the connection was lost".to_owned()) });
    tell(LinkEvent::Refused { why: "busy".to_owned() });
    tell(LinkEvent::NeedsRewind { to: Lsn(4096), lost_bytes: 0 });
    assert_eq!(recorder.last_dump(), None, "that goes away by itself, or costs nothing");
    for (event, reason) in [
        (LinkEvent::NeedsRewind { to: Lsn(8192), lost_bytes: 700 }, "-needs-rewind.jsonl"),
        (LinkEvent::NeedsImage { first: Lsn(65536) }, "-needs-image.jsonl"),
        (LinkEvent::Broken { why: None }, "-broken.jsonl"),
    ] {
        tell(event);
        assert!(recorder.last_dump().unwrap().to_str().unwrap().ends_with(reason), "{reason}");
    }
    let found = lines(&disk, &recorder.last_dump().unwrap());
    let wanted = [
        "link_connected",
        "link_disconnected",
        "link_refused",
        "needs_rewind",
        "needs_rewind",
        "needs_image",
        "broken",
        "dump",
    ];
    assert_eq!(events(&found), wanted);
    assert!(
        found[0]["name"] == "b" && found[0]["direction"] == "in" && found[0]["from_lsn"] == 4096,
        "{found:?}"
    );
    assert!(
        found[1]["why"] == "the connection was lost"
            && found[4]["to_lsn"] == 8192
            && found[4]["lost_bytes"] == 700,
        "{found:?}"
    );
}

#[test]
fn a_panic_is_written_down_with_what_it_said_and_a_full_disk_is_told() {
    let (recorder, disk) = recorder(|_| {});
    recorder.note("before", &[]);
    let path = recorder.dump_in_panic("at src/here.rs: no such luck").unwrap().unwrap();
    let found = lines(&disk, &path);
    assert_eq!(events(&found), ["before", "dump"]);
    assert!(found[1]["reason"] == "panic" && found[1]["why"].as_str().unwrap().contains("no such luck"));
    disk.set_capacity(0);
    recorder.dump("full").unwrap_err();
    assert!(recorder.take_error().unwrap().contains("full"), "where it could not be written");
    assert_eq!(recorder.take_error(), None);
    assert_eq!(recorder.last_dump(), Some(path));
}
