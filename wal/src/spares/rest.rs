//! When a log rests, and what it gives back then.
//!
//! One that is busy now and then would make its files anew each time: if files have to be made within a minute after some
//! were given back, the next rest takes twice as long to begin. Whoever is about to place something behind what is
//! ready says so ([`Spares::hold`]): no file is taken away from him.

use super::{READY_MAX, Spares, State};
use crate::Lsn;
use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::segment;
use std::sync::Arc;
use std::time::Duration;

/// A log that nothing has come to for so long rests.
const REST: Duration = Duration::from_millis(500);

/// The longest that it becomes, and after which what was given back is not missed.
const REST_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Rest {
    /// What was given out when the log was last looked at while idle, and since when that is so.
    idle_since: Option<(Lsn, Duration)>,
    /// Those who make room, or have made it and place something there now.
    holders: usize,
    /// The segment that the log rested in: until the next one begins, little is kept ready.
    within: Option<u64>,
    /// For how long nothing comes to a log before it rests.
    after: Duration,
    /// When files were given back that nobody has missed so far.
    gave_back: Option<Duration>,
}

impl Default for Rest {
    fn default() -> Rest {
        Rest { idle_since: None, holders: 0, within: None, after: REST, gave_back: None }
    }
}

impl Rest {
    pub(super) fn is_on(&self) -> bool {
        self.within.is_some()
    }

    /// A new file had to be made.
    pub(super) fn made(&mut self, now: Duration) {
        let Some(gave_back) = self.gave_back.take() else { return };
        let is_soon = now.saturating_sub(gave_back) < REST_MAX;
        self.after = if is_soon { (self.after * 2).min(REST_MAX) } else { REST };
    }

    /// Whether nothing has come behind `reserved` since the log was found idle there, and nobody is about to bring something.
    fn is_undisturbed(&self, reserved: Lsn) -> bool {
        self.holders == 0 && self.idle_since.is_some_and(|(at, _)| at == reserved)
    }
}

/// While there is one, and for a time afterwards, no file is given back.
pub(crate) struct Held<'a>(&'a Spares);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let rest = &mut self.0.state.lock().rest;
        rest.holders -= 1;
        rest.idle_since = None;
    }
}

/// What a log at rest can do without.
enum Surplus {
    Nothing,
    /// Somebody came.
    Disturbed,
    File(String, Option<Arc<dyn DiskFile>>),
}

impl Spares {
    /// Somebody makes room, and is about to use it.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.state.lock().rest.holders += 1;
        Held(self)
    }

    /// How many files are to be ready while the log is written at `next`; `least` if it rests.
    pub(crate) fn wanted(&self, next: Lsn, least: usize) -> usize {
        let mut state = self.state.lock();
        if state.rest.within.is_some_and(|number| number != self.geometry.number(next)) {
            state.rest.within = None;
        }
        if state.rest.is_on() { least } else { READY_MAX }
    }

    /// For how long nothing has to come to a log that keeps more than `keep` files, until it rests.
    pub(crate) fn rests_after(&self, keep: usize) -> Option<Duration> {
        let state = self.state.lock();
        state.has_surplus(keep).then_some(state.rest.after)
    }

    /// Whether nothing has come for long enough behind `reserved`, and more than `keep` files are kept.
    pub(crate) fn may_rest(&self, reserved: Lsn, keep: usize) -> bool {
        let now = self.runtime.now();
        let mut state = self.state.lock();
        let since = match state.rest.idle_since {
            Some((at, since)) if at == reserved => since,
            _ => {
                state.rest.idle_since = Some((reserved, now));
                now
            }
        };
        let is_over = now.saturating_sub(since) >= state.rest.after;
        is_over && state.rest.holders == 0 && state.has_surplus(keep)
    }

    /// The log, written next at `next`, rests. `lower` is told from where on positions are about to have no file any
    /// more, and says whether all that was given out is below.
    pub(crate) fn give_back(
        &self,
        (reserved, next): (Lsn, Lsn),
        keep: usize,
        lower: impl Fn(Lsn) -> bool,
    ) -> Result<()> {
        let (_filling, _naming) = (self.filling.lock(), self.naming.lock());
        let mut removed = false;
        loop {
            let (name, file) = match self.surplus(reserved, keep, &lower) {
                Surplus::File(name, file) => (name, file),
                Surplus::Nothing => {
                    self.state.lock().rest.within = Some(self.geometry.number(next));
                    break;
                }
                Surplus::Disturbed => break,
            };
            let path = self.dir.join(name);
            self.disk.remove(&path).map_err(|source| Error::io("remove", &path, None, source))?;
            drop(file);
            removed = true;
        }
        if !removed {
            return Ok(());
        }
        self.state.lock().rest.gave_back = Some(self.runtime.now());
        self.sync_dir()
    }

    /// A file that is one too many: an old one, or the last of those that are ready.
    fn surplus(&self, reserved: Lsn, keep: usize, lower: impl Fn(Lsn) -> bool) -> Surplus {
        let mut state = self.state.lock();
        if !state.has_surplus(keep) {
            return Surplus::Nothing;
        }
        if !state.rest.is_undisturbed(reserved) {
            return Surplus::Disturbed;
        }
        if let Some(old) = state.old.pop() {
            return Surplus::File(old, None);
        }
        let Some(last) = state.ready.back().map(|(number, _)| *number) else { return Surplus::Nothing };
        if !lower(self.geometry.start(last)) {
            return Surplus::Disturbed;
        }
        let Some((number, file)) = state.ready.pop_back() else { return Surplus::Nothing };
        state.next = number;
        Surplus::File(segment::file_name(number), Some(file))
    }
}

impl State {
    fn has_surplus(&self, keep: usize) -> bool {
        self.ready.len() + self.old.len() > keep
    }
}
