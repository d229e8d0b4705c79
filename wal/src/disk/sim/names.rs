//! The names in directories: what is visible, what is durable, and the operations between the two.
//!
//! A file has one name (there are no hard links), so a rename is an operation on the file: after it, whatever was
//! lost before, the file stands under the new name and no other. Two operations are *related* if they share a file or
//! a name; an operation never persists without the earlier ones that it is related to. So a rename leaves the old
//! name or the new one, never both and never neither, while unrelated operations may overtake each other
//! (LevelDB #195: unlink overtakes rename).

use std::collections::BTreeMap;

/// A file or directory, whatever its name.
pub(super) type Inode = u64;
/// A name in a directory.
pub(super) type Place = (Inode, String);

/// The directory that all paths start in.
pub(super) const ROOT: Inode = 0;

/// When names become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameHabit {
    /// With `sync_dir` of their directory, and not before; unrelated operations may be lost one without another. What
    /// POSIX allows.
    Strict,
    /// In the order in which they were made; with `sync_dir`, or with `sync_data` of the file concerned. What ext4
    /// does.
    Ext4,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    entries: BTreeMap<Place, Inode>,
    place_of: BTreeMap<Inode, Place>,
}

impl Names {
    pub(super) fn get(&self, place: &Place) -> Option<Inode> {
        self.entries.get(place).copied()
    }

    pub(super) fn place_of(&self, inode: Inode) -> Option<&Place> {
        self.place_of.get(&inode)
    }

    /// Gives the inode this name, and takes from it the one it had. Returns whose name it was.
    pub(super) fn put(&mut self, place: Place, inode: Inode) -> Option<Inode> {
        if let Some(old) = self.place_of.insert(inode, place.clone()) {
            self.entries.remove(&old);
        }
        let replaced = self.entries.insert(place, inode).filter(|replaced| *replaced != inode);
        if let Some(replaced) = replaced {
            self.place_of.remove(&replaced);
        }
        replaced
    }

    pub(super) fn remove(&mut self, place: &Place) -> Option<Inode> {
        let inode = self.entries.remove(place)?;
        self.place_of.remove(&inode);
        Some(inode)
    }

    pub(super) fn list(&self, dir: Inode) -> impl Iterator<Item = (&str, Inode)> {
        let own =
            self.entries.range((dir, String::new())..).take_while(move |((parent, _), _)| *parent == dir);
        own.map(|((_, name), inode)| (name.as_str(), *inode))
    }
}

/// One operation on names.
#[derive(Clone, Debug)]
pub(super) struct NameOp {
    /// Its place in the order of all changes to the disk.
    pub(super) id: u64,
    pub(super) inode: Inode,
    /// The name it takes away.
    cut: Option<Place>,
    /// The name it gives.
    put: Option<Place>,
}

impl NameOp {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.cut.iter().chain(&self.put)
    }

    fn is_related(&self, other: &NameOp) -> bool {
        self.inode == other.inode || self.places().any(|place| other.places().any(|theirs| theirs == place))
    }

    fn apply(&self, names: &mut Names) {
        match (&self.put, &self.cut) {
            (Some(put), _) => {
                names.put(put.clone(), self.inode);
            }
            (None, Some(cut)) if names.get(cut) == Some(self.inode) => {
                names.remove(cut);
            }
            _ => {}
        }
    }
}

/// All names of a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    pub(super) visible: Names,
    pub(super) durable: Names,
    /// In the order of their ids.
    pub(super) pending: Vec<NameOp>,
}

impl Namespace {
    pub(super) fn link(&mut self, id: u64, place: Place, inode: Inode) {
        self.visible.put(place.clone(), inode);
        self.pending.push(NameOp { id, inode, cut: None, put: Some(place) });
    }

    /// Returns whose name the target was.
    pub(super) fn rename(&mut self, id: u64, source: Place, target: Place, inode: Inode) -> Option<Inode> {
        let replaced = self.visible.put(target.clone(), inode);
        self.pending.push(NameOp { id, inode, cut: Some(source), put: Some(target) });
        replaced
    }

    pub(super) fn unlink(&mut self, id: u64, place: Place) -> Option<Inode> {
        let inode = self.visible.remove(&place)?;
        self.pending.push(NameOp { id, inode, cut: Some(place), put: None });
        Some(inode)
    }

    /// Completes `sync_dir`.
    pub(super) fn sync_dir(&mut self, dir: Inode, upto: u64, habit: NameHabit) {
        self.settle(upto, habit, |op| op.places().any(|(parent, _)| *parent == dir));
    }

    /// What a file's own sync does for its name.
    pub(super) fn sync_file(&mut self, inode: Inode, upto: u64, habit: NameHabit) {
        if habit == NameHabit::Ext4 {
            self.settle(upto, habit, |op| op.inode == inode);
        }
    }

    fn settle(&mut self, upto: u64, habit: NameHabit, is_meant: impl Fn(&NameOp) -> bool) {
        let mut chosen: Vec<bool> = self.pending.iter().map(|op| op.id <= upto && is_meant(op)).collect();
        if habit == NameHabit::Ext4 {
            let end = chosen.iter().rposition(|meant| *meant).map_or(0, |last| last + 1);
            chosen[..end].fill(true);
        }
        self.close(&mut chosen);
        self.persist(&chosen);
    }

    /// Adds to the chosen operations those that they cannot persist without.
    pub(super) fn close(&self, chosen: &mut [bool]) {
        for later in (0..chosen.len()).rev() {
            if !chosen[later] {
                continue;
            }
            for (is_chosen, earlier) in chosen[..later].iter_mut().zip(&self.pending) {
                *is_chosen |= earlier.is_related(&self.pending[later]);
            }
        }
    }

    /// Makes the chosen operations durable, in order.
    pub(super) fn persist(&mut self, chosen: &[bool]) {
        let mut rest = Vec::new();
        for (op, is_chosen) in std::mem::take(&mut self.pending).into_iter().zip(chosen) {
            if *is_chosen {
                op.apply(&mut self.durable);
            } else {
                rest.push(op);
            }
        }
        self.pending = rest;
    }

    /// True if any name, past or present, may still lead to the inode.
    pub(super) fn is_named(&self, inode: Inode) -> bool {
        self.visible.place_of(inode).is_some()
            || self.durable.place_of(inode).is_some()
            || self.pending.iter().any(|op| op.inode == inode)
    }

    /// What a crash leaves, once the survivors are chosen: only what is durable.
    pub(super) fn after_crash(&self, chosen: &[bool]) -> Names {
        let mut survivor = self.clone();
        survivor.persist(chosen);
        survivor.durable
    }
}
