//! What is held against what stores promise.

use super::node::{SEGMENT_BYTES, STORE, Up};
use super::{Violation, World};
use seawall_engine::Lsn;
use seawall_wal::segment::{self, Parsed};
use seawall_wal::{SimDisk, Wal};

impl World {
    /// After each step: nobody goes back in what is shown, or shows what is not on its own device; and a replica shows what a
    /// primary has shown.
    pub(super) fn watch(&mut self) -> Result<(), Violation> {
        // One that another has taken the place of shows what both have, too; and may be of the line that is the log once more.
        for node in self.nodes.values().filter(|node| !node.is_replica) {
            let Some(up) = &node.up else { continue };
            let visible = up.shipping.visible();
            if visible > up.seen {
                self.model.shows(&up.shipping.wal().timeline().history, visible);
            }
        }
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(up) = self.nodes.get_mut(&id).and_then(|node| node.up.as_mut()) else { continue };
            let (visible, seen) = (up.shipping.visible(), up.seen);
            if visible < seen {
                return Err(format!("n{id} has shown what is below {seen}, and now what is below {visible}"));
            }
            up.seen = visible;
            let (timeline, of) = (up.shipping.wal().timeline(), up.shipping.wal().tail().epoch);
            if of > timeline.promised || of > timeline.history.epoch() {
                return Err(format!("n{id} has log of epoch {of}, and has not promised it: {timeline:?}"));
            }
            if visible == seen || id == self.primary || self.has_parted(id) {
                continue;
            }
            let Some(up) = self.nodes.get(&id).and_then(|node| node.up.as_ref()) else { continue };
            self.model.check_shown(id, up, seen)?;
            self.hit("shown by a replica");
        }
        Ok(())
    }

    /// A store that was just promoted shows what a primary has shown, and no more.
    pub(super) fn check_promoted(&mut self, id: u64) -> Result<(), Violation> {
        match self.nodes.get(&id).and_then(|node| node.up.as_ref()) {
            Some(up) => self.model.check_shown(id, up, up.seen),
            None => Ok(()),
        }
    }

    /// Whether a node has log that is not that of the primary, and has yet to go back.
    pub(super) fn has_parted(&self, id: u64) -> bool {
        if self.deposed.contains_key(&id) {
            return true;
        }
        let Some(up) = self.nodes.get(&id).and_then(|node| node.up.as_ref()) else { return true };
        let (tail, own) = (up.shipping.wal().tail(), up.shipping.wal().timeline().history);
        self.model.history.fork(&own, tail.epoch, tail.place).is_some()
    }

    pub(super) fn look(&mut self, id: u64) -> Result<(), Violation> {
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let Some(rows) = node.keyspace() else { return Ok(()) };
        if self.deposed.contains_key(&id) {
            self.model.look_at_deposed(node, &rows)?;
            if !node.is_replica {
                self.hit("looked at one that another has taken the place of");
            }
            return Ok(());
        }
        if node.is_replica && self.has_parted(id) {
            return Ok(());
        }
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        self.model.look(node, &rows)?;
        if node.is_replica {
            self.hit("looked at a replica");
            self.check_files(id)?;
        }
        Ok(())
    }

    /// A replica's segments are its primary's, as far as what is durable of them.
    pub(super) fn check_files(&mut self, id: u64) -> Result<(), Violation> {
        if self.has_parted(id) {
            return Ok(());
        }
        let (Some(primary), Some(node)) = (self.nodes.get(&self.primary), self.nodes.get(&id)) else {
            return Ok(());
        };
        let (Some(of), Some(up)) = (&primary.up, &node.up) else { return Ok(()) };
        let (theirs, ours) = (of.shipping.wal(), up.shipping.wal());
        let from = segment_of(ours.first_place().max(theirs.first_place()));
        let path: Vec<(u64, usize)> = stretches(up, &node.disk, from);
        let mut compared = 0;
        for (number, bytes) in path {
            let file = format!("{STORE}/log/{}", segment::file_name(number));
            let (a, b) = (primary.disk.read_file(&file), node.disk.read_file(&file));
            let (Some(a), Some(b)) = (a, b) else {
                return Err(format!("n{id} or its primary has no segment {number}"));
            };
            let (a, b) = (a.get(..bytes), b.get(..bytes));
            if a.is_none() || a != b {
                let (a, b) = (a.unwrap_or_default().iter(), b.unwrap_or_default().iter());
                let same = a.zip(b).take_while(|(a, b)| a == b).count();
                return Err(format!(
                    "n{id}'s segment {number} is not its primary's from byte {same} of {bytes} on"
                ));
            }
            compared += 1;
        }
        self.report.add("replication: segment compared with its primary's", compared);
        Ok(())
    }

    pub(super) fn check_all_same(&mut self) -> Result<(), Violation> {
        self.model.poll()?;
        let acked = self.model.commits.iter().filter(|commit| commit.is_acked).count() as u64;
        self.report.add("replication: acknowledged", acked);
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get(&id) else { continue };
            let Some(rows) = node.keyspace() else { return Err(format!("n{id} has no keyspace")) };
            self.model.look(node, &rows)?;
            if node.is_replica {
                self.check_files(id)?;
            }
        }
        Ok(())
    }
}

/// The segments of a log that stand on the way to what is durable of it, and how many bytes of each count.
fn stretches(up: &Up, disk: &SimDisk, from: u64) -> Vec<(u64, usize)> {
    let durable = up.shipping.wal().durable_lsn();
    let mut number = segment_of(durable);
    let mut end = durable;
    let mut found = Vec::new();
    while number >= from && is_path(up.shipping.wal(), number) {
        found.push((number, (end.0.saturating_sub(number * SEGMENT_BYTES)).min(SEGMENT_BYTES) as usize));
        let header = disk.read_file(format!("{STORE}/log/{}", segment::file_name(number)));
        match header.as_deref().map(segment::Header::parse) {
            Some(Parsed::Header(segment::Header { predecessor: Some(before), .. }, _)) => {
                (number, end) = (before.number, before.end);
            }
            _ => break,
        }
    }
    found
}

fn segment_of(lsn: Lsn) -> u64 {
    lsn.0 / SEGMENT_BYTES
}

/// Whether the log reads through that segment.
fn is_path(wal: &Wal, number: u64) -> bool {
    wal.checksum_before(Lsn(number * SEGMENT_BYTES + 4096)).is_ok_and(|found| found.is_some())
}
