//! Queues made of io_uring rings: Linux's way to have many operations on their way with few system calls.
//!
//! ```text
//! uring          UringQueue: what waits, what is in the kernel, what is done
//! uring/task     one operation as a chain of requests: the next one, and what a result makes of it; no I/O
//! uring/ring     the ring itself: the only unsafe code of this crate
//! uring/probe    which flavour of ring this kernel grants, or why none
//! ```
//!
//! An operation is a *task* of one or more requests: a short write or read goes on, a refused way falls to the next
//! as in [`super::os`], and a durable write without `RWF_DSYNC` ends with fdatasync.
//!
//! ```text
//! submit ─► waiting ─► in the kernel ─► done ─► reap
//!              ▲             │
//!              └── not whole ┘
//! ```
//!
//! **One sync at a time.** The kernel tells a failed write-back once to each descriptor. Requests on a file that sync
//! through the page cache (fdatasync, `RWF_DSYNC` without direct I/O) take turns on a descriptor that is for rings
//! alone, and mark the file like blocking ones when they fail; while another queue has the turn, the sync is a
//! blocking call.
//!
//! **One thread.** A ring with `DEFER_TASKRUN` completes nothing but in the thread that first used it: less to do
//! for the kernel, but nobody else can reap. When another thread comes and nothing is in the kernel, the queue gets a
//! ring without those flags, for good; while something is, the stranger is refused.

mod probe;
mod ring;
mod task;

pub(super) use probe::probe;
pub(super) use ring::Flavour;

use super::os::file::Turn;
use super::queue::execute;
use super::{Completion, Op, Queue};
use ring::Ring;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use task::{Next, Task};

/// A queue with a ring.
#[derive(Debug)]
pub(super) struct UringQueue {
    /// Not 0; files know by it whose turn it is.
    id: u64,
    /// `None` once no ring was to be had any more: then all goes by blocking calls.
    ring: Option<Ring>,
    depth: u32,
    next_token: u64,
    waiting: VecDeque<Task>,
    done: Vec<Completion>,
}

impl UringQueue {
    pub(super) fn new(flavour: Flavour, depth: usize) -> io::Result<UringQueue> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let depth = depth.clamp(1, ring::DEPTH_MAX as usize) as u32;
        Ok(UringQueue {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            ring: Some(Ring::new(flavour, depth)?),
            depth,
            next_token: 0,
            waiting: VecDeque::new(),
            done: Vec::new(),
        })
    }

    /// Makes the ring fit for the calling thread.
    fn enter(&mut self) -> io::Result<()> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        if ring.is_at_home()? {
            return Ok(());
        }
        if ring.in_kernel() > 0 {
            let what = "operations in flight are reaped by the thread that submitted them";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.ring = Ring::new(Flavour::Anywhere, self.depth).ok();
        Ok(())
    }

    fn in_kernel(&self) -> usize {
        self.ring.as_ref().map_or(0, Ring::in_kernel)
    }

    /// Puts into the ring whatever waits and may start.
    fn start(&mut self) {
        let mut held_back = VecDeque::new();
        while let Some(mut task) = self.waiting.pop_front() {
            let request = match task.next() {
                Next::Request(request) => request,
                Next::Done(result) => {
                    self.done.push(task.complete(result));
                    continue;
                }
            };
            let Some(ring) = &mut self.ring else {
                let result = task.finish_blocking();
                self.done.push(task.complete(result));
                continue;
            };
            if ring.is_full() {
                self.waiting.push_front(task);
                break;
            }
            match task.take_turn(&request, self.id) {
                Turn::Taken => {
                    if let Err((task, error)) = ring.push(task, &request) {
                        self.done.push(task.complete(Err(error)));
                    }
                }
                Turn::Wait => held_back.push_back(task),
                Turn::Never => {
                    let result = task.finish_blocking();
                    self.done.push(task.complete(result));
                }
            }
        }
        while let Some(task) = held_back.pop_back() {
            self.waiting.push_front(task);
        }
    }

    /// Takes what the kernel has completed; what is not whole waits again, ahead of others.
    fn collect(&mut self) {
        while let Some((mut task, result)) = self.ring.as_mut().and_then(Ring::pop) {
            task.absorb(result);
            self.waiting.push_front(task);
        }
    }

    /// For how many completions to sleep: all that are wanted, but where operations wait for a place in the kernel
    /// it is not to run empty.
    fn sleep_for(&self, wanted: usize) -> usize {
        let in_kernel = self.in_kernel();
        let most = if self.waiting.is_empty() { in_kernel } else { (in_kernel / 4).max(1) };
        wanted.min(most)
    }
}

impl Queue for UringQueue {
    fn submit(&mut self, ops: Vec<Op>) -> io::Result<u64> {
        self.enter()?;
        let first = self.next_token;
        for op in ops {
            let token = self.next_token;
            self.next_token += 1;
            match Task::new(token, op) {
                Ok(task) => self.waiting.push_back(task),
                // Of another kind of disk.
                Err(op) => self.done.push(execute(token, op)),
            }
        }
        self.start();
        if let Some(ring) = &mut self.ring {
            // A ring that fails here fails in `reap` again, which can say that outcomes are unknown.
            let _ = ring.enter(0);
        }
        Ok(first)
    }

    fn reap(&mut self, min: usize, out: &mut Vec<Completion>) -> io::Result<()> {
        let before = out.len();
        out.append(&mut self.done);
        if self.in_flight() == 0 {
            return Ok(());
        }
        self.enter()?;
        let mut sleep_for = 0;
        loop {
            if let Some(ring) = &mut self.ring {
                ring.enter(sleep_for)?;
            }
            self.collect();
            self.start();
            out.append(&mut self.done);
            let missing = min.saturating_sub(out.len() - before).min(self.in_flight());
            sleep_for = self.sleep_for(missing);
            if missing == 0 {
                // What was started just now, so that the device has it meanwhile.
                return self.ring.as_mut().map_or(Ok(()), |ring| ring.enter(0));
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.done.len() + self.waiting.len() + self.in_kernel()
    }
}

impl Drop for UringQueue {
    /// Whatever is in the kernel ends here, so that a failed sync marks its file. What cannot be waited for keeps its
    /// memory ([`Ring`]'s own drop).
    fn drop(&mut self) {
        self.waiting.clear();
        let Some(ring) = &mut self.ring else { return };
        while ring.in_kernel() > 0 {
            if !matches!(ring.is_at_home(), Ok(true)) || ring.enter(1).is_err() {
                return;
            }
            while let Some((mut task, result)) = ring.pop() {
                task.absorb(result);
            }
        }
    }
}

#[cfg(test)]
mod tests;
