//! A replica's log: the primary's bytes at the primary's positions, through crashes of either; promotion and rewinding with
//! the power failing at every call.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use seawall_wal::disk::sim::{CrashStyle, Fault};
use seawall_wal::disk::{Disk, Open};
use seawall_wal::mutation::Mutation;
use seawall_wal::runtime::Rng;
use seawall_wal::segment::{self, Geometry};
use seawall_wal::{
    Durability, Error, History, Lsn, Next, Piece, Record, ReplicaStart, Result, SimDisk, SimRuntime, Turn,
    Wal, WalOptions, WalReader, create_replica, rewind,
};
use std::sync::Arc;
use std::time::Duration;

#[path = "replica/bugs.rs"]
mod bugs;

const SEGMENT: u64 = 64 << 10;
const GEOMETRY: Geometry = Geometry { segment_bytes: SEGMENT };
const DIR: &str = "/log";
const PIECE: usize = 24 << 10;
const STYLES: [CrashStyle; 4] =
    [CrashStyle::KeepNone, CrashStyle::KeepAll, CrashStyle::Random, CrashStyle::Prefix];

fn options(disk: &Arc<SimDisk>) -> WalOptions {
    Wal::options()
        .segment_bytes(SEGMENT)
        .disk(disk.clone())
        .runtime(SimRuntime::new(disk.trace_hash()))
        .background(false)
}

fn open(disk: &Arc<SimDisk>) -> Wal {
    options(disk).open(DIR).unwrap()
}

fn open_replica(disk: &Arc<SimDisk>) -> Wal {
    options(disk).replica(true).open(DIR).unwrap()
}

fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let brief = |record: Record| (record.lsn, record.payload.to_vec());
    wal.read(..).unwrap().map(|record| brief(record.unwrap())).collect()
}

/// Records of all sizes, batches, seals.
fn write(wal: &Wal, rng: &mut Rng, n: u32) {
    for _ in 0..n {
        let len = [10, 300, 5_000, 30_000, 70_000, 150_000][rng.below(6) as usize];
        let mut bytes = vec![0; len];
        rng.fill(&mut bytes);
        match rng.below(4) {
            0 => {
                wal.append_batch(&[&bytes[..], &[7; 200]]).unwrap();
            }
            1 => {
                wal.commit_with(&bytes, Durability::Written).unwrap();
            }
            _ => {
                wal.commit(&bytes).unwrap();
            }
        }
        if rng.chance(1, 4) {
            while wal.step().unwrap() {}
        }
    }
    wal.sync().unwrap();
}

fn start_of(primary: &Wal) -> ReplicaStart {
    let timeline = primary.timeline();
    ReplicaStart {
        store_id: primary.store_id(),
        segment_bytes: SEGMENT,
        first: primary.first_lsn(),
        covered: primary.first_lsn(),
        epoch: timeline.epoch,
        history: timeline.history,
    }
}

fn new_replica(primary: &Wal, seed: u64) -> Arc<SimDisk> {
    let disk = SimDisk::new(seed);
    create_replica(DIR, &options(&disk), &start_of(primary)).unwrap();
    disk
}

/// Ships what there is, in pieces, syncing now and then. What was acknowledged as durable on the way.
fn ship(primary: &Wal, replica: &Wal, rng: &mut Rng, acked: &mut Lsn) -> Result<()> {
    let place = replica.tail().place;
    let mut shipper = primary.ship(place)?;
    while let Some(piece) = shipper.next_piece(rng.below(PIECE as u64) as usize)? {
        replica.accept(&piece)?;
        if rng.chance(1, 3) {
            *acked = replica.sync_replica()?.max(*acked);
        }
    }
    *acked = replica.sync_replica()?.max(*acked);
    Ok(())
}

fn ship_all(primary: &Wal, replica: &Wal, rng: &mut Rng) {
    let mut acked = Lsn::ZERO;
    ship(primary, replica, rng, &mut acked).unwrap();
}

