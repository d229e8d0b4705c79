//! What leaves are when they are compressed: how large before, by which method, and back again with every length checked.
//!
//! A compressed leaf is packed as any, only larger, since a method needs something to work on; what is behind its header
//! is compressed as one piece. A leaf that would save no grid block by it is stored as it is. Inner blocks, and values in
//! extents of their own, are never compressed: inner blocks are pointers, which are random, and stay in the cache.

#![warn(clippy::indexing_slicing)]

use super::block::{TARGET_BYTES, VALUE_INLINE_MAX};
use super::ptr::Flaw;
use crate::record::Compression;

/// The size that leaves are packed to, before they are compressed, in bytes: shorter ones fill few blocks of the grid, and
/// save little; of longer ones a changed row costs more.
const LEAF_BYTES: usize = if cfg!(test) { 12 << 10 } else { 32 << 10 };

/// The longest value that stands in such a leaf: of longer ones an extent of their own costs little more.
const LEAF_VALUE_INLINE_MAX: usize = LEAF_BYTES / 8;

/// Zstandard's level: higher ones take twice the time for a twentieth of the bytes.
#[cfg(feature = "zstd")]
const ZSTD_LEVEL: i32 = 3;

/// The numbers of methods in a block's header; 0 is none.
pub(super) const CODEC_LZ4: u8 = 1;
pub(super) const CODEC_ZSTD: u8 = 2;

/// The size that leaves are packed to.
pub(super) fn leaf_bytes(compression: Compression) -> usize {
    match compression {
        Compression::None => TARGET_BYTES,
        Compression::Lz4 | Compression::Zstd => LEAF_BYTES,
    }
}

/// The longest value that stands in its leaf.
pub(super) fn inline_max(compression: Compression) -> usize {
    match compression {
        Compression::None => VALUE_INLINE_MAX,
        Compression::Lz4 | Compression::Zstd => LEAF_VALUE_INLINE_MAX,
    }
}

/// The bytes, smaller, and by which method; `None` if they are to stay as they are.
pub(super) fn compress(compression: Compression, plain: &[u8]) -> Option<(u8, Vec<u8>)> {
    match compression {
        Compression::None => None,
        Compression::Lz4 => Some((CODEC_LZ4, lz4_flex::block::compress(plain))),
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::bulk::compress(plain, ZSTD_LEVEL).ok().map(|packed| (CODEC_ZSTD, packed)),
        // Such a keyspace is neither made nor opened.
        #[cfg(not(feature = "zstd"))]
        Compression::Zstd => None,
    }
}

/// Fills `plain` with what `packed` was made of: exactly as many bytes.
///
/// # Errors
/// An unknown method, one that is not in this build, bytes that are no such stream, another length.
pub(super) fn decompress(codec: u8, packed: &[u8], plain: &mut [u8]) -> Result<(), Flaw> {
    let wanted = plain.len();
    let found = match codec {
        CODEC_LZ4 => lz4_flex::block::decompress_into(packed, plain).map_err(|error| error.to_string()),
        #[cfg(feature = "zstd")]
        CODEC_ZSTD => zstd::bulk::decompress_to_buffer(packed, plain).map_err(|error| error.to_string()),
        #[cfg(not(feature = "zstd"))]
        CODEC_ZSTD => Err("it takes the feature `zstd`, which this build is without".to_owned()),
        other => Err(format!("method {other} is not known")),
    };
    match found {
        Ok(found) if found == wanted => Ok(()),
        Ok(found) => Err(format!("a block is {found} bytes when decompressed, and should be {wanted}")),
        Err(what) => Err(format!("a block that does not decompress: {what}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_compressed_comes_back_and_nothing_else_does() {
        let plain: Vec<u8> = (0..20_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let methods = [
            Compression::Lz4,
            #[cfg(feature = "zstd")]
            Compression::Zstd,
        ];
        for compression in methods {
            let (codec, packed) = compress(compression, &plain).unwrap();
            assert!(packed.len() < plain.len() / 2);
            let mut back = vec![0; plain.len()];
            decompress(codec, &packed, &mut back).unwrap();
            assert_eq!(back, plain);
            for len in [plain.len() - 1, plain.len() + 1, 0, 1] {
                assert!(decompress(codec, &packed, &mut vec![0; len]).is_err(), "{len} bytes wanted");
            }
            for cut in [0, 1, packed.len() / 2, packed.len() - 1] {
                assert!(decompress(codec, packed.get(..cut).unwrap(), &mut back).is_err(), "cut to {cut}");
            }
        }
        assert!(decompress(0, &[], &mut []).is_err());
        assert!(decompress(9, &[1, 2], &mut [0]).is_err());
        assert!(compress(Compression::None, &plain).is_none());
    }
}
