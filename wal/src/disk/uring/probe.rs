//! Which flavour of ring this kernel grants, or why none.

use super::ring::{Flavour, Ring};
use rustix::io::Errno;
use std::io;

/// Makes a ring and has it carry out an empty operation; the best flavour that works, or the reason against all.
pub(in crate::disk) fn probe() -> Result<Flavour, String> {
    let mut reason = String::new();
    for flavour in Flavour::ALL {
        match Ring::new(flavour, 1).and_then(|mut ring| ring.check()) {
            Ok(()) => return Ok(flavour),
            Err(error) => reason = explain(&error),
        }
    }
    Err(reason)
}

fn explain(error: &io::Error) -> String {
    let why = match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => match switched_off() {
            Some(setting) => format!("kernel.io_uring_disabled is {setting}"),
            None => "a seccomp filter or a security module forbids it".to_owned(),
        },
        Some(Errno::NOSYS) => "this kernel has none, or a seccomp filter hides it".to_owned(),
        Some(Errno::NOMEM) => "the limit on locked memory is too low for it".to_owned(),
        Some(Errno::MFILE | Errno::NFILE) => "no file descriptor is left for it".to_owned(),
        _ => "this kernel is too old for it, or it is crippled here".to_owned(),
    };
    format!("io_uring is refused ({error}): {why}")
}

/// `kernel.io_uring_disabled`, if it is not 0.
fn switched_off() -> Option<char> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let name = "/proc/sys/kernel/io_uring_disabled";
    let fd = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).ok()?;
    let mut byte = [0];
    let read = rustix::io::read(&fd, &mut byte).ok()?;
    let [setting] = byte;
    (read == 1 && setting != b'0').then_some(char::from(setting))
}
