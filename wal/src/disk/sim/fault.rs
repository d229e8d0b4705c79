//! What can go wrong with a disk on demand: faults aimed at a call, faults at random, damage at rest.

use crate::runtime::Rng;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A kind of call to a [`Disk`](crate::Disk) or [`DiskFile`](crate::DiskFile).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named after the method that it stands for")]
pub enum Op {
    /// Every call.
    Any,
    Open,
    Rename,
    Remove,
    List,
    CreateDir,
    SyncDir,
    Exists,
    FreeBytes,
    /// `read_at` and `read_device_at`.
    Read,
    Write,
    WriteDurable,
    Sync,
    Allocate,
    Punch,
    SetLen,
    Len,
    Lock,
}

impl Op {
    /// The name of the call, for traces and errors.
    pub fn name(self) -> &'static str {
        match self {
            Op::Any => "any",
            Op::Open => "open",
            Op::Rename => "rename",
            Op::Remove => "remove",
            Op::List => "list",
            Op::CreateDir => "create_dir",
            Op::SyncDir => "sync_dir",
            Op::Exists => "exists",
            Op::FreeBytes => "free_bytes",
            Op::Read => "read",
            Op::Write => "write",
            Op::WriteDurable => "write_durable",
            Op::Sync => "sync",
            Op::Allocate => "allocate",
            Op::Punch => "punch",
            Op::SetLen => "set_len",
            Op::Len => "len",
            Op::Lock => "lock",
        }
    }
}

/// A part of the disk: files by the end of their path, and a range of bytes in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    suffix: String,
    bytes: Range<u64>,
}

impl Zone {
    /// Everything.
    pub fn any() -> Zone {
        Zone::suffix("")
    }

    /// Files whose path ends in `suffix`: `Zone::suffix("anchor")`.
    pub fn suffix(suffix: &str) -> Zone {
        Zone { suffix: suffix.to_owned(), bytes: 0..u64::MAX }
    }

    /// Only calls that touch these bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: Range<u64>) -> Zone {
        self.bytes = bytes;
        self
    }

    fn holds(&self, call: &Call<'_>) -> bool {
        let end = call.offset.saturating_add(call.len.max(1));
        call.path.ends_with(&self.suffix) && call.offset < self.bytes.end && self.bytes.start < end
    }
}

/// One call, as faults and the trace see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) op: Op,
    pub(super) path: &'a str,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    PowerCut,
    Eio,
    Full,
    Short,
    DropSync,
    Lost,
    Misdirected,
    Slow,
}

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Verdict::Go => "",
            Verdict::PowerCut => "power cut",
            Verdict::Eio => "eio",
            Verdict::Full => "full",
            Verdict::Short => "short",
            Verdict::DropSync => "dropped sync",
            Verdict::Lost => "lost write",
            Verdict::Misdirected => "misdirected write",
            Verdict::Slow => "slow",
        }
    }

    /// True if a call of this kind can meet this fate at all.
    fn suits(self, op: Op) -> bool {
        match self {
            Verdict::Go | Verdict::PowerCut | Verdict::Eio | Verdict::Slow => true,
            Verdict::Full => {
                matches!(op, Op::Open | Op::Rename | Op::CreateDir | Op::SetLen)
                    || matches!(op, Op::Write | Op::WriteDurable | Op::Allocate | Op::Sync)
            }
            Verdict::Short => matches!(op, Op::Read | Op::Write | Op::WriteDurable),
            Verdict::DropSync => op == Op::Sync,
            Verdict::Lost | Verdict::Misdirected => op == Op::WriteDurable,
        }
    }
}

/// Which call fails, how, and whether once or for ever. Given to [`SimDisk::fail`](crate::SimDisk::fail).
///
/// ```
/// use seawall_wal::disk::sim::{Fault, Op, Zone};
/// let third_sync_of_the_log = Fault::eio(Op::Sync).path_contains("/log/").at_call(3);
/// let full_from_now_on = Fault::full(Op::Any).forever();
/// let bad_anchor = Fault::eio(Op::Read).zone(Zone::suffix("anchor").bytes(0..4096)).forever();
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    verdict: Verdict,
    op: Op,
    path_part: String,
    zone: Zone,
    at_call: u64,
    is_for_ever: bool,
    seen: u64,
}

