//! How far the primary is from whom a replica follows, and when it looks for somebody else. Pure.

use crate::message::HOPS_MAX;

/// What is known of the way to the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// From whom is followed.
    hops: Option<u8>,
    /// Since when no way leads there, and nothing new comes.
    astray_since: Option<u64>,
    /// Since when a replica is followed, and not the primary.
    far_since: Option<u64>,
    /// How often in a row a nearer one was looked for.
    searched: u32,
}

/// Why whoever is followed is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// R11: no way leads from there.
    Astray,
    /// Another might be nearer.
    Far,
}

impl Way {
    /// Somebody welcomes: the primary, if nothing else is said.
    pub(super) fn begin(&mut self) {
        (self.hops, self.astray_since, self.far_since) = (Some(0), None, None);
    }

    /// So far it is, said whoever is followed. `addresses`: so many there are to choose from.
    pub(super) fn heard(&mut self, now: u64, hops: Option<u8>, addresses: u32) {
        self.hops = hops;
        let is_astray = self.distance().is_none();
        self.astray_since = is_astray.then(|| self.astray_since.unwrap_or(now));
        let is_far = hops != Some(0) && self.searched.saturating_add(1) < addresses;
        self.far_since = is_far.then(|| self.far_since.unwrap_or(now));
    }

    /// Something new has come.
    pub(super) fn moved(&mut self, now: u64) {
        self.astray_since = self.astray_since.map(|_| now);
    }

    /// From those that follow this one.
    pub(super) fn distance(&self) -> Option<u8> {
        self.hops.filter(|hops| *hops < HOPS_MAX).map(|hops| hops + 1)
    }

    /// Whether whoever is followed is to be left, after so long.
    pub(super) fn leaves(&self, now: u64, after_us: u64) -> Option<Leaves> {
        let is_due = |since: Option<u64>| since.is_some_and(|at| now.saturating_sub(at) >= after_us);
        let far = is_due(self.far_since).then_some(Leaves::Far);
        if is_due(self.astray_since) { Some(Leaves::Astray) } else { far }
    }

    pub(super) fn wake_at(&self, after_us: u64) -> Option<u64> {
        let since = [self.astray_since, self.far_since].into_iter().flatten().min();
        since.map(|at| at.saturating_add(after_us))
    }

    /// What was followed is followed no more: by whose will, is said by `why`. A search is over when it was for another reason, for
    /// then who is where may have changed.
    pub(super) fn left(&mut self, why: Option<Leaves>) {
        let searched = if why == Some(Leaves::Far) { self.searched.saturating_add(1) } else { 0 };
        *self = Way { searched, ..Way::default() };
    }

    /// Somebody is about to be the primary.
    pub(super) fn search_anew(&mut self) {
        self.searched = 0;
    }
}
