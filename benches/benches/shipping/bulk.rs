//! A replica that has everything to catch up with, beside the log alone.

use super::node::Node;
use super::primary::{Primary, write_image};
use super::{BASE, Figures, LOG_MIB};
use seawall_benches::{cpu_seconds, fresh_dir, remove};
use seawall_engine::SlotOptions;
use seawall_wal::Wal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const ROW: [u8; 1000] = [0x5a; 1000];
/// The same rows, again and again: the log is long, and the data file is not.
const ROWS: u64 = 64 << 10;
const ROWS_AT_ONCE: u64 = 1000;
/// What the log alone writes between two syncs.
const SYNC_BYTES: usize = 4 << 20;
/// A replica that is to apply nothing while it is measured.
const NEVER_US: u64 = 3_600_000_000;

/// The ways to catch up, by name: what kind of node it is, and its delay.
const WAYS: [(&str, &str, u64); 3] = [
    ("transport alone", "sink", 0),
    ("received and durable", "replica", NEVER_US),
    ("received, durable and applied", "replica", 0),
];

/// A primary with so much log, and a replica's store that has nothing of it.
pub(crate) struct Bulk {
    primary: Primary,
    blank: PathBuf,
    bytes: u64,
}

impl Bulk {
    pub(crate) fn new(mib: u64) -> Bulk {
        let primary = Primary::new(None);
        let blank = primary.dir.join("blank");
        primary.db.create_slot("bulk", SlotOptions::default()).expect("a slot");
        write_image(&primary.db, &blank);
        let wal = primary.db.shipping();
        let begin = wal.wal().durable_lsn();
        let mut row = 0;
        while wal.wal().durable_lsn().0 - begin.0 < mib << 20 {
            let mut tx = primary.db.begin();
            for _ in 0..ROWS_AT_ONCE {
                row = (row + 7919) % ROWS;
                tx.insert(&primary.rows, row.to_be_bytes(), ROW).expect("in");
            }
            tx.commit().expect("committed");
        }
        let bytes = wal.wal().durable_lsn().0 - begin.0;
        Bulk { primary, blank, bytes }
    }

    /// Each way once.
    pub(crate) fn measure(&self, found: &mut Figures) {
        found.add("log alone, MiB/s", log_alone(self.bytes.min(LOG_MIB << 20)));
        for (name, kind, delay_us) in WAYS {
            self.catch_up(name, kind, delay_us, found);
        }
    }

    fn catch_up(&self, name: &str, kind: &str, delay_us: u64, found: &mut Figures) {
        let dir = self.primary.dir.join("one");
        // Of a repetition before.
        remove(&dir);
        copy(&self.blank, &dir);
        let address = self.primary.server.address().to_string();
        let path = dir.to_string_lossy();
        let delay = delay_us.to_string();
        let mut args = vec![kind, &path, "one", &address];
        if kind == "replica" {
            args.extend([delay.as_str(), "none"]);
        }
        let mut node = Node::start(&args);
        assert_eq!(node.line(), "ready");
        let process = node.process();
        let cpu = || (cpu_seconds("self"), cpu_seconds(&process));
        let end = self.primary.durable();
        let (before, begin) = (cpu(), Instant::now());
        node.tell("follow");
        let is_applied = kind == "replica" && delay_us == 0;
        self.primary.wait("one", |status| {
            let marks = status.marks;
            if is_applied { marks.applied >= end } else { marks.durable >= end }
        });
        let (took, after) = (begin.elapsed().as_secs_f64(), cpu());
        let mib = self.bytes as f64 / f64::from(1 << 20);
        found.add(&format!("{name}, MiB/s"), mib / took);
        let per_byte = |seconds: f64| seconds * 1e9 / self.bytes as f64;
        found.add(&format!("{name}, primary's processor ns/B"), per_byte(after.0 - before.0));
        found.add(&format!("{name}, replica's processor ns/B"), per_byte(after.1 - before.1));
        drop(node);
        self.primary.wait_gone();
        remove(&dir);
    }

    pub(crate) fn close(self) {
        self.primary.close();
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(copied.success(), "a copy of {from:?}");
}

/// MiB a second of the log alone: what it costs to write down as much, in batches, on this disk.
fn log_alone(bytes: u64) -> f64 {
    let dir = fresh_dir(BASE, "shipping-log");
    let wal = Wal::options().segment_bytes(super::SEGMENT_BYTES).open(&dir).expect("a log");
    let batch: Vec<[u8; 1000]> = vec![ROW; ROWS_AT_ONCE as usize];
    let (begin, mut done, mut unsynced) = (Instant::now(), 0, 0);
    while done < bytes {
        wal.append_batch(&batch).expect("appended");
        done += ROW.len() as u64 * ROWS_AT_ONCE;
        unsynced += ROW.len() * batch.len();
        if unsynced >= SYNC_BYTES {
            wal.sync().expect("synced");
            unsynced = 0;
        }
    }
    wal.sync().expect("synced");
    let took = begin.elapsed().as_secs_f64();
    drop(wal);
    remove(&dir);
    done as f64 / f64::from(1 << 20) / took
}
