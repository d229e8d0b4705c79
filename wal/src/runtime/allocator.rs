//! The C library's allocator, which has a heap for each few threads and keeps what is freed in them. Programs that bring an
//! allocator of their own are not touched: what is called here looks at its own heaps alone.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the function is the C library's; it takes no pointer and any size")]
mod glibc {
    use std::ffi::c_int;

    // SAFETY: `int malloc_trim(size_t)` (malloc.h, glibc 2.0) may be called by any thread at any time.
    unsafe extern "C" {
        pub(super) safe fn malloc_trim(pad: usize) -> c_int;
    }
}

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// All who allocate wait meanwhile: a process does it once in so long.
const PAUSE: Duration = Duration::from_secs(10);

static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// Gives whole free pages of all heaps back to the system, unless that was done just now.
#[expect(clippy::disallowed_methods, reason = "this is behind the seam to the system")]
pub(super) fn give_back() {
    if is_due(Instant::now()) {
        #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
        let _ = glibc::malloc_trim(0);
    }
}

fn is_due(now: Instant) -> bool {
    let mut last = LAST.lock();
    let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
    if is_due {
        *last = Some(now);
    }
    is_due
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test may")]
    use super::{PAUSE, is_due};
    use std::time::{Duration, Instant};

    #[test]
    fn once_in_a_while() {
        let now = Instant::now();
        let dues = [PAUSE * 2, PAUSE * 2, PAUSE * 3 - Duration::from_millis(1), PAUSE * 3]
            .map(|at| is_due(now + at));
        assert_eq!(dues, [true, false, false, true]);
    }
}