fn bytes_of(disk: &Arc<SimDisk>, number: u64, upto: u64) -> Vec<u8> {
    let path = std::path::Path::new(DIR).join(segment::file_name(number));
    let file = disk.open(&path, Open::Read).unwrap();
    let mut bytes = vec![0; upto as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

/// The replica's segments are the primary's, as far as they go.
fn check_same(primary: (&Arc<SimDisk>, &Wal), replica: (&Arc<SimDisk>, &Wal)) {
    let place = replica.1.tail().place;
    let from = GEOMETRY.number(primary.1.first_lsn()).max(GEOMETRY.number(replica.1.first_lsn()));
    let mut at = GEOMETRY.start(from);
    while at < place {
        let number = GEOMETRY.number(at);
        let path = std::path::Path::new(DIR).join(segment::file_name(number));
        // Numbers may be passed over.
        if primary.0.exists(&path).unwrap() && replica.0.exists(&path).unwrap() {
            let upto = (place.0 - at.0).min(SEGMENT);
            let ends = primary.1.checksum_before(GEOMETRY.end(number)).unwrap();
            if upto < SEGMENT || ends.is_some() {
                let same = bytes_of(primary.0, number, upto) == bytes_of(replica.0, number, upto);
                assert!(same, "segment {number}, up to {upto}");
            }
        }
        at = GEOMETRY.end(number);
    }
    let (all, some) = (records(primary.1), records(replica.1));
    assert!(all.starts_with(&some), "{} records, {} on the replica", all.len(), some.len());
}

#[test]
fn a_replica_is_its_primary_byte_for_byte() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::new(seed);
        let mut primary = open(&disk);
        let replica_disk = new_replica(&primary, seed + 100);
        let mut replica = open_replica(&replica_disk);
        for _ in 0..4 {
            write(&primary, &mut rng, 8);
            ship_all(&primary, &replica, &mut rng);
            check_same((&disk, &primary), (&replica_disk, &replica));
            assert_eq!(records(&replica).len(), records(&primary).len());
            if rng.chance(1, 2) {
                drop(primary);
                disk = disk.crash();
                primary = open(&disk);
            }
            if rng.chance(1, 2) {
                replica.close().unwrap();
                replica = open_replica(&replica_disk);
            }
        }
        // A cascade: from the replica on.
        let third_disk = new_replica(&replica, seed + 200);
        let third = open_replica(&third_disk);
        ship_all(&replica, &third, &mut rng);
        check_same((&replica_disk, &replica), (&third_disk, &third));
    }
}

#[test]
fn a_follower_of_a_replica_shows_what_is_durable_there() {
    let disk = SimDisk::new(3);
    let primary = open(&disk);
    let replica_disk = new_replica(&primary, 4);
    let replica = open_replica(&replica_disk);
    let mut follower = replica.follow(Lsn::ZERO).unwrap();
    write(&primary, &mut Rng::new(1), 10);
    ship_all(&primary, &replica, &mut Rng::new(2));
    for (lsn, payload) in records(&primary) {
        let record = follower.next().unwrap().unwrap();
        assert_eq!((record.lsn, record.payload.to_vec()), (lsn, payload));
    }
    assert!(matches!(follower.next_timeout(Duration::from_millis(1)).unwrap(), Next::TimedOut));
}

/// The power fails at every call of a replica's life; it must hold what it acknowledged, a prefix, and go on.
fn crash_replica_everywhere(seed: u64, mutation: Option<Mutation>) {
    let disk = SimDisk::new(seed);
    let primary = open(&disk);
    write(&primary, &mut Rng::new(seed), 14);
    let all = records(&primary);
    let begun = new_replica(&primary, seed);
    for call in 0.. {
        let style = STYLES[(call % 4) as usize];
        begun.set_crash_style(Some(style));
        let replica_disk = begun.crash_copy();
        replica_disk.set_crash_style(Some(style));
        replica_disk.fail(Fault::power_cut().at_call(call));
        let mut acked = Lsn::ZERO;
        let wants = |disk: &Arc<SimDisk>| options(disk).replica(true).mutation(mutation);
        let done = wants(&replica_disk)
            .open(DIR)
            .and_then(|replica| {
                ship(&primary, &replica, &mut Rng::new(call), &mut acked)?;
                replica.close()
            })
            .is_ok();
        let replica_disk = replica_disk.crash();
        let replica = wants(&replica_disk).open(DIR).unwrap_or_else(|error| panic!("call {call}: {error}"));
        let there = records(&replica);
        assert!(all.starts_with(&there), "call {call}");
        assert!(replica.durable_lsn() >= acked, "call {call}: {} of {acked}", replica.durable_lsn());
        let promised = all.iter().filter(|(lsn, _)| *lsn < acked).count();
        assert!(there.len() >= promised, "call {call}: {} of {promised} records", there.len());
        ship(&primary, &replica, &mut Rng::new(call), &mut acked).unwrap();
        check_same((&disk, &primary), (&replica_disk, &replica));
        assert_eq!(records(&replica).len(), all.len());
        if done {
            return;
        }
    }
}

