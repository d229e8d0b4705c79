//! A disk at rest, and what may happen to it.

use super::Input;
use crate::disk::{BLOCK_BYTES, SimDisk};
use crate::segment;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files that are longer are not lengthened further.
const FILE_BYTES_MAX: usize = 4 << 20;
const DAMAGES_MAX: usize = 16;

/// All files of a disk: path → bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl Files {
    /// What reads of a disk show.
    pub fn of(disk: &SimDisk) -> Files {
        let paths = disk.paths().into_iter();
        Files(paths.filter_map(|path| disk.read_file(&path).map(|bytes| (path, bytes))).collect())
    }

    /// A disk with these files, all of them durable.
    pub fn disk(&self, seed: u64) -> Arc<SimDisk> {
        let disk = SimDisk::new(seed);
        for (path, bytes) in &self.0 {
            // Paths of a disk's files fit each other.
            let _ = disk.write_file(path, bytes);
        }
        disk
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|bytes| bytes.len() as u64).sum()
    }

    fn path(&self, choice: usize) -> Option<String> {
        self.0.keys().nth(choice % self.0.len().max(1)).cloned()
    }

    fn blocks(&self, path: &str) -> usize {
        self.0.get(path).map_or(0, |bytes| bytes.len() / BLOCK_BYTES)
    }

    fn block(&self, path: &str, block: usize) -> Option<Vec<u8>> {
        self.0.get(path)?.get(block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES).map(<[u8]>::to_vec)
    }

    fn set(&mut self, path: &str, at: usize, new: &[u8]) {
        let place = self.0.get_mut(path).and_then(|bytes| bytes.get_mut(at..)).unwrap_or_default();
        let len = place.len().min(new.len());
        place[..len].copy_from_slice(&new[..len]);
    }
}

/// What was done to the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damaged {
    /// How many changes.
    pub count: usize,
    /// Whether checksums are to be recomputed: then content was forged, and nothing can tell.
    pub forged: bool,
    /// Whether whole files went, came, or were exchanged.
    pub files: bool,
}

impl Damaged {
    /// One thing that media do: a flipped bit, a block that was zeroed, swapped or never written, a cut file.
    pub fn is_single(&self) -> bool {
        self.count == 1 && !self.forged && !self.files
    }
}

/// Damages files as the input says; `earlier` is what they once held, for writes that were lost.
pub fn damage(files: &mut Files, earlier: &Files, input: &mut Input<'_>) -> Damaged {
    let mut done = Damaged::default();
    while !input.is_empty() && done.count < DAMAGES_MAX {
        let (before, so_far) = (files.clone(), done);
        one(files, earlier, input, &mut done);
        done = if *files == before { so_far } else { Damaged { count: done.count + 1, ..done } };
    }
    done
}

fn one(files: &mut Files, earlier: &Files, input: &mut Input<'_>, done: &mut Damaged) {
    let kind = input.below(12);
    let file = input.below(256);
    let at = input.u32() as usize;
    let extra = usize::from(input.u16());
    let Some(path) = files.path(file) else { return };
    let bytes = files.0.get(&path).map_or(0, Vec::len);
    let blocks = files.blocks(&path);
    let block = at % blocks.max(1);
    match kind {
        0 => {
            if let Some(byte) = files.0.get_mut(&path).and_then(|file| file.get_mut(at % bytes.max(1))) {
                *byte ^= 1 << (extra % 8);
            }
        }
        1 => files.set(&path, block * BLOCK_BYTES, &[0; BLOCK_BYTES]),
        2 | 3 => {
            let other = if kind == 2 { Some(path.clone()) } else { files.path(extra >> 8) };
            let Some(other) = other else { return };
            let other_block = extra % files.blocks(&other).max(1);
            let (Some(a), Some(b)) = (files.block(&path, block), files.block(&other, other_block)) else {
                return;
            };
            files.set(&path, block * BLOCK_BYTES, &b);
            files.set(&other, other_block * BLOCK_BYTES, &a);
        }
        4 => drop(files.0.get_mut(&path).map(|file| file.truncate(at % (bytes + 1)))),
        5 => {
            if let Some(old) = earlier.block(&path, block) {
                files.set(&path, block * BLOCK_BYTES, &old);
            }
        }
        6 => {
            if let Some(file) = files.0.get_mut(&path).filter(|_| bytes < FILE_BYTES_MAX) {
                file.resize(bytes + (1 + extra % 64) * 1024, 0);
            }
        }
        7 => {
            done.files = true;
            files.0.remove(&path);
        }
        8 => {
            done.files = true;
            let Some(copy) = files.0.get(&path).cloned() else { return };
            let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
            let number =
                if extra < 0x100 { extra as u64 % 16 } else { u64::MAX / 0x1_0000 - (extra as u64 >> 13) };
            let name = format!("{dir}/{}", segment::file_name(number));
            files.0.insert(if extra % 4 == 3 { files.path(extra).unwrap_or(name) } else { name }, copy);
        }
        _ => {
            done.forged = true;
            let value = input.value().to_le_bytes();
            let width = 1 << (extra >> 14);
            // Fields stand at the beginnings of blocks, and of what is in them.
            let at = if kind == 9 { at % bytes.max(1) } else { block * BLOCK_BYTES + extra % 160 };
            files.set(&path, at, &value[..width]);
        }
    }
}
