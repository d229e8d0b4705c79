//! The synchronisation primitives that this crate uses, in one place, so that `--cfg seawall_shuttle` can swap in
//! shuttle's and explore the interleavings of the commit path.

#[cfg(not(seawall_shuttle))]
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(not(seawall_shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

#[cfg(not(seawall_shuttle))]
pub(crate) use std::thread;

#[cfg(seawall_shuttle)]
pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(seawall_shuttle)]
pub use self::model::{Mutex, RwLock};

#[cfg(seawall_shuttle)]
pub(crate) use shuttle::sync::MutexGuard;

#[cfg(seawall_shuttle)]
pub(crate) use shuttle::thread;

#[cfg(seawall_shuttle)]
mod model {
    use shuttle::sync;
    use std::sync::PoisonError;

    /// Shuttle's mutex with `parking_lot`'s face: a panic does not poison it.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// A free one.
        pub fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }
        /// Waits for it.
        pub fn lock(&self) -> sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Shuttle's lock for many readers with `parking_lot`'s face.
    #[derive(Debug, Default)]
    pub struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        /// A free one.
        pub fn new(value: T) -> Self {
            Self(sync::RwLock::new(value))
        }
        /// Waits for whoever writes.
        pub fn read(&self) -> sync::RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }
        /// Waits for everybody else.
        pub fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
