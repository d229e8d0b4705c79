//! What blocks: the log, and applying it.

use super::super::inbox::Next;
use super::super::stepped::Stepped;
use super::{Event, Hearing, Inbox, Machine, Shared, own};
use crate::message::{Message, Piece};
use crate::ship::replica::{Effect, Input, Rejected};
use parking_lot::Mutex;
use seawall_wal::{Error, Lsn, Wal};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// How long a full disk is left alone.
const FULL: Duration = Duration::from_millis(100);

/// Bytes that are written down by whoever brings them; of more, some come while others are written.
const BROUGHT_MAX: u32 = 64 << 10;
/// A device that takes longer is written to by the log's thread alone, for a while: who brings something hears others meanwhile.
const QUICK: Duration = Duration::from_millis(20);
const WHILE: Duration = Duration::from_secs(1);

/// The log: pieces and syncs, and connections too, for its end must not move while it is told. It has a thread; who brings little
/// does that thread's work itself, if that is idle.
pub(super) struct LogWorker {
    shared: Arc<Shared>,
    jobs: Arc<Inbox<Effect>>,
    /// One job at a time, in their order.
    at_work: Mutex<AtWork>,
}

#[derive(Default)]
struct AtWork {
    /// Before that the device was slow.
    slow_until: Duration,
}

impl LogWorker {
    pub(super) fn new(shared: &Arc<Shared>, jobs: &Arc<Inbox<Effect>>) -> Arc<LogWorker> {
        let (shared, jobs) = (Arc::clone(shared), Arc::clone(jobs));
        Arc::new(LogWorker { shared, jobs, at_work: Mutex::default() })
    }

    pub(super) fn machine(&self) -> &Stepped<Machine> {
        &self.shared.machine
    }

    pub(super) fn run(self: &Arc<Self>) {
        loop {
            let word = self.jobs.word();
            {
                let _alone = self.at_work.lock();
                while let Next::Item { item, .. } = self.jobs.take_if(|_| true) {
                    self.work(item, true);
                }
                // Nobody else is at work any more either.
                if self.jobs.is_ending() && self.jobs.len() == 0 {
                    break;
                }
            }
            self.jobs.sleep(word, None);
        }
        let bye = self.shared.wire.lock().take();
        if let Some((_, wire)) = bye {
            wire.send(Message::Bye);
            wire.close();
        }
    }

    /// Tells the machine, by `tell`, and does what the log has to do about it in this thread, if that is little and the log's thread
    /// is idle. Otherwise that does it.
    pub(super) fn bring(self: &Arc<Self>, bytes: u32, tell: impl FnOnce()) {
        let alone = if (1..=BROUGHT_MAX).contains(&bytes) { self.at_work.try_lock() } else { None };
        let now = || self.shared.runtime.now();
        let Some(mut alone) = alone.filter(|alone| alone.slow_until <= now()) else { return tell() };
        let begin = now();
        self.jobs.hold();
        tell();
        let is_little = |job: &Effect| matches!(job, Effect::Accept(_) | Effect::Sync);
        while let Next::Item { item, .. } = self.jobs.take_if(is_little) {
            if let Some(left) = self.work(item, false) {
                self.jobs.put_back(left);
                break;
            }
        }
        let end = now();
        if end.saturating_sub(begin) > QUICK {
            alone.slow_until = end + WHILE;
        }
        drop(alone);
        self.jobs.release();
    }

    /// Does it. It is given back if it has to wait and may not.
    fn work(self: &Arc<Self>, job: Effect, may_wait: bool) -> Option<Effect> {
        let input = match job {
            Effect::Dial { session, .. } if self.jobs.is_ending() => Input::Lost { session },
            Effect::Dial { session, elsewhere } => self.dial(session, elsewhere),
            Effect::Promise { history } => {
                let log = seawall_wal::History::from(&history);
                match self.shared.shipping.wal().promise(history.epoch(), &log) {
                    Ok(()) => Input::Promised,
                    // A higher one, by another's word, in between.
                    Err(Error::Fenced { epoch }) => {
                        self.shared.machine.post(Event::Input(Box::new(Input::Fenced { epoch })));
                        Input::Promised
                    }
                    Err(error) => self.failed(&error),
                }
            }
            Effect::Accept(piece) => self.accept(piece),
            Effect::Sync => match self.sync(may_wait) {
                Some(input) => input,
                None => return Some(Effect::Sync),
            },
            _ => return None,
        };
        self.shared.machine.post(Event::Input(Box::new(input)));
        None
    }

