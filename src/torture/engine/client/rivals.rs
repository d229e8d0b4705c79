//! Two transactions at once, and which of them may commit.

use super::{Client, Failed};
use crate::torture::engine::model::Change;
use seawall_engine::{Durability, Error};
use std::ops::Bound;

impl Client {
    /// Two that add to the same row at the same time: neither is in the other's way.
    pub(super) fn adds_side_by_side(&mut self) -> Result<(), Failed> {
        let (ks, key) = (self.keyspace()?, self.number_key());
        let (mut first, mut second) = (self.db.begin(), self.db.begin());
        for (tx, delta) in [(&mut first, 3), (&mut second, 4)] {
            tx.add_i64(&ks, &key, delta)?;
        }
        let add = |delta| vec![Change::Add(ks.name().to_owned(), key.clone(), delta)];
        let committed = first.commit();
        self.told(committed, add(3), Durability::Synced)?;
        self.runtime.yield_point();
        let committed = second.commit();
        // Another thread may have set or cleared the row; a lone client's two adds never meet anything.
        if !self.threads && matches!(committed, Err(Error::Conflict)) {
            return Err(Failed::Wrong("an add conflicts with an add".to_owned()));
        }
        self.told(committed, add(4), Durability::Synced)?;
        self.hit("adds side by side");
        Ok(())
    }

    /// One clears a range, another writes into it, begun at the same time: the second must not commit.
    pub(super) fn clear_and_write(&mut self) -> Result<(), Failed> {
        let ks = self.keyspace()?;
        let key = format!("key-{:03}", self.rng.below(60)).into_bytes();
        let (mut clears, mut writes) = (self.db.begin(), self.db.begin());
        let range = (Bound::Included(key.clone()), Bound::Excluded([&key[..], b"\x01"].concat()));
        clears.remove_range(&ks, range.clone())?;
        writes.insert(&ks, &key, b"beside a clear")?;
        let name = ks.name().to_owned();
        let (first, second, change) = if self.rng.chance(1, 2) {
            (clears, writes, Change::Clear(name, range))
        } else {
            (writes, clears, Change::Row(name, key, Some(b"beside a clear".to_vec())))
        };
        let committed = first.commit();
        self.hit("range removed");
        self.told(committed, vec![change], Durability::Synced)?;
        match second.commit() {
            Err(Error::Conflict) => {
                self.hit("conflict");
                Ok(())
            }
            Ok(_) => Err(Failed::Wrong("a clear, and a write into it, both committed".to_owned())),
            other => Ok(other.map(drop)?),
        }
    }

    /// Two that write the same row, begun at the same time: the second must not commit.
    pub(super) fn race(&mut self) -> Result<(), Failed> {
        let ks = self.keyspace()?;
        let (key, value) = self.row();
        let (mut first, mut second) = (self.db.begin(), self.db.begin());
        self.put(&mut first, &ks, &key, value.as_deref())?;
        second.insert(&ks, &key, b"never")?;
        let committed = first.commit();
        let won = committed.is_ok();
        self.told(committed, vec![Change::Row(ks.name().to_owned(), key, value)], Durability::Synced)?;
        match second.commit() {
            Err(Error::Conflict) => {
                self.hit("conflict");
                Ok(())
            }
            Ok(_) if won => Err(Failed::Wrong("both of two that wrote the same row committed".to_owned())),
            other => Ok(other.map(drop)?),
        }
    }
}
