//! Where what was handed to stores is answered.

use crate::error::{Error, Result};
use crate::id::{NodeId, TxnId};
use crate::participant::{Answer, Found, Reply};
use crate::proto::Token;
use crate::record::Entry;
use crate::site::Key;
use parking_lot::Mutex;
use std::sync::Arc;

/// Where stores' answers arrive, from any thread.
#[derive(Default)]
pub(crate) struct Inbox {
    answers: Mutex<Vec<Answered>>,
    ring: Option<Box<dyn Fn() + Send + Sync>>,
}

pub(super) struct Answered {
    pub(super) node: NodeId,
    /// Who was asked: a node that was attached again since is not meant.
    pub(super) attachment: u64,
    pub(super) said: Said,
}

pub(super) enum Said {
    Answer(What, Answer),
    Found(Result<Vec<(TxnId, Entry)>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Log,
    Branches,
}

pub(super) enum What {
    /// Records of the node's log.
    Records(Vec<(Key, Token)>),
    /// A verb.
    Verb(Key, Token, Verb),
    Flush(Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Prepare,
    Finish,
    Complete,
}

impl Inbox {
    pub(crate) fn new(ring: Box<dyn Fn() + Send + Sync>) -> Inbox {
        Inbox { answers: Mutex::default(), ring: Some(ring) }
    }

    pub(super) fn take(&self) -> Vec<Answered> {
        std::mem::take(&mut *self.answers.lock())
    }

    fn put(&self, answered: Answered) {
        self.answers.lock().push(answered);
        if let Some(ring) = &self.ring {
            ring();
        }
    }
}

pub(super) fn reply(inbox: &Arc<Inbox>, node: NodeId, attachment: u64, what: What) -> Reply {
    let inbox = Arc::clone(inbox);
    Box::new(move |answer| inbox.put(Answered { node, attachment, said: Said::Answer(what, answer) }))
}

pub(super) fn found(inbox: &Arc<Inbox>, node: NodeId, attachment: u64) -> Found {
    let inbox = Arc::clone(inbox);
    Box::new(move |found| inbox.put(Answered { node, attachment, said: Said::Found(found) }))
}

pub(super) fn no_log(reply: Reply) {
    reply(Answer::Refused(Error::BadInput("the node keeps no records".into())));
}