impl Fault {
    fn new(verdict: Verdict, op: Op) -> Fault {
        let (path_part, zone) = (String::new(), Zone::any());
        Fault { verdict, op, path_part, zone, at_call: 1, is_for_ever: false, seen: 0 }
    }

    /// The power fails during a call: a write may have been applied in part, and every call from then on fails.
    pub fn power_cut() -> Fault {
        Fault::new(Verdict::PowerCut, Op::Any)
    }

    /// `EIO`. A write, and an operation on names, may or may not have taken effect; of a sync's dirty pages, each may
    /// have been written, dropped, or be dirty still.
    pub fn eio(op: Op) -> Fault {
        Fault::new(Verdict::Eio, op)
    }

    /// `ENOSPC`, after a part of a write, for calls that can need space.
    pub fn full(op: Op) -> Fault {
        Fault::new(Verdict::Full, op)
    }

    /// A write stops in the middle with an error, a read with fewer bytes than there are.
    pub fn short(op: Op) -> Fault {
        Fault::new(Verdict::Short, op)
    }

    /// A sync that fails once, drops all dirty pages of its file, and leaves reads to go on showing them: later syncs
    /// succeed and do not make them durable (PostgreSQL 2018).
    pub fn dropped_sync() -> Fault {
        Fault::new(Verdict::DropSync, Op::Sync)
    }

    /// A durable write that is acknowledged and never reaches the device.
    pub fn lost_write() -> Fault {
        Fault::new(Verdict::Lost, Op::WriteDurable)
    }

    /// A durable write that reaches the device at another 4 KiB block, of this file or of another.
    pub fn misdirected_write() -> Fault {
        Fault::new(Verdict::Misdirected, Op::WriteDurable)
    }

    /// A call that takes a hundred times as long; to be seen with a simulated runtime only.
    pub fn slow(op: Op) -> Fault {
        Fault::new(Verdict::Slow, op)
    }

    /// Only the `n`-th of the calls that match, from now on; 1 (as at first) is the next.
    #[must_use]
    pub fn at_call(mut self, n: u64) -> Fault {
        self.at_call = n.max(1);
        self
    }

    /// Only calls on paths that contain `part`.
    #[must_use]
    pub fn path_contains(mut self, part: &str) -> Fault {
        self.path_part = part.to_owned();
        self
    }

    /// Only calls in this zone.
    #[must_use]
    pub fn zone(mut self, zone: Zone) -> Fault {
        self.zone = zone;
        self
    }

    /// One call, as is the rule.
    #[must_use]
    pub fn once(mut self) -> Fault {
        self.is_for_ever = false;
        self
    }

    /// That call and every matching one after it.
    #[must_use]
    pub fn forever(mut self) -> Fault {
        self.is_for_ever = true;
        self
    }

    /// Looks at a call: whether the fault strikes, and whether it is then used up.
    fn meet(&mut self, call: &Call<'_>) -> (bool, bool) {
        let matches = (self.op == Op::Any || self.op == call.op)
            && self.verdict.suits(call.op)
            && call.path.contains(&self.path_part)
            && self.zone.holds(call);
        if !matches {
            return (false, false);
        }
        self.seen += 1;
        let strikes = self.seen == self.at_call || (self.is_for_ever && self.seen > self.at_call);
        (strikes, strikes && !self.is_for_ever)
    }
}

/// How often faults strike by themselves, each in calls per million that could suffer it. All zero at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultRates {
    /// The power fails.
    pub power_cut: u32,
    /// `EIO` from a read.
    pub read_error: u32,
    /// `EIO` from a write, durable or not.
    pub write_error: u32,
    /// `EIO` from a sync of a file or directory.
    pub sync_error: u32,
    /// `EIO` from any other call.
    pub other_error: u32,
    /// A failed sync that drops its pages.
    pub dropped_sync: u32,
    /// `ENOSPC`.
    pub full: u32,
    /// A read or write cut short.
    pub short: u32,
    /// A durable write that never arrives.
    pub lost_write: u32,
    /// A durable write that arrives elsewhere.
    pub misdirected_write: u32,
    /// A hundred times the usual time.
    pub slow: u32,
}