#[test]
fn a_replica_survives_a_crash_at_every_call() {
    for seed in 0..3 {
        crash_replica_everywhere(seed, None);
    }
}

/// Bug 34, and the rule that a replica judges its tail by its own mark: each is seen when it is broken.
#[test]
fn what_is_left_out_is_noticed() {
    for mutation in Mutation::REPLICAS {
        let seen = (0..6)
            .any(|seed| std::panic::catch_unwind(|| crash_replica_everywhere(seed, Some(mutation))).is_err());
        assert!(seen, "{mutation:?}");
    }
}

#[test]
fn damage_below_its_own_mark_is_no_torn_tail() {
    let disk = SimDisk::new(5);
    let primary = open(&disk);
    let replica_disk = new_replica(&primary, 6);
    let replica = open_replica(&replica_disk);
    write(&primary, &mut Rng::new(1), 3);
    ship_all(&primary, &replica, &mut Rng::new(2));
    let (lsn, _) = records(&replica).last().cloned().unwrap();
    replica.close().unwrap();
    let path = std::path::Path::new(DIR).join(segment::file_name(GEOMETRY.number(lsn)));
    let file = replica_disk.open(&path, Open::ReadWrite).unwrap();
    file.write_at(b"?", GEOMETRY.offset(lsn)).unwrap();
    file.sync_data().unwrap();
    drop(file);
    let opened = options(&replica_disk).replica(true).open(DIR);
    assert!(matches!(opened, Err(Error::Corruption { .. })), "{opened:?}");
}

#[test]
fn only_what_goes_on_is_taken() {
    let disk = SimDisk::new(7);
    let primary = open(&disk);
    write(&primary, &mut Rng::new(1), 6);
    let replica_disk = new_replica(&primary, 8);
    let replica = open_replica(&replica_disk);
    let mut shipper = primary.ship(replica.tail().place).unwrap();
    let pieces: Vec<Piece> = std::iter::from_fn(|| shipper.next_piece(PIECE).unwrap()).collect();
    assert!(matches!(replica.accept(&pieces[1]), Err(Error::BadInput(_))));
    for at in [0, 20, 100, 3000] {
        let mut damaged = pieces[0].clone();
        damaged.bytes[at] ^= 1;
        assert!(matches!(replica.accept(&damaged), Err(Error::BadInput(_))));
    }
    let mut cut = pieces[0].clone();
    cut.bytes.truncate(17);
    assert!(matches!(replica.accept(&cut), Err(Error::BadInput(_))));
    for piece in &pieces {
        replica.accept(piece).unwrap();
    }
    assert!(matches!(replica.accept(&pieces[0]), Err(Error::BadInput(_))));
    assert_eq!(replica.durable_lsn(), Lsn::ZERO, "nothing is shown before it is synced");
    replica.sync_replica().unwrap();
    assert_eq!(replica.durable_lsn(), primary.durable_lsn());
    // It takes nothing of its own, and another store's log nothing shipped.
    assert!(matches!(replica.commit(b"own"), Err(Error::Replica)));
    assert!(matches!(primary.accept(&pieces[0]), Err(Error::BadInput(_))));
    let other = open(&SimDisk::new(9));
    write(&other, &mut Rng::new(1), 1);
    let foreign = other.ship(GEOMETRY.start(1)).unwrap().next_piece(PIECE).unwrap().unwrap();
    let third = open_replica(&new_replica(&primary, 10));
    assert!(matches!(third.accept(&foreign), Err(Error::BadInput(_))));
    // And it is opened as what it is.
    drop(shipper);
    replica.close().unwrap();
    assert!(matches!(options(&replica_disk).open(DIR), Err(Error::Replica)));
    primary.close().unwrap();
    assert!(matches!(options(&disk).replica(true).open(DIR), Err(Error::BadInput(_))));
}

