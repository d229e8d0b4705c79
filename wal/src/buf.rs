//! Page-aligned buffers for direct I/O.

use crate::disk::BLOCK_BYTES;
use std::io;
use std::ops::{Deref, DerefMut};

/// Zeroed memory whose address and length are multiples of [`BLOCK_BYTES`]. Its pages are taken from the system when
/// they are first touched, so a large buffer that is used in part costs that part only.
#[derive(Debug)]
pub struct AlignedBuf(memmap2::MmapMut);

impl AlignedBuf {
    /// A buffer of at least `bytes` zeros, rounded up to whole blocks.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub fn zeroed(bytes: usize) -> io::Result<AlignedBuf> {
        let rounded = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        memmap2::MmapMut::map_anon(rounded).map(AlignedBuf)
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
