//! How far a commit must have come before it counts.

/// How far a commit must have come before it is visible and acknowledged.
///
/// All commits take their places in one order; one counts when it *and all before it* have reached what each asked
/// for. So a `Memory` commit behind a `Synced` one waits for it, and nobody sees what a crash can take back, but for
/// the levels that ask for it.
///
/// ```
/// use seawall_wal::Durability;
///
/// assert_eq!(Durability::default(), Durability::Synced);
/// assert!(Durability::Memory < Durability::Written && Durability::Written < Durability::Synced);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// In this process's memory: lost with it.
    Memory,
    /// Handed to the kernel: survives the process, not the power.
    Written,
    /// On the device: survives the power.
    #[default]
    Synced,
}