fn followed(follower: &mut WalReader, found: &mut Vec<(Lsn, Vec<u8>)>) {
    while let Next::Record(record) = follower.next_timeout(Duration::from_millis(1)).unwrap() {
        found.push((record.lsn, record.payload.to_vec()));
    }
}

/// A header without a frame behind it is not the last word: its primary starts again, or another is promoted. Who follows, and
/// knows of the first, goes on behind the other.
#[test]
fn a_header_gives_way_to_another() {
    for seed in 0..8 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let primary = open(&disk);
        let replica_disk = new_replica(&primary, seed + 30);
        let replica = open_replica(&replica_disk);
        write(&primary, &mut rng, 4);
        ship_all(&primary, &replica, &mut rng);
        // A new opening begins a segment; of that only the header comes, behind a seal perhaps.
        drop(primary);
        let primary = open(&disk.crash());
        primary.commit(b"never shipped").unwrap();
        let mut shipper = primary.ship(replica.tail().place).unwrap();
        let mut piece = shipper.next_piece(1).unwrap().unwrap();
        while GEOMETRY.offset(piece.at) != 0 {
            replica.accept(&piece).unwrap();
            piece = shipper.next_piece(1).unwrap().unwrap();
        }
        replica.sync_replica().unwrap();
        let other_disk = replica_disk.crash_copy();
        replica.accept(&piece).unwrap();
        replica.sync_replica().unwrap();
        let replica = if rng.chance(1, 2) {
            drop(replica);
            open_replica(&replica_disk)
        } else {
            replica
        };
        let (mut follower, mut found) = (replica.follow(Lsn::ZERO).unwrap(), Vec::new());
        followed(&mut follower, &mut found);
        // Another replica is promoted, and its segment takes a number of its own.
        let other = open_replica(&other_disk);
        for _ in 0..rng.below(3) {
            other.step().unwrap();
        }
        other.promote(1).unwrap();
        write(&other, &mut rng, 5);
        ship_all(&other, &replica, &mut rng);
        assert_eq!(records(&replica), records(&other));
        followed(&mut follower, &mut found);
        assert_eq!(found, records(&other), "seed {seed}");
        drop(follower);
        replica.close().unwrap();
        assert_eq!(records(&open_replica(&replica_disk.crash())), records(&other));
    }
}

#[test]
fn promises_only_grow_and_stay() {
    let disk = SimDisk::new(11);
    let primary = open(&disk);
    let history = History::new(&[Turn { epoch: 3, start: Lsn(70_000 / 4096 * 4096) }]).unwrap();
    primary.promise(4, &history).unwrap();
    assert!(matches!(primary.promise(3, &history), Err(Error::Fenced { epoch: 4 })));
    drop(primary);
    let primary = open(&disk.crash());
    assert_eq!((primary.timeline().promised, primary.timeline().history), (4, history));
}

/// Two logs part: the replica is promoted, with the power failing at every call, and the old primary is rewound, likewise.
#[test]
fn promotion_and_rewinding_survive_a_crash_at_every_call() {
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(seed);
        let primary = open(&disk);
        write(&primary, &mut rng, 8);
        let replica_disk = new_replica(&primary, seed + 50);
        let replica = open_replica(&replica_disk);
        ship_all(&primary, &replica, &mut rng);
        // Of a record that is cut over frames, only the beginning has come.
        primary.commit(vec![3; 150_000]).unwrap();
        let mut shipper = primary.ship(replica.tail().place).unwrap();
        for _ in 0..2 {
            if let Some(piece) = shipper.next_piece(4096).unwrap() {
                replica.accept(&piece).unwrap();
            }
        }
        replica.sync_replica().unwrap();
        let common = records(&replica);
        assert_eq!(common.len() + 1, records(&primary).len());
        drop(replica);
        write(&primary, &mut rng, 5);
        let longer = records(&primary);
        drop(primary);

        let (promoted_disk, promoted) = promote_through_crashes(&replica_disk, &common);
        write(&promoted, &mut rng, 6);
        let all = records(&promoted);
        assert!(all.starts_with(&common) && all.len() > common.len());
        let timeline = promoted.timeline();
        assert_eq!(timeline.epoch, 1);

        rewind_through_crashes(&disk, &longer, (&promoted_disk, &promoted), &mut rng);
    }
}

