//! Looking at a disk, and changing it, from outside: no calls are counted, no faults met, no power needed, and
//! everything is durable at once.

use super::SimDisk;
use super::content::{Content, Pages};
use super::fault::{Damage, path_parts};
use super::names::{Inode, ROOT};
use super::state::{File, State};
use crate::disk::BLOCK_BYTES;
use std::io;
use std::path::Path;

impl SimDisk {
    /// The paths of all files, sorted, without a leading slash.
    pub fn paths(&self) -> Vec<String> {
        let state = self.shared.state.lock();
        let mut paths: Vec<String> = state.files.keys().filter_map(|inode| state.path_of(*inode)).collect();
        paths.sort();
        paths
    }

    /// What reads of a file show; `None` if there is no such file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let mut state = self.shared.state.lock();
        let inode = state.resolve_file(path.as_ref()).ok()?;
        let content = state.content(inode).ok()?;
        let mut bytes = vec![0; content.visible_len as usize];
        content.visible.read(&mut bytes, 0);
        Some(bytes)
    }

    /// What every crash would keep of a file's bytes, whether or not its name would survive.
    pub fn read_durable(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let mut state = self.shared.state.lock();
        let inode = state.resolve_file(path.as_ref()).ok()?;
        let content = state.content(inode).ok()?;
        let mut bytes = vec![0; content.durable_len as usize];
        content.durable.read(&mut bytes, 0);
        Some(bytes)
    }

    /// Puts a file there, with the directories above it. What stood under the name is replaced, in open handles too.
    ///
    /// # Errors
    /// `IsADirectory`, or `NotADirectory` if a file is in the way.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        let mut parts = path_parts(path.as_ref());
        let name = parts.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut dir = ROOT;
        for part in parts {
            dir = state.settle_name(dir, part, true)?;
        }
        let inode = state.settle_name(dir, name, false)?;
        let mut pages = Pages::default();
        pages.write(bytes, 0);
        state.edit(inode, |content| {
            *content = Content::settled(pages, bytes.len() as u64);
            content.allocated.insert(super::content::pages(&(0..bytes.len() as u64)));
        })
    }

    /// Removes a file's name, for good.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove_durably(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        let inode = state.resolve_file(path.as_ref())?;
        let place = state.place(path.as_ref())?;
        state.space.visible.remove(&place);
        if let Some(old) = state.space.durable.place_of(inode).cloned() {
            state.space.durable.remove(&old);
        }
        state.space.pending.retain(|op| op.inode != inode);
        state.collect(inode);
        Ok(())
    }

    /// Inverts the bits of `mask` in the byte at `offset`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` beyond the file's end.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64, mask: u8) -> io::Result<()> {
        self.damage(path, &Damage::Flip { offset, mask })
    }

    /// Cuts, or extends with zeros, a file.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn truncate(&self, path: impl AsRef<Path>, len: u64) -> io::Result<()> {
        self.damage(path, &Damage::Truncate(len))
    }

    /// Damages a file at rest.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` beyond a file's end.
    pub fn damage(&self, path: impl AsRef<Path>, damage: &Damage) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        let inode = state.resolve_file(path.as_ref())?;
        let block_bytes = BLOCK_BYTES as u64;
        match damage {
            Damage::Flip { offset, mask } => {
                let byte = state.peek(inode, *offset, 1)?.first().copied().unwrap_or_default();
                state.edit(inode, |content| content.patch(&[byte ^ mask], *offset))?;
            }
            Damage::ZeroBlock(block) => {
                let offset = block.saturating_mul(block_bytes);
                let zeros = vec![0; state.peek(inode, offset, block_bytes)?.len()];
                state.edit(inode, |content| content.patch(&zeros, offset))?;
            }
            Damage::SwapBlocks(a, b) => state.swap((inode, *a), (inode, *b))?,
            Damage::SwapWith { block, other, other_block } => {
                let other = state.resolve_file(other)?;
                state.swap((inode, *block), (other, *other_block))?;
            }
            Damage::Overwrite { offset, bytes } => {
                state.edit(inode, |content| content.patch(bytes, *offset))?;
            }
            Damage::Truncate(len) => state.edit(inode, |content| content.patch_len(*len))?,
            Damage::Unreadable(range) => state.content(inode)?.make_unreadable(range.clone()),
        }
        state.count(damage.name());
        Ok(())
    }
}

impl State {
    /// The inode of a name, which is created if need be; durable in any case.
    fn settle_name(&mut self, dir: Inode, name: String, is_dir: bool) -> io::Result<Inode> {
        let place = (dir, name);
        let inode = match self.space.visible.get(&place) {
            Some(inode) if self.dirs.contains(&inode) == is_dir => inode,
            Some(_) if is_dir => return Err(io::ErrorKind::NotADirectory.into()),
            Some(_) => return Err(io::ErrorKind::IsADirectory.into()),
            None => {
                let inode = self.new_inode();
                if is_dir {
                    self.dirs.insert(inode);
                } else {
                    self.files.insert(inode, File::default());
                }
                inode
            }
        };
        self.space.visible.put(place.clone(), inode);
        self.space.durable.put(place, inode);
        Ok(inode)
    }

    /// Up to `len` bytes at `offset`, at least one.
    fn peek(&mut self, inode: Inode, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let content = self.content(inode)?;
        let len = content.visible_len.saturating_sub(offset).min(len);
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = vec![0; len as usize];
        content.visible.read(&mut bytes, offset);
        Ok(bytes)
    }

    fn swap(&mut self, a: (Inode, u64), b: (Inode, u64)) -> io::Result<()> {
        let block = BLOCK_BYTES as u64;
        let (a_at, b_at) = (a.1.saturating_mul(block), b.1.saturating_mul(block));
        let (mut of_a, mut of_b) = (self.peek(a.0, a_at, block)?, self.peek(b.0, b_at, block)?);
        let len = of_a.len().min(of_b.len());
        of_a.truncate(len);
        of_b.truncate(len);
        self.edit(a.0, |content| content.patch(&of_b, a_at))?;
        self.edit(b.0, |content| content.patch(&of_a, b_at))
    }
}
