//! io_uring or blocking calls: chosen once for each disk, with the reason kept for people.
//!
//! A ring may be refused for many causes (an old kernel, `kernel.io_uring_disabled`, a seccomp filter, a limit on
//! locked memory or on descriptors), and granted but crippled; so one is made and used before any is counted on.

use crate::disk::queue::BlockingQueue;
use crate::disk::{Io, Queue};
use std::io;

/// What queues of a disk are made of.
#[derive(Debug)]
pub(in crate::disk) struct IoChoice {
    io: Io,
    #[cfg(target_os = "linux")]
    ring: Option<crate::disk::uring::Flavour>,
    reason: String,
}

/// The variable that keeps [`Io::Auto`] from trying io_uring.
const VARIABLE: &str = "SEAWALL_IO";

impl IoChoice {
    pub(super) fn make(io: Io) -> IoChoice {
        let asked = std::env::var(VARIABLE).unwrap_or_default();
        match io {
            Io::Blocking => IoChoice::blocking(io, "blocking calls were asked for".to_owned()),
            Io::Auto if asked == "blocking" => IoChoice::blocking(io, format!("{VARIABLE}=blocking")),
            Io::Auto | Io::Uring => IoChoice::tried(io),
        }
    }

    #[cfg(target_os = "linux")]
    fn tried(io: Io) -> IoChoice {
        match crate::disk::uring::probe() {
            Ok(flavour) => IoChoice { io, ring: Some(flavour), reason: flavour.to_string() },
            Err(reason) => IoChoice::blocking(io, reason),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn tried(io: Io) -> IoChoice {
        IoChoice::blocking(io, "io_uring is Linux's alone".to_owned())
    }

    fn blocking(io: Io, reason: String) -> IoChoice {
        IoChoice {
            io,
            #[cfg(target_os = "linux")]
            ring: None,
            reason,
        }
    }

    /// Fails if io_uring was asked for and is not to be had.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.io == Io::Uring && !self.has_rings() {
            let what = format!("io_uring was asked for: {}", self.reason);
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    pub(super) fn has_rings(&self) -> bool {
        self.ring.is_some()
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn has_rings(&self) -> bool {
        false
    }

    /// For [`Backend::name`](crate::disk::Backend::name).
    pub(super) fn name(&self) -> &'static str {
        if self.has_rings() { "uring" } else { "blocking" }
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// A ring that is refused now, though one was granted before (no descriptor is left, say), gives way too.
    pub(super) fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        self.check()?;
        #[cfg(target_os = "linux")]
        if let Some(flavour) = self.ring {
            match crate::disk::uring::UringQueue::new(flavour, depth) {
                Ok(queue) => return Ok(Box::new(queue)),
                Err(error) if self.io == Io::Uring => return Err(error),
                Err(_) => {}
            }
        }
        let _ = depth;
        Ok(Box::new(BlockingQueue::default()))
    }
}