/// What a data file's checkpoint covers ends behind the last frame's padding, where nothing may have come yet.
#[test]
fn a_replica_that_begins_behind_the_last_record_can_be_promoted() {
    let primary = open(&SimDisk::new(1));
    primary.commit(b"in the data file").unwrap();
    let first = primary.barrier().unwrap();
    let disk = SimDisk::new(2);
    create_replica(DIR, &options(&disk), &ReplicaStart { first, ..start_of(&primary) }).unwrap();
    let replica = open_replica(&disk);
    assert!(matches!(replica.promote(1), Err(Error::BadInput(_))), "nothing has come yet");
    ship_all(&primary, &replica, &mut Rng::new(1));
    replica.promote(1).unwrap();
    replica.commit(b"of the new epoch").unwrap();
}

/// An image may have more than what redo begins with: until the log has that, it is not all there, and cannot be promoted.
#[test]
fn a_replica_is_filled_once_its_log_has_what_its_image_covers() {
    let primary = open(&SimDisk::new(1));
    let first = primary.first_lsn();
    for _ in 0..3 {
        primary.commit([1; 30_000]).unwrap();
    }
    let covered = primary.durable_lsn();
    let mut disk = SimDisk::new(2);
    create_replica(DIR, &options(&disk), &ReplicaStart { first, covered, ..start_of(&primary) }).unwrap();
    let open_beside = |disk: &Arc<SimDisk>| options(disk).replica(true).start(first, covered).open(DIR);
    let mut replica = open_beside(&disk).unwrap();
    while replica.durable_lsn() < covered {
        assert!(!replica.is_filled(), "at {}", replica.durable_lsn());
        assert!(matches!(replica.promote(1), Err(Error::BadInput(_))), "at {}", replica.durable_lsn());
        let piece = primary.ship(replica.tail().place).unwrap().next_piece(40_000).unwrap().unwrap();
        replica.accept(&piece).unwrap();
        replica.sync_replica().unwrap();
        while replica.step().unwrap() {}
        disk = disk.crash();
        replica = open_beside(&disk).unwrap();
    }
    assert!(replica.is_filled());
    replica.promote(1).unwrap();
}

/// Where two logs part is found by the epoch that each ends in: of a replica's, read only, that of its newest segment.
#[test]
fn a_replica_that_is_opened_to_be_read_ends_in_its_newest_epoch() {
    let disk = SimDisk::new(1);
    let primary = open(&disk);
    let (first_disk, second_disk) = (new_replica(&primary, 2), new_replica(&primary, 3));
    let (first, second) = (open_replica(&first_disk), open_replica(&second_disk));
    let mut rng = Rng::new(4);
    write(&primary, &mut rng, 3);
    ship_all(&primary, &first, &mut rng);
    ship_all(&primary, &second, &mut rng);
    first.promote(2).unwrap();
    write(&first, &mut rng, 3);
    second.promise(2, &first.timeline().history).unwrap();
    ship_all(&first, &second, &mut rng);
    let live = second.tail();
    drop(second);
    let read = options(&second_disk).replica(true).read_only(true).create(false).open(DIR).unwrap();
    assert_eq!((read.tail().epoch, read.tail().place), (live.epoch, live.place));
    assert_eq!(live.epoch, 2);
}

fn promote_through_crashes(replica_disk: &Arc<SimDisk>, common: &[(Lsn, Vec<u8>)]) -> (Arc<SimDisk>, Wal) {
    for call in 0.. {
        let style = STYLES[(call % 4) as usize];
        let disk = replica_disk.crash_copy();
        disk.set_crash_style(Some(style));
        let replica = open_replica(&disk);
        disk.fail(Fault::power_cut().at_call(call));
        let done = replica.promote(1).is_ok();
        drop(replica);
        let disk = disk.crash();
        let promoted = match options(&disk).open(DIR) {
            Ok(promoted) => promoted,
            Err(Error::Replica) => {
                assert!(!done, "call {call}");
                let replica = open_replica(&disk);
                assert_eq!(records(&replica), common, "call {call}");
                replica.promote(1).unwrap();
                replica
            }
            Err(error) => panic!("call {call}: {error}"),
        };
        let timeline = promoted.timeline();
        assert_eq!((timeline.epoch, timeline.history.turns().len()), (1, 1), "call {call}");
        assert_eq!(records(&promoted), common, "call {call}");
        let lsn = promoted.commit(b"of the new epoch").unwrap();
        drop(promoted);
        let disk = disk.crash();
        let promoted = open(&disk);
        assert_eq!(records(&promoted).last().unwrap(), &(lsn, b"of the new epoch".to_vec()), "call {call}");
        assert!(matches!(promoted.promise(0, &History::default()), Err(Error::Fenced { .. })));
        if done {
            return (disk, promoted);
        }
    }
    unreachable!()
}

