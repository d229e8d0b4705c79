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

/// Gives whole free pages of all heaps back to the system.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    let _ = glibc::malloc_trim(0);
}
