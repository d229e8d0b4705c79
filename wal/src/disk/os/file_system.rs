//! What is known of file systems by name: facts that no call can be asked for.

/// What is known of one file system.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileSystem {
    /// For people: `"ext4"`.
    pub name: &'static str,
    /// Locks and syncs depend on another machine.
    pub network: bool,
    /// An overwrite allocates anew.
    pub copy_on_write: bool,
    /// `RWF_DSYNC`, once accepted, syncs. False also where it is not known.
    pub honours_dsync: bool,
    /// Space may be reserved without being written.
    pub reserves: bool,
}

const PLAIN: FileSystem = FileSystem {
    name: "unknown",
    network: false,
    copy_on_write: false,
    honours_dsync: false,
    reserves: true,
};
const NETWORK: FileSystem = FileSystem { network: true, ..PLAIN };
const COPYING: FileSystem = FileSystem { copy_on_write: true, ..PLAIN };
const SYNCING: FileSystem = FileSystem { honours_dsync: true, ..PLAIN };

/// Of a file system that the table does not hold, nothing is believed.
pub(super) const UNKNOWN: FileSystem = PLAIN;

/// By `statfs`'s `f_type`; the numbers are `linux/magic.h`'s, and those of the file systems outside the kernel.
const TABLE: [(u32, FileSystem); 30] = [
    (0x0000_EF53, FileSystem { name: "ext4", ..SYNCING }),
    (0x5846_5342, FileSystem { name: "xfs", ..SYNCING }),
    (0xF2F5_2010, FileSystem { name: "f2fs", ..SYNCING }),
    // Where reserved space is written past the page cache and synced, its journal may tell the same extent twice, and after a
    // power cut the file system refuses to be mounted (Linux 6.18; `tests/power.rs` has met it).
    (0x9123_683E, FileSystem { name: "btrfs", honours_dsync: true, reserves: false, ..COPYING }),
    (0x0102_1994, FileSystem { name: "tmpfs", ..SYNCING }),
    (0x8584_58F6, FileSystem { name: "ramfs", ..SYNCING }),
    // Overlayfs hands the flag to the file system above, which is a local one.
    (0x794C_7630, FileSystem { name: "overlayfs", ..SYNCING }),
    (0x2FC1_2FC1, FileSystem { name: "zfs", ..COPYING }),
    (0xCA45_1A4E, FileSystem { name: "bcachefs", ..COPYING }),
    (0x0000_3434, FileSystem { name: "nilfs2", ..COPYING }),
    (0x6573_5546, FileSystem { name: "fuse", ..PLAIN }),
    (0x0000_4D44, FileSystem { name: "vfat", ..PLAIN }),
    (0x2011_BAB0, FileSystem { name: "exfat", ..PLAIN }),
    (0x7366_746E, FileSystem { name: "ntfs3", ..PLAIN }),
    (0x5265_4973, FileSystem { name: "reiserfs", ..PLAIN }),
    (0x3153_464A, FileSystem { name: "jfs", ..PLAIN }),
    (0x0000_F15F, FileSystem { name: "ecryptfs", ..PLAIN }),
    (0x7371_7368, FileSystem { name: "squashfs", ..PLAIN }),
    (0xE0F5_E1E2, FileSystem { name: "erofs", ..PLAIN }),
    (0x0000_6969, FileSystem { name: "nfs", ..NETWORK }),
    (0xFF53_4D42, FileSystem { name: "cifs", ..NETWORK }),
    (0xFE53_4D42, FileSystem { name: "smb2", ..NETWORK }),
    (0x0000_517B, FileSystem { name: "smb", ..NETWORK }),
    (0x0102_1997, FileSystem { name: "9p", ..NETWORK }),
    (0x00C3_6400, FileSystem { name: "ceph", ..NETWORK }),
    (0x5346_414F, FileSystem { name: "afs", ..NETWORK }),
    (0x6B41_4653, FileSystem { name: "afs", ..NETWORK }),
    (0x7375_7245, FileSystem { name: "coda", ..NETWORK }),
    (0x0BD0_0BD0, FileSystem { name: "lustre", ..NETWORK }),
    (0x4750_4653, FileSystem { name: "gpfs", ..NETWORK }),
];

/// The table's row.
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "other systems name their file systems otherwise")
)]
pub(super) fn by_magic(magic: u32) -> FileSystem {
    TABLE.iter().find(|(number, _)| *number == magic).map_or(UNKNOWN, |(_, file_system)| *file_system)
}
