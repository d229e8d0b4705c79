//! Many keys at once: what one at a time would give, whatever kind of disk and queue is below.

use super::*;
use seawall_wal::disk::os::OsOptions;
use seawall_wal::disk::sim::{Damage, Fault, Op};
use seawall_wal::disk::{Disk, Io, Open};
use seawall_wal::{DiskFile, OsDisk};

/// Next to nothing stays in the cache, so that most blocks are read.
const SMALL_CACHE_BYTES: usize = 16 << 10;

/// A store of 3,000 rows of all lengths, on this disk at this path.
fn store_on(disk: &Arc<dyn Disk>, at: &Path) -> (Arc<dyn DiskFile>, Arc<TreeStore>, Arc<Root>, Model) {
    let file = disk.open(at, Open::CreateNew).unwrap();
    TreeStore::create(file.clone(), at, &Superblock::default()).unwrap();
    let (store, root) = TreeStore::open(disk.clone(), file.clone(), at, SMALL_CACHE_BYTES, false).unwrap();
    let mut rng = Rng(9);
    let mut changes = put(1, (0..3000).map(|n| (key(n), vec![n as u8; rng.below(200) as usize])));
    changes.insert(2, (0..40).map(|n| (key(n), Some(vec![n as u8; 3000 + 4000 * n as usize]))).collect());
    let root = fold(&store, &root, &changes).unwrap();
    let mut model = Model::new();
    follow(&mut model, &changes);
    check(&store, &root, &model);
    (file, store, root, model)
}

/// Keys that are there and keys that are not, some twice, in no order.
fn some_keys(rng: &mut Rng) -> Vec<Vec<u8>> {
    let count = [0, 1, 2, 30, 400, 2500][rng.below(6) as usize];
    (0..count).map(|_| key(rng.below(3200))).collect()
}

fn compare(store: &TreeStore, root: &Root, model: &Model, rng: &mut Rng) {
    for keyspace in 1..4 {
        let keys = some_keys(rng);
        let borrowed: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
        let found = store.get_many(root, keyspace, &borrowed).unwrap();
        assert_eq!(found.len(), keys.len());
        for (key, found) in keys.iter().zip(found) {
            let expected = model.get(&keyspace).and_then(|rows| rows.get(key));
            assert!(found.as_deref() == expected.map(|value| &**value), "{}", key.escape_ascii());
        }
    }
}

#[test]
fn many_keys_are_what_each_is_alone() {
    let mut rng = Rng(2);
    for seed in 0..8 {
        let sim = SimDisk::new(seed);
        let disk: Arc<dyn Disk> = sim.clone();
        let (_, store, root, model) = store_on(&disk, Path::new("/data"));
        for _ in 0..6 {
            compare(&store, &root, &model, &mut rng);
        }
        assert!(sim.counts().contains_key("completed out of order"));
    }
}

#[test]
fn many_readers_share_what_the_system_has() {
    for io in [Io::Auto, Io::Blocking] {
        let at = std::env::current_exe().unwrap().with_file_name(format!("many-{}", std::process::id()));
        let disk: Arc<dyn Disk> = OsDisk::with(OsOptions { io, ..OsOptions::default() });
        let (_, store, root, model) = store_on(&disk, &at);
        disk.remove(&at).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (store, root, model) = (&store, &root, &model);
                scope.spawn(move || {
                    let mut rng = Rng(thread);
                    for _ in 0..8 {
                        compare(store, root, model, &mut rng);
                    }
                });
            }
        });
    }
}

#[test]
fn an_error_is_told_and_passes() {
    let sim = SimDisk::new(3);
    let disk: Arc<dyn Disk> = sim.clone();
    let (_, store, root, model) = store_on(&disk, Path::new("/data"));
    let keys: Vec<Vec<u8>> = (0..3000).step_by(7).map(key).collect();
    let borrowed: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
    sim.fail(Fault::eio(Op::Read).at_call(9));
    let error = store.get_many(&root, 1, &borrowed).unwrap_err();
    assert!(matches!(error, Error::Io { op: "read", .. }), "{error}");
    sim.fail(Fault::short(Op::Read).at_call(9));
    assert!(matches!(store.get_many(&root, 1, &borrowed), Err(Error::Corruption { .. })));
    let found = store.get_many(&root, 1, &borrowed).unwrap();
    assert!(keys.iter().zip(found).all(|(key, found)| found.as_deref() == Some(&*model[&1][key])));
}

#[test]
fn damage_is_found_among_many() {
    let sim = SimDisk::new(4);
    let disk: Arc<dyn Disk> = sim.clone();
    let (file, store, root, model) = store_on(&disk, Path::new("/data"));
    let (file_bytes, rows) = (file.len().unwrap(), &model[&1]);
    drop((file, store, root));
    for block in (2..file_bytes / 4096).step_by(40) {
        sim.damage("/data", &Damage::Flip { offset: block * 4096 + 100, mask: 4 }).unwrap();
    }
    let file = disk.open(Path::new("/data"), Open::ReadWrite).unwrap();
    let (store, root) = TreeStore::open(disk, file, Path::new("/data"), SMALL_CACHE_BYTES, false).unwrap();
    let mut refused = 0;
    for part in rows.keys().collect::<Vec<_>>().chunks(50) {
        let borrowed: Vec<&[u8]> = part.iter().map(|key| &***key).collect();
        match store.get_many(&root, 1, &borrowed) {
            Ok(found) => {
                assert!(part.iter().zip(found).all(|(key, found)| found.as_deref() == Some(&*rows[*key])));
            }
            Err(error) => {
                assert!(matches!(error, Error::Corruption { .. }), "{error}");
                refused += 1;
            }
        }
    }
    let one_by_one = rows.keys().filter(|key| store.get(&root, 1, key).is_err()).count();
    assert!(refused > 0 && refused < 60 && one_by_one > 0, "{refused} and {one_by_one}");
}