    fn dial(self: &Arc<Self>, session: u64, elsewhere: bool) -> Input {
        let ear = Arc::new(Hearing { session, log: Arc::clone(self) });
        match self.shared.dialler.dial(ear, elsewhere) {
            Ok(wire) => {
                let old = self.shared.wire.lock().replace((session, wire));
                if let Some((_, old)) = old {
                    old.close();
                }
                Input::Connected { session, own: own(&self.shared.shipping) }
            }
            Err(error) => {
                self.shared.note(&error);
                Input::Lost { session }
            }
        }
    }

    fn failed(&self, error: &Error) -> Input {
        self.shared.note(error);
        Input::Failed
    }

    /// A full disk is waited for, by whom that may: nothing was promised, and nothing is lost.
    fn sync(&self, may_wait: bool) -> Option<Input> {
        loop {
            match self.shared.shipping.wal().sync_replica() {
                Ok(durable) => return Some(Input::Synced { durable }),
                Err(Error::NoSpace) if !self.jobs.is_ending() => {
                    self.shared.note(&Error::NoSpace);
                    if !may_wait {
                        return None;
                    }
                    self.shared.runtime.wait(&AtomicU32::new(0), 0, Some(FULL));
                }
                Err(error) => return Some(self.failed(&error)),
            }
        }
    }

    fn accept(&self, piece: Piece) -> Input {
        let (input, error) = accept(self.shared.shipping.wal(), piece);
        if let Some(error) = error {
            self.shared.note(&error);
        }
        input
    }
}

/// Hands a piece to the log: what the machine is told, and what the log said against it.
#[doc(hidden)]
pub fn accept(wal: &Wal, piece: Piece) -> (Input, Option<Error>) {
    let (at, end) = (piece.at, piece.end());
    let Ok(bytes) = piece.into_unpacked() else { return (Input::Rejected(Rejected::Damaged), None) };
    let error = match wal.accept(&seawall_wal::Piece { at, bytes: bytes.into() }) {
        Ok(received) => return (Input::Accepted { received }, None),
        Err(error) => error,
    };
    let tail = wal.tail();
    let input = match error {
        // It is taken: the next sync writes it.
        Error::NoSpace if tail.place == end => Input::Accepted { received: tail.whole_end },
        Error::Diverged { at } => Input::Rejected(Rejected::Diverged { at }),
        Error::BadInput(_) => Input::Rejected(Rejected::Damaged),
        _ => Input::Rejected(Rejected::Failed),
    };
    (input, Some(error))
}

/// Applies what is durable.
pub(super) struct Applier {
    shared: Arc<Shared>,
    to_apply: Arc<Inbox<Lsn>>,
}

impl Applier {
    pub(super) fn new(shared: &Arc<Shared>, to_apply: &Arc<Inbox<Lsn>>) -> Applier {
        Applier { shared: Arc::clone(shared), to_apply: Arc::clone(to_apply) }
    }

    pub(super) fn run(self) {
        while let Some(to) = self.to_apply.take(None) {
            let shipping = &self.shared.shipping;
            let input = match shipping.apply_to(to) {
                Ok(applied) => Input::Applied { applied, visible: shipping.visible() },
                Err(error) => {
                    self.shared.note(&error);
                    if let seawall_engine::Error::NeedsImage { to, .. } = error {
                        Input::Outside { at: to }
                    } else {
                        Input::Failed
                    }
                }
            };
            self.shared.machine.post(Event::Input(Box::new(input)));
        }
    }
}
