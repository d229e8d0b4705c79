//! The synchronisation primitives that this crate uses, in one place, so that `--cfg seawall_shuttle` can swap in
//! shuttle's and explore the interleavings of the commit path.

#[cfg(not(seawall_shuttle))]
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(not(seawall_shuttle))]
pub(crate) use parking_lot::Mutex;

#[cfg(not(seawall_shuttle))]
pub(crate) use std::thread;

#[cfg(seawall_shuttle)]
pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(seawall_shuttle)]
pub(crate) use self::model::Mutex;

#[cfg(seawall_shuttle)]
pub(crate) use shuttle::thread;

#[cfg(seawall_shuttle)]
mod model {
    /// Shuttle's mutex with `parking_lot`'s face: a panic does not poison it.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }
        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            match self.0.lock() {
                Ok(guard) => guard,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
    }
}
