//! What changes slots: each change is in the file before anything rests on it.

use super::file::{SLOTS_MAX, Slot, SlotsFile, is_name};
use super::{Held, Loss, SlotOptions, Slots};
use crate::sync::Ordering;
use crate::{Error, Result};
use seawall_wal::disk::crashsafe;
use seawall_wal::{Lsn, Pin};
use std::collections::BTreeMap;
use std::time::Duration;

/// Places are made durable this often, at most, unless they move by more than `WRITE_BYTES`.
const WRITE_EVERY: Duration = Duration::from_secs(1);
const WRITE_BYTES: u64 = 16 << 20;

impl Slots {
    /// Creates a slot where `begin` says, which is asked when no record is being placed any more that names bytes outside of
    /// the log (L4). One that is lost is created anew.
    ///
    /// # Errors
    /// `BadInput` for a name that cannot be, or is taken; `TooLarge`, `Io`, `NoSpace`.
    pub(crate) fn create(
        &self,
        name: &str,
        options: SlotOptions,
        begin: impl Fn() -> Result<Lsn>,
    ) -> Result<()> {
        if !is_name(name) {
            let what = format!(
                "\"{}\" is no name of a slot: 1 to 64 of a to z, 0 to 9, _ and -",
                name.escape_debug()
            );
            return Err(Error::BadInput(what));
        }
        let _one_at_a_time = self.writing.lock();
        let mut next = self.current();
        if next.get(name).is_some_and(|slot| !slot.is_lost) {
            return Err(Error::BadInput(format!("there is a slot {name} already")));
        }
        if next.len() >= SLOTS_MAX && !next.contains_key(name) {
            let (len, max) = (next.len() as u64 + 1, SLOTS_MAX as u64);
            return Err(Error::TooLarge { what: "the number of slots", len, max });
        }
        {
            let _nobody_names = self.naming.lock();
            self.alive.fetch_add(1, Ordering::AcqRel);
        }
        let created = self.begin_at(name, &begin).and_then(|(place, pin)| {
            let now_us = self.runtime.wall_clock_us();
            let slot = Slot {
                name: name.to_owned(),
                is_lost: false,
                place,
                confirmed: place,
                moved_us: now_us,
                created_us: now_us,
                bytes_max: options.bytes_max.map(|max| max.min(u64::MAX - 1)),
                age_max_us: options.age_max.map(|max| max.as_micros().min(u128::from(u64::MAX - 1)) as u64),
            };
            next.insert(name.to_owned(), slot.clone());
            match self.replace(&next) {
                Ok(()) => Ok((slot, pin)),
                Err(error) => {
                    // The file may have it all the same, after a power cut.
                    self.state.lock().doubtful.extend(pin);
                    Err(error)
                }
            }
        });
        match created {
            Ok((slot, pin)) => {
                let held = Held { slot: slot.clone(), written: slot, pin, heard_at: None };
                self.state.lock().held.insert(name.to_owned(), held);
                Ok(())
            }
            Err(error) => {
                self.alive.fetch_sub(1, Ordering::AcqRel);
                Err(error)
            }
        }
    }

    /// A checkpoint may release what is to be pinned, just before it is: then a newer one has been published.
    fn begin_at(&self, name: &str, begin: &dyn Fn() -> Result<Lsn>) -> Result<(Lsn, Option<Pin>)> {
        let mut place = begin()?;
        loop {
            match self.pin(name, place) {
                Ok(pin) => return Ok((place, Some(pin))),
                Err(_) if self.is_unpinned => return Ok((place, None)),
                Err(error) => {
                    let next = begin()?;
                    if next <= place {
                        return Err(error);
                    }
                    place = next;
                }
            }
        }
    }

