//! The bytes of the file `image`, beside a data file that is being copied: of which image, and how far it came.

#![warn(clippy::indexing_slicing)]

use crate::tree::Superblock;

const MAGIC: [u8; 8] = *b"seawallI";
const FORMAT_VERSION: u32 = 1;
const SUPERBLOCK_AT: usize = 64;

/// The file's length.
pub(super) const BYTES: usize = SUPERBLOCK_AT + Superblock::BYTES;

/// How far a copy came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything of the image below this offset of the data file is there, and on the device.
    pub(super) done: u64,
    /// The image's superblock.
    pub(super) superblock: Vec<u8>,
}

impl Progress {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.done.to_le_bytes());
        out.resize(SUPERBLOCK_AT, 0);
        out.extend_from_slice(&self.superblock);
        out.resize(BYTES, 0);
        let sum = checksum(&out).to_le_bytes();
        out.iter_mut().skip(12).zip(sum).for_each(|(to, from)| *to = from);
        out
    }

    //= docs/format/data.md#an-image-in-the-making
    /// None for anything that is not whole, or of another version: then the copy begins again.
    pub(super) fn decode(bytes: &[u8]) -> Option<Progress> {
        let sum = u32::from_le_bytes(*bytes.get(12..)?.first_chunk()?);
        let version = u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        let is_whole = bytes.len() == BYTES && bytes.get(..8)? == MAGIC && sum == checksum(bytes);
        let is_blank = bytes.get(24..SUPERBLOCK_AT)?.iter().all(|byte| *byte == 0);
        (is_whole && version == FORMAT_VERSION && is_blank).then_some(())?;
        Some(Progress {
            done: u64::from_le_bytes(*bytes.get(16..)?.first_chunk()?),
            superblock: bytes.get(SUPERBLOCK_AT..)?.to_vec(),
        })
    }
}

/// Of all but the place where it stands.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..12).unwrap_or_default());
    hasher.update(bytes.get(16..).unwrap_or_default());
    hasher.finalize()
}

/// The fuzz target's body: what is let through comes back byte by byte.
pub(crate) fn fuzz(data: &[u8]) {
    // A short input stands for one that ends with zeros.
    let mut sealed = data.to_vec();
    sealed.resize(BYTES, 0);
    let sum = checksum(&sealed).to_le_bytes();
    sealed.iter_mut().skip(12).zip(sum).for_each(|(to, from)| *to = from);
    for bytes in [data, &sealed] {
        if let Some(progress) = Progress::decode(bytes) {
            assert!(progress.encode() == bytes, "a progress file that comes back");
            let _ = super::ImageInfo::from_superblock(&progress.superblock);
        }
    }
}
