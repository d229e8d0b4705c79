//! The ring itself, and the only unsafe code of this crate.
//!
//! What the kernel is given are an address, a length and a descriptor, and it uses them until it has completed the
//! request. So a request is pushed together with its [`Task`], which owns the memory and, by its file, the
//! descriptor; and the task is taken back with the completion, never before:
//!
//! - R1: a slot holds its task from the push of its request until the completion with the slot's number is taken.
//!   A slot has one request at a time, so a number names one completion.
//! - R2: a ring that goes away waits for all its slots first; if that cannot be, tasks and ring stay in memory for
//!   ever.

#![allow(unsafe_code, reason = "the kernel is handed addresses; see R1 and R2")]

use super::task::{Request, Task, Way};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use std::io;
use std::mem::ManuallyDrop;
use std::thread::ThreadId;

/// The most requests in the kernel at once.
pub(super) const DEPTH_MAX: u32 = 1024;

/// How often the kernel may say that it has no memory for a request right now.
const TRIES_MAX: u32 = 10_000;

/// `RWF_DSYNC`.
const DSYNC: i32 = 2;

/// The number of completions that belong to no slot.
const NO_SLOT: u64 = u64::MAX;

/// The flags that a ring is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::disk) enum Flavour {
    /// `SINGLE_ISSUER` and `DEFER_TASKRUN`, Linux 6.1: for the thread that first uses it.
    OneThread,
    /// `COOP_TASKRUN`, Linux 5.19.
    Anywhere,
    /// No flags.
    Plain,
}

impl Flavour {
    pub(super) const ALL: [Flavour; 3] = [Flavour::OneThread, Flavour::Anywhere, Flavour::Plain];
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Flavour::OneThread => "io_uring with SINGLE_ISSUER and DEFER_TASKRUN",
            Flavour::Anywhere => "io_uring with COOP_TASKRUN",
            Flavour::Plain => "io_uring, without flags",
        })
    }
}

/// Who may use a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Anywhere,
    /// Whoever comes first.
    Unknown,
    Thread(ThreadId),
}

/// A ring, and the tasks that the kernel works on.
pub(super) struct Ring {
    ring: ManuallyDrop<IoUring>,
    slots: Vec<Option<Task>>,
    free: Vec<usize>,
    home: Home,
}