fn rewind_through_crashes(
    old_disk: &Arc<SimDisk>,
    longer: &[(Lsn, Vec<u8>)],
    promoted: (&Arc<SimDisk>, &Wal),
    rng: &mut Rng,
) {
    let timeline = promoted.1.timeline();
    let old = open(&old_disk.crash_copy());
    let (tail, theirs) = (old.tail(), old.timeline().history);
    let fork = timeline.history.fork(&theirs, tail.epoch, tail.place).unwrap();
    drop(old);
    for call in 0.. {
        let disk = old_disk.crash_copy();
        disk.set_crash_style(Some(STYLES[(call % 4) as usize]));
        disk.fail(Fault::power_cut().at_call(call));
        let done = rewind(DIR, &options(&disk), fork, timeline.epoch, &timeline.history).is_ok();
        let disk = disk.crash();
        // As it was, or it says what is to be done.
        match options(&disk).open(DIR) {
            Ok(old) => assert_eq!(records(&old), longer, "call {call}"),
            Err(Error::BadInput(why)) => assert!(why.contains("rewound"), "{why}"),
            Err(Error::Replica) => {}
            Err(error) => panic!("call {call}: {error}"),
        }
        rewind(DIR, &options(&disk), fork, timeline.epoch, &timeline.history).unwrap();
        let replica = open_replica(&disk);
        let there = records(&replica);
        assert!(longer.starts_with(&there) && there.len() < longer.len(), "call {call}");
        assert!(records(promoted.1).starts_with(&there), "call {call}");
        ship_all(promoted.1, &replica, rng);
        assert_eq!(records(&replica), records(promoted.1), "call {call}");
        if done {
            return;
        }
    }
}

/// Bug 3 for replicas, and what a full disk does: nothing is lost, and it goes on when there is room.
#[test]
fn a_full_disk_holds_a_replica_up() {
    let disk = SimDisk::new(21);
    let primary = open(&disk);
    write(&primary, &mut Rng::new(3), 12);
    let replica_disk = new_replica(&primary, 22);
    let replica = open_replica(&replica_disk);
    replica_disk.set_capacity(3 * SEGMENT);
    let mut rng = Rng::new(1);
    let mut shipper = primary.ship(replica.tail().place).unwrap();
    let mut was_full = false;
    while let Some(piece) = shipper.next_piece(PIECE).unwrap() {
        match replica.accept(&piece).and_then(|_| replica.sync_replica()) {
            Ok(_) => {}
            Err(Error::NoSpace) => {
                was_full = true;
                replica_disk.set_capacity(u64::MAX);
                replica.sync_replica().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(was_full);
    ship_all(&primary, &replica, &mut rng);
    assert_eq!(records(&replica), records(&primary));
}

/// Whoever asks in the middle of a write is told where the log ended before it: a replica that connects then is not taken for
/// one that has parted.
#[test]
fn where_the_log_ends_is_known_while_it_is_written() {
    let options = Wal::options().segment_bytes(SEGMENT).disk(SimDisk::new(1)).background(false);
    let wal = options.open(DIR).unwrap();
    wal.commit(b"the first").unwrap();
    let mut last = wal.tail();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..2000).for_each(|_| _ = wal.commit(b"another").unwrap()));
        while !writer.is_finished() {
            let tail = wal.tail();
            assert!(tail.place >= last.place && tail.whole_end >= last.whole_end, "{last:?}, then {tail:?}");
            assert_ne!(wal.checksum_before(tail.place).unwrap(), None);
            drop(wal.ship(tail.place).unwrap());
            last = tail;
        }
    });
}
