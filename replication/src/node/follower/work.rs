//! What blocks: the log, and applying it.

use super::{Event, Hearing, Inbox, Shared, own};
use crate::message::{Message, Piece};
use crate::ship::replica::{Effect, Input, Rejected};
use seawall_wal::{Error, Lsn, Wal};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// How long a full disk is left alone.
const FULL: Duration = Duration::from_millis(100);

/// The log's thread: connections too, for its end must not move while it is told.
pub(super) struct LogWorker {
    shared: Arc<Shared>,
    jobs: Arc<Inbox<Effect>>,
}

impl LogWorker {
    pub(super) fn new(shared: &Arc<Shared>, jobs: &Arc<Inbox<Effect>>) -> LogWorker {
        LogWorker { shared: Arc::clone(shared), jobs: Arc::clone(jobs) }
    }

    pub(super) fn run(self) {
        while let Some(job) = self.jobs.take(None) {
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
                Effect::Accept(piece) => self.accept(&piece),
                Effect::Sync => self.sync(),
                _ => continue,
            };
            self.shared.machine.post(Event::Input(Box::new(input)));
        }
    }

    fn dial(&self, session: u64, elsewhere: bool) -> Input {
        let ear = Arc::new(Hearing { session, machine: Arc::clone(&self.shared.machine) });
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

    /// A full disk is waited for: nothing was promised, and nothing is lost.
    fn sync(&self) -> Input {
        loop {
            match self.shared.shipping.wal().sync_replica() {
                Ok(durable) => return Input::Synced { durable },
                Err(Error::NoSpace) if !self.jobs.is_ending() => {
                    self.shared.note(&Error::NoSpace);
                    self.shared.runtime.wait(&AtomicU32::new(0), 0, Some(FULL));
                }
                Err(error) => return self.failed(&error),
            }
        }
    }

    fn accept(&self, piece: &Piece) -> Input {
        let (input, error) = accept(self.shared.shipping.wal(), piece);
        if let Some(error) = error {
            self.shared.note(&error);
        }
        input
    }
}

/// Hands a piece to the log: what the machine is told, and what the log said against it.
#[doc(hidden)]
pub fn accept(wal: &Wal, piece: &Piece) -> (Input, Option<Error>) {
    let Ok(bytes) = piece.unpacked() else { return (Input::Rejected(Rejected::Damaged), None) };
    let error = match wal.accept(&seawall_wal::Piece { at: piece.at, bytes: bytes.into() }) {
        Ok(received) => return (Input::Accepted { received }, None),
        Err(error) => error,
    };
    let tail = wal.tail();
    let input = match error {
        // It is taken: the next sync writes it.
        Error::NoSpace if tail.place == piece.end() => Input::Accepted { received: tail.whole_end },
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

impl Drop for LogWorker {
    fn drop(&mut self) {
        let bye = self.shared.wire.lock().take();
        if let Some((_, wire)) = bye {
            wire.send(Message::Bye);
            wire.close();
        }
    }
}