impl Ring {
    /// A ring for `depth` requests at once.
    pub(super) fn new(flavour: Flavour, depth: u32) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder.dontfork();
        match flavour {
            Flavour::OneThread => {
                // Disabled at first: it belongs to the thread that enables it, not to the one that makes it.
                builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_r_disabled();
            }
            Flavour::Anywhere => {
                builder.setup_coop_taskrun().setup_taskrun_flag();
            }
            Flavour::Plain => {}
        }
        let ring = ManuallyDrop::new(builder.build(depth.next_power_of_two())?);
        let home = if flavour == Flavour::OneThread { Home::Unknown } else { Home::Anywhere };
        let slots = (0..depth).map(|_| None).collect();
        Ok(Ring { ring, slots, free: (0..depth as usize).rev().collect(), home })
    }

    /// Whether the calling thread may use it. The first to ask for a ring that is for one thread becomes that thread.
    pub(super) fn is_at_home(&mut self) -> io::Result<bool> {
        let me = std::thread::current().id();
        if self.home == Home::Unknown {
            self.ring.submitter().register_enable_rings()?;
            self.home = Home::Thread(me);
        }
        Ok(self.home == Home::Anywhere || self.home == Home::Thread(me))
    }

    /// Tasks whose completion was not taken yet.
    pub(super) fn in_kernel(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Puts a request of this task into the ring; [`enter`](Ring::enter) hands it over. Gives the task back if there
    /// is no room.
    pub(super) fn push(&mut self, mut task: Task, request: &Request) -> Result<(), (Task, io::Error)> {
        let Some(slot) = self.free.pop() else { return Err((task, no_room())) };
        let entry = match entry(&mut task, request) {
            Ok(entry) => entry.user_data(slot as u64),
            Err(error) => {
                self.free.push(slot);
                return Err((task, error));
            }
        };
        // Before the kernel can see the entry.
        let Some(place) = self.slots.get_mut(slot) else { return Err((task, no_room())) };
        *place = Some(task);
        // SAFETY: the entry names memory and a descriptor of the task that stands in the slot (`entry`); R1 and R2
        // keep it there until the kernel is done with both. The memory is a map of the task's own: moving the task
        // into the slot has not moved it, and nobody reaches it meanwhile, as `Task` gives it to `entry` alone and,
        // at its end, away with itself.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            self.free.push(slot);
            return match self.slots.get_mut(slot).and_then(Option::take) {
                Some(task) => Err((task, no_room())),
                None => Ok(()),
            };
        }
        Ok(())
    }

    /// Hands over what was pushed, and returns when `want` completions are there to be taken, or fewer after an
    /// interruption. `want` 0 does not wait.
    pub(super) fn enter(&mut self, want: usize) -> io::Result<()> {
        for _ in 0..TRIES_MAX {
            let (is_idle, has_news) = {
                let queue = self.ring.submission();
                (queue.is_empty(), queue.taskrun() || queue.cq_overflow())
            };
            if is_idle && !has_news && self.ring.completion().len() >= want {
                return Ok(());
            }
            match self.ring.submit_and_wait(want) {
                // The kernel may have taken only a part, and does not wait then.
                Ok(_) if want == 0 && !self.ring.submission().is_empty() => {}
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No memory for a request, or too many completions that nobody took.
                Err(error) if is_passing(&error) && self.ring.completion().is_empty() => {
                    std::thread::yield_now();
                }
                Err(error) if is_passing(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::OutOfMemory, "the kernel takes no more requests"))
    }

    /// A task whose request has been completed, with the kernel's result.
    pub(super) fn pop(&mut self) -> Option<(Task, i32)> {
        loop {
            let entry = self.ring.completion().next()?;
            let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
            if let Some(task) = self.slots.get_mut(slot).and_then(Option::take) {
                self.free.push(slot);
                return Some((task, entry.result()));
            }
        }
    }

    /// Fails if the kernel lacks an operation that tasks need, or does not carry out even an empty one.
    pub(super) fn check(&mut self) -> io::Result<()> {
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe)?;
        let codes = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE, opcode::Nop::CODE];
        if !codes.into_iter().all(|code| probe.is_supported(code)) || !self.ring.params().is_feature_nodrop()
        {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.is_at_home()?;
        let nothing = opcode::Nop::new().build().user_data(NO_SLOT);
        // SAFETY: an empty operation names no memory and no descriptor.
        let pushed = unsafe { self.ring.submission().push(&nothing) };
        pushed.map_err(|_| no_room())?;
        self.enter(1)?;
        let done = self.ring.completion().next().map(|entry| (entry.user_data(), entry.result()));
        if done == Some((NO_SLOT, 0)) { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_kernel() > 0 {
            if !matches!(self.is_at_home(), Ok(true)) || self.enter(1).is_err() {
                // R2: the kernel may use all of it at any time.
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
            while self.pop().is_some() {}
        }
        // SAFETY: nothing is in the kernel, and neither `self` nor its ring is used again.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("home", &self.home).field("in_kernel", &self.in_kernel()).finish()
    }
}

/// What the kernel is asked, of the task's own memory and file.
fn entry(task: &mut Task, request: &Request) -> io::Result<squeue::Entry> {
    let fd = types::Fd(request.fd);
    if request.way == Way::Sync {
        return Ok(opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build());
    }
    let memory = task.memory(&request.range).ok_or_else(no_room)?;
    let len = u32::try_from(memory.len()).map_err(|_| no_room())?;
    let flags = match request.way {
        Way::WriteDsync | Way::WriteDirectDsync => DSYNC,
        _ => 0,
    };
    let entry = match request.way {
        Way::Read | Way::ReadDirect => {
            opcode::Read::new(fd, memory.as_mut_ptr(), len).offset(request.offset).build()
        }
        _ => opcode::Write::new(fd, memory.as_ptr(), len).offset(request.offset).rw_flags(flags).build(),
    };
    Ok(if request.is_punted { entry.flags(squeue::Flags::ASYNC) } else { entry })
}

/// The kernel can take no more just now.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy)
}

fn no_room() -> io::Error {
    io::Error::other("a request does not fit into the ring")
}
