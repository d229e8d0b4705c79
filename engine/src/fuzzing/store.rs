//! A small store as a program would leave it, then damaged.

use super::is_of_damage;
use crate::number::number_of;
use crate::tree::fuzzing::reseal;
use crate::{Db, Keyspace, Readable, Result, WriteBatch};
use seawall_wal::disk::Disk;
use seawall_wal::fuzzing::{Damaged, Files, Input, damage, seal};
use seawall_wal::runtime::Rng;
use seawall_wal::{SimDisk, SimRuntime};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

const DIR: &str = "/store";
const DATA: &str = "store/data";
const KEYSPACES: [&str; 2] = ["a", "b"];

/// (keyspace, key) → value.
type Rows = BTreeMap<(String, Vec<u8>), Vec<u8>>;

struct Sample {
    files: Files,
    earlier: Files,
    /// What the store held after each commit, from none on.
    states: Vec<Rows>,
    /// The state that every opening must at least have reached, whatever single block is damaged.
    sure: usize,
}

/// Builds a store from the first bytes, damages its files as the rest says, with or without recomputing checksums,
/// opens it, reads all of it and verifies it. Without recomputing, what is shown must be the state after some commit;
/// after a single damage, not an earlier one than a later write vouches for.
pub fn store_mutated(data: &[u8]) {
    let mut input = Input::new(data);
    let sample = match Sample::build(&mut input) {
        Ok(sample) => sample,
        Err(error) => panic!("an undamaged store: {error}"),
    };
    let is_direct = input.u8() & 1 == 0;
    let mut files = sample.files.clone();
    let done = damage(&mut files, &sample.earlier, &mut input);
    if done.forged {
        if let Some(data) = files.0.get_mut(DATA) {
            reseal(data);
        }
        seal::log(&mut files);
    }
    for read_only in [true, false] {
        let disk = files.disk(3);
        disk.set_direct(is_direct);
        match builder(&disk).read_only(read_only).open() {
            Ok(db) => sample.judge(&db, done, read_only),
            Err(error) => {
                assert!(done.count > 0, "an undamaged store is refused: {error}");
                assert!(is_of_damage(&error), "refused for another reason: {error}");
            }
        }
        let (calls, blocks) = (disk.calls(), files.bytes() / 4096 + 64);
        assert!(calls < 64 * blocks, "{calls} calls for {blocks} blocks");
    }
}

fn builder(disk: &Arc<SimDisk>) -> crate::DbBuilder {
    let disk: Arc<dyn Disk> = disk.clone();
    Db::builder(DIR)
        .disk(disk)
        .runtime(SimRuntime::new(1))
        .segment_bytes(64 << 10)
        .memory_budget(1 << 20)
        .background(false)
}

impl Sample {
    fn build(input: &mut Input<'_>) -> Result<Sample> {
        let shape = input.u8();
        let commits = 1 + input.below(24);
        let mut rng = Rng::new(u64::from(input.u16()));
        let disk = SimDisk::new(rng.next_u64());
        let db = builder(&disk).open()?;
        let mut sample =
            Sample { files: Files::default(), earlier: Files::default(), states: vec![Rows::new()], sure: 0 };
        let keyspaces = [db.keyspace(KEYSPACES[0])?, db.keyspace(KEYSPACES[1])?];
        for commit in 0..commits {
            let mut rows = sample.states.last().cloned().unwrap_or_default();
            let mut batch = WriteBatch::new();
            for _ in 0..1 + rng.below(if shape & 1 == 0 { 4 } else { 60 }) {
                let which = rng.below(2) as usize;
                let key = format!("key {}", rng.below(200)).into_bytes();
                let name = (KEYSPACES[which].to_owned(), key.clone());
                if shape & 8 != 0 && rng.chance(1, 4) {
                    other_write(&mut rng, &mut batch, &keyspaces[which], &mut rows, name);
                } else if rng.chance(1, 5) {
                    batch.remove(&keyspaces[which], &key);
                    rows.remove(&name);
                } else {
                    let value = value(&mut rng, commit as u64);
                    batch.insert(&keyspaces[which], &key, &value);
                    rows.insert(name, value);
                }
            }
            // The frame of this commit vouches for those before it.
            sample.sure = sample.states.len() - 1;
            db.write(batch)?;
            sample.states.push(rows);
            if rng.chance(1, 6) {
                db.checkpoint()?;
                sample.sure = sample.states.len() - 1;
            }
            if commit == commits / 2 {
                sample.earlier = Files::of(&disk);
            }
        }
        drop(keyspaces);
        let next = match shape >> 1 & 3 {
            0 => disk.kill(),
            1 => disk.crash(),
            _ => {
                db.close()?;
                sample.sure = sample.states.len() - 1;
                disk
            }
        };
        sample.files = Files::of(&next);
        Ok(sample)
    }

