//! Events of a store as events of the `tracing` crate.

use crate::{Event, EventListener};
use ::tracing::{debug, error, info, warn};

const TARGET: &str = "seawall";

/// Emits an event of the `tracing` crate for each of a store's, with the target `seawall`: checkpoints at level
/// `DEBUG`, what slows or refuses commits at `WARN`, a store that refuses writes from now on at `ERROR`. Times are in
/// the field `took_us`, ages in `age_s`.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-tracing-{}", std::process::id()));
/// use seawall::observe::TracingListener;
///
/// let db = seawall::Db::builder(&dir).events(std::sync::Arc::new(TracingListener)).open()?;
/// # drop(db);
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingListener;

impl EventListener for TracingListener {
    fn event(&self, event: &Event) {
        match event {
            Event::CheckpointDone { lsn, took } => {
                debug!(target: TARGET, lsn = lsn.0, took_us = took.as_micros() as u64, "checkpoint done");
            }
            Event::WriteStall { took } => {
                warn!(target: TARGET, took_us = took.as_micros() as u64, "a writer waited for memory");
            }
            Event::SlowSync { took } => {
                warn!(target: TARGET, took_us = took.as_micros() as u64, "a write of the log was slow");
            }
            Event::SnapshotOld { age } => {
                warn!(target: TARGET, age_s = age.as_secs_f64(), "an old snapshot had to give way");
            }
            Event::SlotLost { name, bytes } => {
                error!(target: TARGET, name = name.as_str(), bytes, "a slot fell behind beyond its limits");
            }
            Event::RewindGivenUp { floor, checkpoint } => {
                let (floor, checkpoint) = (floor.0, checkpoint.0);
                warn!(target: TARGET, floor, checkpoint, "a rewind may need a new image");
            }
            Event::NoSpace => warn!(target: TARGET, "the disk is full"),
            Event::Poisoned { why } => {
                error!(target: TARGET, why = why.as_str(), "the store refuses writes from now on");
            }
            Event::Degraded { on: true } => {
                warn!(target: TARGET, "commits go on without replicas, as they were told to");
            }
            Event::Degraded { on: false } => info!(target: TARGET, "commits wait for replicas again"),
            Event::Fenced { epoch } => {
                error!(target: TARGET, epoch, "another store has taken this one's place");
            }
            Event::Promoted { epoch } => info!(target: TARGET, epoch, "the replica was promoted"),
            // What later versions tell of.
            other => warn!(target: TARGET, event = ?other, "an event"),
        }
    }
}
