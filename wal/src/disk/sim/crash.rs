//! What a power cut leaves.
//!
//! Each pending write survives whole, torn at sectors, or not at all; each file has one of the lengths that it had since
//! its length was durable, and nothing beyond it; each pending operation on names persists or not, as far as
//! [`NameHabit`](super::NameHabit) lets it. A [`CrashStyle`], drawn for each crash, sets how likely each is.

use super::content::{Content, Pages, Pending};
use super::names::{Inode, NameHabit, Names, Namespace, ROOT};
use super::state::{File, State};
use crate::runtime::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// What a crash does to all that was not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashStyle {
    /// Everything survives.
    KeepAll,
    /// Nothing survives.
    KeepNone,
    /// What was done first survives, over all files and names; the write on the edge is torn.
    Prefix,
    /// Each write, length and name has its own fate.
    Random,
}

/// What one crash decides, in figures.
struct Dice {
    style: CrashStyle,
    /// `Prefix`: changes up to this one survive; the next write is torn.
    edge: u64,
    /// `Random`: chances out of 100 that a write survives whole, or torn.
    whole: u64,
    torn: u64,
    rng: Rng,
}

/// The fate of one write.
enum Fate {
    Whole,
    Torn,
    Gone,
}

impl State {
    /// The disk as the next start would find it. Its random stream, and this disk's, go separate ways.
    pub(super) fn crashed(&mut self) -> State {
        self.count("crash");
        if self.in_flight > 0 {
            self.count("power lost with operations in flight");
        }
        let mut rng = self.rng.fork();
        let style = self.style.unwrap_or_else(|| {
            use CrashStyle::{KeepAll, KeepNone, Prefix, Random};
            [KeepAll, KeepNone, Prefix, Prefix, Random, Random, Random, Random][rng.below(8) as usize]
        });
        let whole = rng.below(101);
        let mut dice =
            Dice { style, edge: self.edge(&mut rng), whole, torn: rng.below(101 - whole), rng: rng.fork() };
        let names = self.surviving_names(&mut dice);
        let mut next = State::new(rng.next_u64());
        next.counts = self.counts.clone();
        next.hash = self.hash;
        next.last_change = self.last_change;
        next.next_inode = self.next_inode;
        (next.habit, next.style, next.pace) = (self.habit, self.style, self.pace);
        (next.is_direct, next.is_copy_on_write) = (self.is_direct, self.is_copy_on_write);
        next.capacity_pages = self.capacity_pages;
        next.trace = self.trace.as_ref().map(|_| Vec::new());
        self.copy_reachable(&names, &mut dice, &mut next);
        next.space = Namespace { visible: names.clone(), durable: names, pending: Vec::new() };
        next
    }

    /// The last change that a `Prefix` keeps: drawn among those that are pending, not among all that ever were.
    fn edge(&self, rng: &mut Rng) -> u64 {
        let writes = self.files.values().flat_map(|file| &file.content.pending).map(|pending| pending.id);
        let lens = self.files.values().flat_map(|file| &file.content.lens).map(|(id, _)| *id);
        let names = self.space.pending.iter().map(|op| op.id);
        let ids: Vec<u64> = writes.chain(lens).chain(names).collect::<BTreeSet<u64>>().into_iter().collect();
        let kept = rng.below(ids.len() as u64 + 1) as usize;
        kept.checked_sub(1).map_or(0, |last| ids[last])
    }

    fn surviving_names(&self, dice: &mut Dice) -> Names {
        let pending = &self.space.pending;
        let mut chosen: Vec<bool> = pending
            .iter()
            .map(|op| match dice.style {
                CrashStyle::KeepAll => true,
                CrashStyle::KeepNone => false,
                CrashStyle::Prefix => op.id <= dice.edge,
                CrashStyle::Random => dice.rng.chance(1, 2),
            })
            .collect();
        if dice.style == CrashStyle::Random && self.habit == NameHabit::Ext4 {
            let kept = dice.rng.below(pending.len() as u64 + 1) as usize;
            chosen[..kept].fill(true);
            chosen[kept..].fill(false);
        }
        self.space.close(&mut chosen);
        if let Some(first_lost) = chosen.iter().position(|kept| !kept) {
            self.count("lost name");
            if chosen[first_lost..].contains(&true) {
                self.count("reordered names");
            }
        }
        if chosen.contains(&true) {
            self.count("kept name");
        }
        self.space.after_crash(&chosen)
    }

