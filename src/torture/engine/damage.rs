//! Damage at rest: one file, one fault, and whether anything is shown that is not what was written.

use super::compare::contents;
use super::{DIR, Torture};
use seawall_engine::Error;
use seawall_wal::disk::sim::Damage;
use seawall_wal::runtime::Rng;

impl Torture {
    /// Damages one file of a store that was closed cleanly. True if the seed ends here.
    pub(super) fn damage(&mut self) -> Result<bool, String> {
        self.calm();
        let db = self.open()?;
        // Opening may have planned another cut.
        self.calm();
        let expected = self.history().now();
        if let Err(error) = db.close() {
            return Err(format!("closing: {error}"));
        }
        let paths: Vec<String> =
            self.disk.paths().into_iter().filter(|path| path.contains("store/")).collect();
        let path = &paths[self.rng.below(paths.len() as u64) as usize];
        let bytes = self.disk.read_file(path).map_or(0, |bytes| bytes.len() as u64);
        let blocks = (bytes / 4096).max(1);
        let aimed = if self.rng.chance(1, 2) { self.compressed_leaf() } else { None };
        let (path, aimed) = match &aimed {
            Some(damage) => (&format!("{DIR}/data"), Some(damage.clone())),
            None => (path, None),
        };
        let is_aimed = aimed.is_some();
        let damage = match self.rng.below(7) {
            _ if is_aimed => aimed,
            0 | 1 => Some(Damage::Flip { offset: self.rng.below(bytes), mask: 1 << self.rng.below(8) }),
            2 => Some(Damage::ZeroBlock(self.rng.below(blocks))),
            3 => Some(Damage::SwapBlocks(self.rng.below(blocks), self.rng.below(blocks))),
            4 => Some(Damage::Truncate(self.rng.below(bytes))),
            5 => Some(Damage::Unreadable(0..bytes.min(8192))),
            _ => None,
        };
        match &damage {
            Some(damage) => self.disk.damage(path, damage).map_err(|error| error.to_string())?,
            None => self.disk.remove_durably(path).map_err(|error| error.to_string())?,
        }
        self.say(|| format!("{damage:?} of {path}"));
        self.report.hit("engine: damaged at rest");
        if is_aimed {
            self.report.hit("engine: damaged compressed leaf");
        }
        let refused =
            if is_aimed { "engine: damaged compressed leaf refused" } else { "engine: damage refused" };
        match self.builder().create(false).open() {
            Err(Error::Corruption { .. } | Error::Io { .. } | Error::FormatVersion { .. }) => {
                self.report.hit(refused);
            }
            Err(error) => return Err(format!("{damage:?} of {path} is reported as: {error}")),
            Ok(db) => match contents(&db) {
                Err(Error::Corruption { .. } | Error::Io { .. }) => {
                    self.report.hit(refused);
                    // And verify names it.
                    let report = db.verify(|_| {});
                    if report.is_ok_and(|report| report.problems.is_empty()) {
                        return Err(format!("{damage:?} of {path}: reads fail, and verify finds nothing"));
                    }
                }
                Err(error) => return Err(format!("{damage:?} of {path} is reported as: {error}")),
                Ok(found) if expected.shows(&found) => {
                    let _ = db.verify(|_| {});
                }
                Ok(found) => {
                    let what = expected.difference(&found);
                    return Err(format!("{damage:?} of {path} changed what is read: {what}"));
                }
            },
        }
        Ok(true)
    }

    /// Damage to a leaf that is compressed, if there is one in the data file, in use or not.
    fn compressed_leaf(&mut self) -> Option<Damage> {
        let bytes = self.disk.read_file(format!("{DIR}/data"))?;
        // `docs/format/data.md`: magic, and at 32 the bytes in use, at 36 how they are compressed.
        let is_compressed = |block: &[u8]| block.starts_with(b"SwBk") && block.get(39) > Some(&0);
        let blocks = bytes.chunks(4096).enumerate().filter(|(_, block)| is_compressed(block));
        let leaves: Vec<(u64, u64)> = blocks
            .filter_map(|(at, block)| {
                let used = u32::from_le_bytes(block.get(32..36)?.try_into().ok()?);
                Some((at as u64, u64::from(used)))
            })
            .collect();
        let drawn = |rng: &mut Rng| leaves.get(rng.below(leaves.len().max(1) as u64) as usize).copied();
        let (block, used) = drawn(&mut self.rng)?;
        let within = self.rng.below(used.div_ceil(4096).max(1));
        Some(match self.rng.below(6) {
            0..4 => {
                let offset = block * 4096 + 40 + self.rng.below(used.saturating_sub(40).max(1));
                Damage::Flip { offset, mask: 1 << self.rng.below(8) }
            }
            4 => Damage::ZeroBlock(block + within),
            _ => Damage::SwapBlocks(block + within, drawn(&mut self.rng)?.0),
        })
    }
}