    /// Drops a slot: nothing is kept for it any more.
    ///
    /// # Errors
    /// `SlotMissing`, `Io`, `NoSpace`: it is then still there.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let _one_at_a_time = self.writing.lock();
        let mut next = self.current();
        let Some(slot) = next.remove(name) else { return Err(Error::SlotMissing(name.to_owned())) };
        self.replace(&next)?;
        let gone = self.state.lock().held.remove(name);
        self.alive.fetch_sub(usize::from(!slot.is_lost), Ordering::AcqRel);
        drop(gone);
        self.has_moved.store(true, Ordering::Release);
        Ok(())
    }

    /// Its owner was heard of: what it wants next begins at `place`, and all below `confirmed` is on its device. Neither
    /// goes back. True if the file was replaced.
    ///
    /// # Errors
    /// `SlotMissing`, `SlotLost`; `BadInput` for a place that the log does not reach; `Io` and `NoSpace` if the file could
    /// not be replaced, which is tried again later.
    pub(crate) fn advance(&self, name: &str, place: Lsn, confirmed: Lsn) -> Result<bool> {
        let (now, wall_us) = (self.runtime.now(), self.runtime.wall_clock_us());
        let end = self.log.next_lsn();
        let is_due = {
            let mut state = self.state.lock();
            let since = now.saturating_sub(state.written_at);
            let Some(held) = state.held.get_mut(name) else {
                return Err(Error::SlotMissing(name.to_owned()));
            };
            if held.slot.is_lost {
                return Err(Error::SlotLost(name.to_owned()));
            }
            // Behind the last frame the next one may stand in a later segment.
            if confirmed > end || place.0 > end.0.next_multiple_of(self.segment_bytes) {
                let what = format!("slot {name} cannot be at {place}: the log ends at {end}");
                return Err(Error::BadInput(what));
            }
            held.slot.place = held.slot.place.max(place);
            held.slot.confirmed = held.slot.confirmed.max(confirmed);
            held.slot.moved_us = held.slot.moved_us.max(wall_us);
            held.heard_at = Some(now);
            let moved = held.slot.place.0 - held.written.place.0;
            let is_new = moved > 0 || held.slot.confirmed != held.written.confirmed;
            is_new && (since >= WRITE_EVERY || moved >= WRITE_BYTES)
        };
        match self.writing.try_lock() {
            Some(_one_at_a_time) if is_due => self.write_current().map(|()| true),
            _ => Ok(false),
        }
    }

    /// Puts the places of now into the file, if it has others.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(crate) fn write(&self) -> Result<()> {
        let _one_at_a_time = self.writing.lock();
        let is_same = self.state.lock().held.values().all(|held| held.slot == held.written);
        if is_same { Ok(()) } else { self.write_current() }
    }

    /// Log is about to be released up to `release`: first the places go into the file, and slots beyond their limits are
    /// given up there (L3). Where that cannot be written, the log stays. Those that were lost.
    pub(crate) fn settle(&self, release: Lsn) -> Vec<Loss> {
        if self.state.lock().held.is_empty() {
            return Vec::new();
        }
        let _one_at_a_time = self.writing.lock();
        let losses = self.beyond_limits(release);
        let mut next = self.current();
        for loss in &losses {
            if let Some(slot) = next.get_mut(&loss.name) {
                slot.is_lost = true;
            }
        }
        let is_same = {
            let state = self.state.lock();
            state.held.iter().all(|(name, held)| next.get(name) == Some(&held.written))
        };
        if is_same || self.replace(&next).is_err() {
            return Vec::new();
        }
        losses
    }

    fn beyond_limits(&self, release: Lsn) -> Vec<Loss> {
        let (end, now) = (self.log.next_lsn(), self.runtime.now());
        let state = self.state.lock();
        let open_for = now.saturating_sub(state.opened_at);
        let is_beyond = |held: &&Held| {
            if !held.is_alive() {
                // Its log was gone when the store was opened.
                return !held.written.is_lost;
            }
            if held.slot.place >= release {
                return false;
            }
            let bytes = end.0.saturating_sub(held.slot.place.0);
            let idle = held.heard_at.map_or(open_for, |at| now.saturating_sub(at));
            held.slot.bytes_max.is_some_and(|max| bytes > max)
                || held.slot.age_max_us.is_some_and(|max| idle > Duration::from_micros(max))
        };
        let loss = |held: &Held| Loss {
            name: held.slot.name.clone(),
            bytes: end.0.saturating_sub(held.slot.place.0),
        };
        state.held.values().filter(is_beyond).map(loss).collect()
    }

    fn current(&self) -> BTreeMap<String, Slot> {
        let state = self.state.lock();
        state.held.iter().map(|(name, held)| (name.clone(), held.slot.clone())).collect()
    }

    /// The caller is the only one who writes.
    fn write_current(&self) -> Result<()> {
        self.replace(&self.current())
    }

    /// Replaces the file; then pins follow (L2). The caller is the only one who writes.
    fn replace(&self, next: &BTreeMap<String, Slot>) -> Result<()> {
        let now = self.runtime.now();
        let sequence = {
            let mut state = self.state.lock();
            state.written_at = now;
            state.sequence + 1
        };
        let slots = next.values().cloned().collect();
        let file = SlotsFile { store_id: self.store_id, sequence, slots };
        crashsafe::write_new(&*self.disk, &self.path, &file.encode())
            .map_err(|source| Error::io("replace", &self.path, None, source))?;
        let mut gone: Vec<Pin> = Vec::new();
        {
            let mut state = self.state.lock();
            state.sequence = sequence;
            gone.append(&mut state.doubtful);
            for (name, written) in next {
                let Some(held) = state.held.get_mut(name) else { continue };
                if written.is_lost {
                    self.alive.fetch_sub(usize::from(held.is_alive()), Ordering::AcqRel);
                    held.slot.is_lost = true;
                    gone.extend(held.pin.take());
                } else if let Some(pin) = held.pin.as_ref().filter(|_| held.is_alive()) {
                    // It stays where it is if the log was cut below it.
                    let _ = pin.advance(written.place);
                }
                held.written = written.clone();
            }
        }
        drop(gone);
        self.has_moved.store(true, Ordering::Release);
        Ok(())
    }
}
