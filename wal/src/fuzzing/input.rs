//! Choices out of bytes, and bytes out of bytes.

use crate::runtime::Rng;

/// Reads choices from a fuzzer's bytes; past their end everything is zero.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Choices from these bytes.
    pub fn new(data: &'a [u8]) -> Input<'a> {
        Input { rest: data }
    }

    /// True when no byte is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next bytes, at most `bytes`.
    pub fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(bytes.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next eight bytes, little endian.
    pub fn u64(&mut self) -> u64 {
        self.int(8)
    }

    /// The next four bytes, little endian.
    pub fn u32(&mut self) -> u32 {
        self.int(4) as u32
    }

    /// The next two bytes, little endian.
    pub fn u16(&mut self) -> u16 {
        self.int(2) as u16
    }

    fn int(&mut self, bytes: usize) -> u64 {
        self.take(bytes).iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// A number below `end` from one byte; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.u8()) % end.max(1)
    }

    /// A field's value: one of those at which code tends to go wrong, or any.
    pub fn value(&mut self) -> u64 {
        const EDGES: [u64; 24] = [
            0,
            1,
            2,
            8,
            24,
            64,
            0xff,
            0x7fff,
            0xffff,
            4095,
            4096,
            8192,
            0x1_0000,
            (4 << 20) - 64,
            4 << 20,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 32,
            1 << 47,
            1 << 63,
            u64::MAX - 0xffff,
            u64::MAX - 1,
            u64::MAX,
        ];
        let choice = usize::from(self.u8());
        EDGES.get(choice).copied().unwrap_or_else(|| self.u64())
    }
}

/// Another input, near `base`: what a fuzzer without feedback does. `other` gives bytes to splice in.
pub fn mutate(rng: &mut Rng, base: &[u8], other: &[u8], bytes_max: usize) -> Vec<u8> {
    let mut out = base.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(out.len() as u64 + 1) as usize;
        let span = 1 + rng.below(16) as usize;
        let end = (at + span).min(out.len());
        match rng.below(8) {
            0 | 1 if at < out.len() => out[at] ^= 1 << rng.below(8),
            2 if at < out.len() => out[at] = rng.next_u64() as u8,
            3 => {
                let edges = [0u64, 1, 0x7f, 0xff, 0xffff, 0xffff_ffff, u64::MAX, 4096];
                let value = edges[rng.below(edges.len() as u64) as usize].to_le_bytes();
                let width = (1usize << rng.below(4)).min(out.len() - at);
                out[at..at + width].copy_from_slice(&value[..width]);
            }
            4 => drop(out.drain(at..end)),
            5 => {
                let mut fresh = vec![0; span];
                rng.fill(&mut fresh);
                out.splice(at..at, fresh);
            }
            6 => {
                let copy = out[at..end].to_vec();
                let target = rng.below(out.len() as u64 + 1) as usize;
                out.splice(target..target, copy);
            }
            _ => {
                let from = rng.below(other.len() as u64 + 1) as usize;
                let to = (from + 4 * span).min(other.len());
                out.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    out.truncate(bytes_max);
    out
}
