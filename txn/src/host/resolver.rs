//! What is prepared and nobody sees to: looked for, and taken up again. And participants that cannot be reached meanwhile.

use super::inbox::{self, Verb};
use super::{Host, Notice};
use crate::error::{Error, Result};
use crate::id::{NodeId, TxnId};
use crate::message::Role;
use crate::participant::Participant;
use crate::proto::{Effect, Input, Token};
use crate::record::{Durable, Entry};
use crate::site::Key;
use std::sync::Arc;

impl Host {
    /// As [`attach`](Host::attach), of a participant that has no log: what it has prepared was asked of it before, by
    /// [`Participant::recover`], so that nobody else waits for that.
    ///
    /// # Errors
    /// `BadInput` if the node is here already.
    pub fn attach_found(
        &mut self,
        now: u64,
        node: NodeId,
        participant: Arc<dyn Participant>,
        found: Vec<(TxnId, Entry)>,
        epoch: u64,
    ) -> Result<()> {
        if self.members.contains_key(&node) {
            return Err(Error::BadInput(format!("{node} is attached already")));
        }
        self.begin(now, (node, epoch), None, Some(participant), (Durable::default(), found));
        Ok(())
    }

    /// Asks for what is prepared.
    pub(super) fn sweep(&mut self, now: u64) {
        self.swept = now;
        for (&node, member) in &mut self.members {
            if let Some(participant) = member.participant.as_ref().filter(|_| !member.is_searched) {
                member.is_searched = true;
                participant.recover_later(inbox::found(&self.inbox, node, member.attachment));
            }
        }
    }

    /// Takes up again what is prepared and nobody sees to.
    pub(super) fn found(&mut self, now: u64, node: NodeId, found: Result<Vec<(TxnId, Entry)>>) {
        let found = match found {
            Ok(found) => found,
            Err(error @ Error::Unreachable { .. }) => {
                self.notices.push(Notice::Away { node, error });
                Vec::new()
            }
            Err(error) => return self.down(node, error),
        };
        if let Some(member) = self.members.get_mut(&node) {
            member.is_searched = false;
        }
        for (txn, entry) in found {
            let Some(member) = self.members.get_mut(&node) else { break };
            let key = Key { txn, role: Role::Participant };
            if member.site.has(key) {
                continue;
            }
            member.prepared.insert(txn);
            let actions = member.site.resume(now, key, entry);
            self.carry_out(node, actions);
        }
    }

    /// See [`Answer::Away`].
    pub(super) fn away(
        &mut self,
        now: u64,
        node: NodeId,
        keys: &[(Key, Token)],
        verb: Option<Verb>,
        error: Error,
    ) {
        let Some(&(key, token)) = keys.first() else { return };
        let Some(member) = self.members.get_mut(&node) else { return };
        match verb {
            Some(Verb::Prepare) => {
                let epoch = member.epoch;
                member.site.drop_machine(key);
                if let Some(tracked) = self.tracked.get_mut(&key.txn) {
                    tracked.cause.get_or_insert(error);
                }
                self.carry_out(node, vec![(key, Effect::Done)]);
                // As when it is lost: that is no "no".
                self.knows_nothing(node, epoch, key.txn);
            }
            Some(Verb::Finish) if member.prepared.contains(&key.txn) => {
                self.notices.push(Notice::Away { node, error });
                self.shows(node, key.txn);
                self.step(now, node, key, Input::Refused(token));
            }
            _ => self.down(node, error),
        }
    }
}