    fn copy_reachable(&self, names: &Names, dice: &mut Dice, next: &mut State) {
        let mut dirs = vec![ROOT];
        let mut files = BTreeMap::new();
        while let Some(dir) = dirs.pop() {
            next.dirs.insert(dir);
            for (_, inode) in names.list(dir) {
                if self.dirs.contains(&inode) {
                    dirs.push(inode);
                } else if let Some(file) = self.files.get(&inode) {
                    files.insert(inode, &file.content);
                }
            }
        }
        let files: Vec<(Inode, &Content)> = files.into_iter().collect();
        for (inode, content) in files {
            let content = self.survivor(content, dice);
            next.used_pages += content.allocated.count();
            next.files.insert(inode, File::new(content));
        }
    }

    /// One file after the crash.
    fn survivor(&self, old: &Content, dice: &mut Dice) -> Content {
        let mut bytes = old.durable.clone();
        let mut has_lost = false;
        for pending in &old.pending {
            match dice.fate(pending.id) {
                Fate::Whole => {
                    pending.apply(&mut bytes);
                    self.count("kept write");
                    if std::mem::take(&mut has_lost) {
                        self.count("reordered");
                    }
                }
                Fate::Torn => {
                    dice.tear(pending, &mut bytes);
                    self.count("torn write");
                }
                Fate::Gone => {
                    has_lost = true;
                    self.count("dropped write");
                }
            }
        }
        let len = dice.len(old);
        if len < old.visible_len {
            self.count("cut length");
        }
        bytes.cut(len);
        let mut content = Content::settled(bytes, len);
        content.inherit_medium(old);
        content
    }
}

impl Dice {
    fn fate(&mut self, id: u64) -> Fate {
        match self.style {
            CrashStyle::KeepAll => Fate::Whole,
            CrashStyle::KeepNone => Fate::Gone,
            CrashStyle::Prefix if id < self.edge => Fate::Whole,
            CrashStyle::Prefix if id == self.edge => Fate::Torn,
            CrashStyle::Prefix => Fate::Gone,
            CrashStyle::Random => match self.rng.below(100) {
                roll if roll < self.whole => Fate::Whole,
                roll if roll < self.whole + self.torn => Fate::Torn,
                _ => Fate::Gone,
            },
        }
    }

    /// Applies some of a write's sectors: each by its own coin when there are few, else runs of them.
    fn tear(&mut self, pending: &Pending, bytes: &mut Pages) {
        let total = pending.sectors.end - pending.sectors.start;
        let run_max = if total <= 64 { 1 } else { total / 8 };
        let kept = 1 + self.rng.below(3);
        let mut at = pending.sectors.start;
        while at < pending.sectors.end {
            let end = (at + 1 + self.rng.below(run_max)).min(pending.sectors.end);
            if self.rng.chance(kept, 4) {
                pending.part(at..end).apply(bytes);
            }
            at = end;
        }
    }

    fn len(&mut self, file: &Content) -> u64 {
        match self.style {
            CrashStyle::KeepAll => file.lens.last().map_or(file.durable_len, |(_, len)| *len),
            CrashStyle::KeepNone => file.durable_len,
            CrashStyle::Prefix => {
                let last = file.lens.iter().rev().find(|(id, _)| *id <= self.edge);
                last.map_or(file.durable_len, |(_, len)| *len)
            }
            CrashStyle::Random => {
                let pick = self.rng.below(file.lens.len() as u64 + 1) as usize;
                file.lens.get(pick).map_or(file.durable_len, |(_, len)| *len)
            }
        }
    }
}
