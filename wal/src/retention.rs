//! Who keeps the log from being reclaimed.

use crate::Lsn;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Somebody who keeps the log from a position on.
///
/// ```
/// # fn main() -> seawall_wal::Result<()> {
/// # let wal = seawall_wal::Wal::options().disk(seawall_wal::SimDisk::new(1)).segment_bytes(256 << 10).open("/log")?;
/// let pin = wal.pin("a reader of mine", wal.first_lsn())?;
/// wal.append("record")?;
/// for retainer in wal.retained() {
///     println!("{} keeps {} bytes, and has for {:?}", retainer.who, retainer.bytes, retainer.age);
/// }
/// # drop(pin);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retainer {
    /// Who: `"checkpoint"`, a reader, a replica's slot, ….
    pub who: String,
    /// From where on.
    pub lsn: Lsn,
    /// How much log that is, in bytes.
    pub bytes: u64,
    /// For how long it has not moved.
    pub age: Duration,
}

#[derive(Debug)]
pub(crate) struct Retention {
    runtime: Arc<dyn Runtime>,
    pins: Mutex<Pins>,
}

#[derive(Debug, Default)]
struct Pins {
    next_id: u64,
    pins: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    who: String,
    lsn: Lsn,
    since: Duration,
    /// What it keeps was cut off, from here on.
    cut: Option<Lsn>,
}

impl Retention {
    pub(crate) fn new(runtime: &Arc<dyn Runtime>) -> Arc<Retention> {
        Arc::new(Retention { runtime: runtime.clone(), pins: Mutex::new(Pins::default()) })
    }

    /// Pins, unless `lsn` is before `first()`, which is read under the same lock that reclaiming takes.
    pub(crate) fn pin(self: &Arc<Self>, who: &str, lsn: Lsn, first: impl Fn() -> Lsn) -> Result<Pin> {
        let since = self.runtime.now();
        let mut pins = self.pins.lock();
        let first = first();
        if lsn < first {
            return Err(Error::BadInput(format!(
                "{who} cannot keep the log from {lsn} on: it begins at {first} now"
            )));
        }
        let id = pins.next_id;
        pins.next_id += 1;
        pins.pins.insert(id, Held { who: who.to_owned(), lsn, since, cut: None });
        Ok(Pin { retention: self.clone(), id })
    }

    /// The lowest position that anyone keeps, handed to `publish` before any later pin can be taken.
    pub(crate) fn floor_with<R>(&self, publish: impl FnOnce(Option<Lsn>) -> R) -> R {
        let pins = self.pins.lock();
        publish(pins.pins.values().map(|held| held.lsn).min())
    }

    /// The log was cut: what is from `dropped` on is gone, and those who stand behind it are told when they move.
    pub(crate) fn cut(&self, dropped: Lsn) {
        for held in self.pins.lock().pins.values_mut().filter(|held| held.lsn > dropped) {
            held.cut = Some(held.cut.map_or(dropped, |cut| cut.min(dropped)));
        }
    }

    pub(crate) fn retained(&self, end: Lsn) -> Vec<Retainer> {
        let now = self.runtime.now();
        let pins = self.pins.lock();
        let mut retained: Vec<Retainer> = pins
            .pins
            .values()
            .map(|held| Retainer {
                who: held.who.clone(),
                lsn: held.lsn,
                bytes: end.0.saturating_sub(held.lsn.0),
                age: now.saturating_sub(held.since),
            })
            .collect();
        retained.sort_by(|a, b| a.lsn.cmp(&b.lsn).then_with(|| a.who.cmp(&b.who)));
        retained
    }
}

/// Keeps the log from a position on, until dropped.
#[derive(Debug)]
#[must_use = "the log is kept only as long as the pin lives"]
pub struct Pin {
    retention: Arc<Retention>,
    id: u64,
}

impl Pin {
    /// Moves the position forward.
    ///
    /// # Errors
    /// [`Error::BadInput`] if that would be backward; [`Error::Truncated`] if the log was
    /// [cut](crate::Wal::truncate_after) before the position.
    pub fn advance(&self, lsn: Lsn) -> Result<()> {
        let now = self.retention.runtime.now();
        let mut pins = self.retention.pins.lock();
        let Some(held) = pins.pins.get_mut(&self.id) else { return Err(Error::Closed) };
        if let Some(at) = held.cut {
            return Err(Error::Truncated { at });
        }
        if lsn < held.lsn {
            return Err(Error::BadInput(format!("a pin at {} cannot go back to {lsn}", held.lsn)));
        }
        if lsn > held.lsn {
            held.lsn = lsn;
            held.since = now;
        }
        Ok(())
    }

    /// Moves the position forward, if that is where `lsn` is.
    pub(crate) fn advance_to(&self, lsn: Lsn) {
        let now = self.retention.runtime.now();
        let mut pins = self.retention.pins.lock();
        if let Some(held) = pins.pins.get_mut(&self.id).filter(|held| held.lsn < lsn) {
            held.lsn = lsn;
            held.since = now;
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.retention.pins.lock().pins.remove(&self.id);
    }
}
