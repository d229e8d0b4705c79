//! How far the primary is from whom a replica follows, and when it looks for somebody else. Pure.

use crate::message::HOPS_MAX;

/// Where all addresses were tried and no nearer one was found, it is looked for so many times more seldom.
const SELDOM: u64 = 10;

/// What is known of the way to the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// From whom is followed.
    hops: Option<u8>,
    /// Since when no way leads there, and nothing new comes.
    astray_since: Option<u64>,
    /// Since when a replica is followed, and not the primary.
    far_since: Option<u64>,
    /// How often in a row a nearer one was looked for, and whether everywhere.
    searched: u32,
    has_searched: bool,
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
        let is_far = hops != Some(0) && addresses > 1;
        self.far_since = is_far.then(|| self.far_since.unwrap_or(now));
        self.has_searched = self.searched.saturating_add(1) >= addresses;
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
        let [astray, far] = self.due(after_us).map(|due| due.is_some_and(|at| at <= now));
        if astray { Some(Leaves::Astray) } else { far.then_some(Leaves::Far) }
    }

    pub(super) fn wake_at(&self, after_us: u64) -> Option<u64> {
        self.due(after_us).into_iter().flatten().min()
    }

    fn due(&self, after_us: u64) -> [Option<u64>; 2] {
        let far_us = if self.has_searched { after_us.saturating_mul(SELDOM) } else { after_us };
        let [astray, far] = [(self.astray_since, after_us), (self.far_since, far_us)];
        [astray, far].map(|(since, after)| since.map(|at| at.saturating_add(after)))
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
