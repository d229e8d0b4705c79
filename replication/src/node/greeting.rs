//! A hello for its answer's sake: what a primary is to a log, without following it; and the promise of an epoch.

use super::inbox::Inbox;
use super::{Dialler, Ear};
use crate::message::{FEATURES, Features, Hello, Message, Name, VERSION, VERSION_MIN};
use crate::timeline::History;
use seawall_engine::Shipping;
use seawall_wal::Runtime;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What this store would say to a primary as a replica of this name.
pub fn hello(shipping: &Shipping, name: Name) -> Hello {
    let own = super::follower::own(shipping);
    Hello {
        version: VERSION,
        version_min: VERSION_MIN,
        features: FEATURES,
        store_id: shipping.store_id(),
        name,
        tail: own.tail,
        history: History::from(&shipping.wal().timeline().history),
        promised: own.promised,
        slot: None,
    }
}

/// What this store would say to another whose promise it needs, to be the primary of that epoch.
pub fn claim(shipping: &Shipping, name: Name, epoch: u64) -> Hello {
    let hello = hello(shipping, name);
    Hello { promised: epoch, features: hello.features | Features::CLAIM, ..hello }
}

/// Says hello, and goes once there is an answer: a welcome, or why there is none. A hello that has promised a higher epoch than the
/// other side's log is of makes it promise that, too, before it answers.
///
/// # Errors
/// `TimedOut` if no answer comes, `ConnectionAborted` if the connection is gone before; what dialling meets.
pub fn greet(
    dialler: &dyn Dialler,
    hello: Hello,
    timeout: Duration,
    runtime: &Arc<dyn Runtime>,
) -> io::Result<Message> {
    let heard = Inbox::new(runtime);
    let wire = dialler.dial(Arc::new(Hearing(Arc::clone(&heard))), false)?;
    wire.send(Message::Hello(hello));
    let until = runtime.now() + timeout;
    let answer = loop {
        match heard.take(Some(until)) {
            // A sign of life is no answer.
            Some(Some(Message::Heartbeat(_) | Message::Distance(_))) => {}
            Some(Some(Message::Bye) | None) => break Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Some(message)) => break Ok(message),
            None => break Err(io::Error::new(io::ErrorKind::TimedOut, "no answer came")),
        }
    };
    wire.send(Message::Bye);
    wire.close();
    heard.close();
    answer
}

/// What is heard, until the connection is gone.
struct Hearing(Arc<Inbox<Option<Message>>>);

impl Ear for Hearing {
    fn hear(&self, message: Message) {
        self.0.post(Some(message));
    }

    fn lost(&self) {
        self.0.post(None);
    }
}