    /// What an open store shows. Reads either give what was written, or an error.
    fn judge(&self, db: &Db, done: Damaged, read_only: bool) {
        let shown = everything(db);
        let is_sound = db.verify(|_| {}).is_ok_and(|report| report.problems.is_empty());
        if !done.forged {
            let (shown, is_whole) = &shown;
            let fits = |state: &&Rows| {
                if *is_whole {
                    *state == shown
                } else {
                    shown.iter().all(|(key, value)| state.get(key) == Some(value))
                }
            };
            let newest = self.states.iter().rposition(|state| fits(&state));
            assert!(newest.is_some(), "a state that never was");
            let is_mild = done.count == 0 || done.is_single();
            assert!(!is_mild || newest >= Some(self.sure), "commit {newest:?}, and {} was sure", self.sure);
            assert!(!is_mild || *is_whole || !is_sound, "a row cannot be read, and nothing is wrong");
            assert!(done.count > 0 || is_sound, "problems in an undamaged store");
        }
        if !read_only {
            let _ = write_on(db, &shown.0).inspect_err(|error| assert!(done.count > 0, "{error}"));
        }
    }
}

fn value(rng: &mut Rng, tag: u64) -> Vec<u8> {
    let bytes = match rng.below(24) {
        0 => 5000 + rng.below(6000),
        1 | 2 => 1000 + rng.below(900),
        _ => rng.below(120),
    };
    let mut value = tag.to_le_bytes().to_vec();
    value.resize(bytes as usize, rng.next_u64() as u8);
    value
}

/// A range that is removed, or an add.
fn other_write(
    rng: &mut Rng,
    batch: &mut WriteBatch,
    keyspace: &Keyspace,
    rows: &mut Rows,
    (name, key): (String, Vec<u8>),
) {
    if rng.chance(1, 4) {
        let end = [&key[..], b"5"].concat();
        batch.remove_range(keyspace, (Bound::Excluded(&key), Bound::Included(&end)));
        rows.retain(|row, _| row.0 != name || row.1 <= key || row.1 > end);
        return;
    }
    let name = (name, b"number".to_vec());
    let number = rows.get(&name).and_then(|value| number_of(value)).unwrap_or(0);
    let delta = rng.next_u64() as i64;
    batch.add_i64(keyspace, &name.1, delta);
    rows.insert(name, number.wrapping_add(delta).to_le_bytes().to_vec());
}

/// All rows that can be read, and whether nothing stood in the way.
fn everything(db: &Db) -> (Rows, bool) {
    let mut rows = Rows::new();
    let mut is_whole = true;
    let snapshot = db.snapshot();
    let names = db.keyspaces();
    for name in names.iter().map(String::as_str).chain(KEYSPACES) {
        let keyspace = match db.open_keyspace(name) {
            Ok(Some(keyspace)) => keyspace,
            Ok(None) => continue,
            Err(_) => {
                is_whole = false;
                continue;
            }
        };
        for row in snapshot.range(&keyspace, ..) {
            match row {
                Ok((key, value)) => drop(rows.insert((name.to_owned(), key.to_vec()), value.to_vec())),
                Err(_) => {
                    is_whole = false;
                    break;
                }
            }
        }
        // The other way round, and by key, must say the same.
        if let Some(Ok((key, value))) = snapshot.range(&keyspace, ..).next_back() {
            let got = snapshot.get(&keyspace, &key);
            assert!(!matches!(&got, Ok(got) if got.as_deref() != Some(&*value)), "a scan and a get differ");
        }
    }
    (rows, is_whole)
}

/// The store goes on: a commit, a checkpoint, and both are there.
fn write_on(db: &Db, shown: &Rows) -> Result<()> {
    let keyspace = db.keyspace("after")?;
    keyspace.insert("after", "recovery")?;
    db.checkpoint()?;
    let (rows, _) = everything(db);
    let expected = Some(&b"recovery"[..]);
    assert_eq!(rows.get(&("after".to_owned(), b"after".to_vec())).map(Vec::as_slice), expected);
    assert!(
        shown.iter().all(|(key, value)| rows.get(key).is_none_or(|now| now == value || key.0 == "after"))
    );
    db.clone().close()
}
