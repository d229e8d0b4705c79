//! Prepared transactions against a model: what was decided is what is there.

use super::*;

/// Random transactions, prepared, decided, crashed over and folded, against a model: the rows, and what is open.
#[test]
fn against_a_model() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::new(seed);
        let mut db = open(&disk);
        let mut rows = Rows::new();
        let mut open_ones: BTreeMap<String, Vec<(Vec<u8>, i64)>> = BTreeMap::new();
        let mut unsure: Vec<String> = Vec::new();
        for step in 0..60 {
            let ks = db.keyspace("rows").unwrap();
            match rng.next_u64() % 10 {
                0..=3 => {
                    let name = format!("t{step}");
                    let writes: Vec<(Vec<u8>, i64)> = (0..1 + rng.next_u64() % 3)
                        .map(|_| (vec![b'a' + (rng.next_u64() % 12) as u8], step))
                        .collect();
                    let mut tx = db.begin();
                    for (key, value) in &writes {
                        tx.insert(&ks, key, value.to_le_bytes()).unwrap();
                    }
                    let meets =
                        |(key, _): &(Vec<u8>, i64)| open_ones.values().flatten().any(|(held, _)| held == key);
                    match tx.prepare(xid(&name)) {
                        Ok(Vote::Prepared(_)) => {
                            assert!(!writes.iter().any(meets), "seed {seed}, step {step}");
                            open_ones.insert(name, writes);
                        }
                        Err(Error::PreparedConflict { .. }) => {
                            assert!(writes.iter().any(meets), "seed {seed}, step {step}");
                        }
                        other => panic!("seed {seed}, step {step}: {other:?}"),
                    }
                }
                4..=6 => {
                    let Some(name) =
                        open_ones.keys().nth(rng.next_u64() as usize % open_ones.len().max(1)).cloned()
                    else {
                        continue;
                    };
                    let prepared = db.prepared_by(&xid(&name)).unwrap().expect("it is open");
                    let writes = open_ones.remove(&name).unwrap();
                    if !rng.next_u64().is_multiple_of(3) {
                        prepared.commit().unwrap();
                        rows.extend(writes);
                        unsure.clear();
                    } else {
                        prepared.rollback().unwrap();
                        unsure.push(name);
                    }
                }
                7 => {
                    let key = vec![b'a' + (rng.next_u64() % 12) as u8];
                    let is_held = open_ones.values().flatten().any(|(held, _)| *held == key);
                    let outcome = ks.insert(&key, step.to_le_bytes());
                    assert_eq!(outcome.is_err(), is_held, "seed {seed}, step {step}: {outcome:?}");
                    if !is_held {
                        rows.insert(key, step);
                        unsure.clear();
                    }
                }
                8 => {
                    db.checkpoint().unwrap();
                    unsure.clear();
                }
                _ => {
                    drop((db, ks));
                    disk = disk.crash_copy();
                    db = open(&disk);
                    // A rollback that nothing has made durable may be undone: it is asked for again.
                    for name in unsure.drain(..) {
                        if let Some(prepared) = db.prepared_by(&xid(&name)).unwrap() {
                            prepared.rollback().unwrap();
                            db.sync().unwrap();
                        }
                    }
                }
            }
            let ks = db.keyspace("rows").unwrap();
            let found: Rows = ks
                .range(..)
                .map(|row| {
                    row.map(|(key, value)| (key.to_vec(), i64::from_le_bytes(value[..].try_into().unwrap())))
                })
                .collect::<Result<_>>()
                .unwrap();
            assert_eq!(found, rows, "seed {seed}, step {step}");
            let names: Vec<String> =
                db.prepared().map(|p| String::from_utf8(p.xid().gtrid().to_vec()).unwrap()).collect();
            let mut expected: Vec<String> = open_ones.keys().cloned().collect();
            expected.sort_by_key(|name| name[1..].parse::<u32>().unwrap());
            assert_eq!(names, expected, "seed {seed}, step {step}: oldest first");
        }
    }
}