impl FaultRates {
    /// Faults that an engine must outlive: errors of every kind and slowness, but no damage behind its back. How many
    /// of each, none often, follows from the seed.
    pub fn errors(seed: u64) -> FaultRates {
        let mut rng = Rng::new(seed);
        let mut rate = |max: u64| if rng.chance(1, 2) { rng.below(max) as u32 } else { 0 };
        FaultRates {
            power_cut: rate(4_000),
            read_error: rate(2_000),
            write_error: rate(4_000),
            sync_error: rate(4_000),
            other_error: rate(2_000),
            dropped_sync: rate(4_000),
            full: rate(4_000),
            short: rate(2_000),
            slow: rate(50_000),
            ..FaultRates::default()
        }
    }

    fn of(&self, verdict: Verdict, op: Op) -> u32 {
        match verdict {
            Verdict::Go => 0,
            Verdict::PowerCut => self.power_cut,
            Verdict::Eio => match op {
                Op::Read => self.read_error,
                Op::Write | Op::WriteDurable | Op::Allocate => self.write_error,
                Op::Sync | Op::SyncDir => self.sync_error,
                _ => self.other_error,
            },
            Verdict::Full => self.full,
            Verdict::Short => self.short,
            Verdict::DropSync => self.dropped_sync,
            Verdict::Lost => self.lost_write,
            Verdict::Misdirected => self.misdirected_write,
            Verdict::Slow => self.slow,
        }
    }
}

/// All faults in store for a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) aimed: Vec<Fault>,
    pub(super) rates: FaultRates,
}

impl Faults {
    /// Decides a call's fate. An aimed fault comes before a random one; each aimed fault counts every call it matches.
    pub(super) fn decide(&mut self, call: &Call<'_>, rng: &mut Rng) -> Verdict {
        let mut verdict = Verdict::Go;
        self.aimed.retain_mut(|fault| {
            let (strikes, is_used_up) = fault.meet(call);
            if strikes && verdict == Verdict::Go {
                verdict = fault.verdict;
            }
            !is_used_up
        });
        if verdict != Verdict::Go || self.rates == FaultRates::default() {
            return verdict;
        }
        const RANDOM: [Verdict; 8] = [
            Verdict::PowerCut,
            Verdict::Eio,
            Verdict::Full,
            Verdict::Short,
            Verdict::DropSync,
            Verdict::Lost,
            Verdict::Misdirected,
            Verdict::Slow,
        ];
        let strikes = |candidate: &&Verdict| {
            let rate = self.rates.of(**candidate, call.op);
            candidate.suits(call.op) && rate > 0 && rng.chance(u64::from(rate), 1_000_000)
        };
        RANDOM.iter().find(strikes).copied().unwrap_or(Verdict::Go)
    }
}

/// What [`SimDisk::damage`](crate::SimDisk::damage) does to a file at rest: to what reads show, and to what a crash
/// keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// Inverts the bits of `mask` in the byte at `offset`.
    Flip {
        /// Byte in the file.
        offset: u64,
        /// Which of its bits.
        mask: u8,
    },
    /// Zeroes the 4 KiB block with this number.
    ZeroBlock(u64),
    /// Exchanges two 4 KiB blocks of the file.
    SwapBlocks(u64, u64),
    /// Exchanges a 4 KiB block with one of another file.
    SwapWith {
        /// The block's number.
        block: u64,
        /// The other file.
        other: PathBuf,
        /// The number of the block there.
        other_block: u64,
    },
    /// Replaces bytes.
    Overwrite {
        /// Byte in the file.
        offset: u64,
        /// What stands there afterwards.
        bytes: Vec<u8>,
    },
    /// Cuts (or extends) the file to this many bytes.
    Truncate(u64),
    /// Makes reads of these bytes fail with `EIO` until they are written again.
    Unreadable(Range<u64>),
}

impl Damage {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Damage::Flip { .. } => "bit flip",
            Damage::ZeroBlock(_) => "zeroed block",
            Damage::SwapBlocks(..) | Damage::SwapWith { .. } => "swapped blocks",
            Damage::Overwrite { .. } => "overwritten",
            Damage::Truncate(_) => "truncated",
            Damage::Unreadable(_) => "made unreadable",
        }
    }
}

/// A path as its parts: `/a/./b` and `a/b` are one.
pub(super) fn path_parts(path: &Path) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts
}
