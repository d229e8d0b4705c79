//! Connections within a process: what one side sends, the other hears at once.

use super::{Dialler, Ear, Host, Wire};
use crate::message::Message;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Dials whichever primary there is at the time, in this process.
///
/// ```
/// use seawall_replication::node::local::Switch;
/// let switch = Switch::default();
/// // Later: `switch.set(Some(leader))`, and another one when that was promoted in its place.
/// switch.set(None);
/// ```
#[derive(Default)]
pub struct Switch {
    host: Mutex<Option<Arc<dyn Host>>>,
    is_cut: Mutex<Arc<AtomicBool>>,
}

impl Switch {
    /// This is the primary from now on; connections that there are stay.
    pub fn set(&self, host: Option<Arc<dyn Host>>) {
        *self.host.lock() = host;
    }

    /// Every connection goes silent, as if a cable were pulled: what is sent is lost, and nobody is told.
    pub fn cut(&self) {
        let cut = std::mem::take(&mut *self.is_cut.lock());
        cut.store(true, Ordering::SeqCst);
    }
}

impl Dialler for Switch {
    fn dial(&self, ear: Arc<dyn Ear>, _: bool) -> io::Result<Arc<dyn Wire>> {
        let away = || io::Error::new(io::ErrorKind::NotConnected, "there is no primary");
        let host = self.host.lock().clone().ok_or_else(away)?;
        let line = Arc::new(Line {
            is_cut: Arc::clone(&self.is_cut.lock()),
            is_closed: AtomicBool::new(false),
            primary: Mutex::new(None),
            replica: Mutex::new(Some(ear)),
        });
        let down = Arc::new(End { line: Arc::clone(&line), to_replica: true });
        let primary = host.connected(None, down).ok_or_else(away)?;
        *line.primary.lock() = Some(primary);
        Ok(Arc::new(End { line, to_replica: false }))
    }
}

struct Line {
    is_cut: Arc<AtomicBool>,
    is_closed: AtomicBool,
    primary: Mutex<Option<Arc<dyn Ear>>>,
    replica: Mutex<Option<Arc<dyn Ear>>>,
}

struct End {
    line: Arc<Line>,
    to_replica: bool,
}

impl End {
    fn ear(&self) -> Option<Arc<dyn Ear>> {
        let ear = if self.to_replica { &self.line.replica } else { &self.line.primary };
        let is_dead = self.line.is_cut.load(Ordering::SeqCst) || self.line.is_closed.load(Ordering::SeqCst);
        if is_dead { None } else { ear.lock().clone() }
    }
}

impl Wire for End {
    fn send(&self, message: Message) {
        if let Some(ear) = self.ear() {
            ear.hear(message);
        }
    }

    fn close(&self) {
        let other = self.ear();
        self.line.is_closed.store(true, Ordering::SeqCst);
        // Dropped behind the locks: an ear may be the last to know a wire.
        let gone = (self.line.primary.lock().take(), self.line.replica.lock().take());
        drop(gone);
        if let Some(other) = other {
            other.lost();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
    }
}
