//! A pass: what has come is seen to, and what follows is handed to the stores, until nothing is left to be done at once.

use super::inbox::{Come, Round, Start, Verb, What, no_log, reply};
use super::{Call, Host, Told, Word, guarded};
use crate::id::NodeId;
use crate::message::{Body, Decision, Message, Role};
use crate::participant::Participant;
use crate::proto::Token;
use crate::record::{Entry, Record};
use crate::site::Key;
use seawall_engine::HeldTickets;

/// When a pass has seen to so much of what clients leave, the rest is the next one's.
const COME_MAX: usize = 1024;
/// No machine's record: none waits for it.
const NOBODY: Token = Token(0);

impl Host {
    /// Until nothing is left to be done at once.
    pub(super) fn run(&mut self, now: u64) {
        // What is handed to stores meanwhile is written when these are dropped.
        let mut held: Option<Vec<HeldTickets>> = None;
        let (mut answers, mut come) = std::mem::take(&mut self.taken);
        let mut room = COME_MAX;
        loop {
            // They may leave more for as long as this goes on.
            self.inbox.take(&mut answers, (room > 0).then_some(&mut come));
            room = room.saturating_sub(come.len());
            let mut is_quiet = answers.is_empty() && come.is_empty() && self.local.is_empty();
            for answered in answers.drain(..) {
                self.answered(now, answered);
            }
            for come in come.drain(..) {
                self.come(now, come);
            }
            while let Some(message) = self.local.pop_front() {
                self.message(now, message);
            }
            if self.members.values().any(|member| member.has_something() && member.ready_at() <= now) {
                held.get_or_insert_with(|| {
                    self.members.values().filter_map(|member| member.participant.as_ref()?.hold()).collect()
                });
                self.hand_over(now);
                // Some of it may be answered.
                is_quiet = false;
            }
            if is_quiet && self.local.is_empty() {
                self.taken = (answers, come);
                return;
            }
        }
    }

    fn come(&mut self, now: u64, come: Come) {
        match come {
            Come::Message(message) => self.message(now, message),
            Come::Join(store, txn) if self.has_branches(store.node()) => self.joined(now, store.node(), txn),
            // It was there a moment ago. Its coordinator will ask, and hear that there is no such branch.
            Come::Join(store, txn) => store.abandon(txn),
            Come::Start(start) => self.start_for(now, *start),
        }
    }

    fn has_branches(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.participant.is_some())
    }

    /// A client's transaction.
    fn start_for(&mut self, now: u64, start: Start) {
        let (txn, foreign) = (start.txn, &start.foreign);
        let here = start.branches.iter().map(|(store, _)| store.node()).chain(foreign.iter().copied());
        let missing = here.clone().find(|node| !self.has_branches(*node));
        let missing = missing.or_else(|| (!self.has(txn.coordinator)).then_some(txn.coordinator));
        if let Some(missing) = missing {
            let missing = self.present.read().absent(missing);
            for participant in foreign.iter().filter_map(|node| self.members.get(node)?.participant.as_ref())
            {
                participant.abandon(txn);
            }
            return self.told.push((start.client, txn, Word::NotStarted(missing)));
        }
        let Start { plan, branches, foreign, client, .. } = start;
        self.tracked.entry(txn).or_default().client = Some(client);
        for (store, branch) in branches {
            store.join(txn, branch);
            self.joined(now, store.node(), txn);
        }
        for node in foreign {
            self.joined(now, node, txn);
        }
        self.started(now, txn, plan);
    }

    fn message(&mut self, now: u64, message: Message) {
        let to = message.to;
        if let Body::Finished(decision) | Body::Learned(decision) = message.body
            && to == message.txn.coordinator
        {
            // Also to a coordinator that has forgotten it: whoever asked it may still wait.
            self.decided(message.txn, decision);
        }
        if let Some(member) = self.members.get_mut(&to) {
            let actions = member.site.receive(now, message);
            self.carry_out(to, actions);
        }
    }

    /// Notes a record for whoever keeps it.
    pub(super) fn persist(&mut self, node: NodeId, key: Key, token: Token, record: Record, forced: bool) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let txn = key.txn;
        let call = |record, is_prepared| Call { key, token, record, forced, is_prepared };
        let Some(store) = &member.participant else {
            return member.records.push((key, token, record, forced));
        };
        match &record.entry {
            Entry::Finished { retained, .. } => {
                let is_prepared = member.prepared.contains(&txn);
                if is_prepared && member.noted.remove(&txn) && !*retained {
                    // Behind the branch's end: records are handed over after verbs.
                    let entry = Entry::End(Role::Participant);
                    member.records.push((key, token, Record { txn, entry }, false));
                }
                let is_second_phase = |(of, _, record, _): &(Key, Token, Record, bool)| {
                    *of == key && matches!(record.entry, Entry::PreCommitted { .. })
                };
                if is_prepared && *retained && member.records.iter().any(is_second_phase) {
                    // That is the same row, and is handed over after the verb with which the outcome is written.
                    member.records.push((key, NOBODY, record.clone(), false));
                }
                member.calls.push(call(record, is_prepared));
            }
            Entry::Prepared { .. } | Entry::Heuristic { .. } | Entry::Committing { merged: true, .. } => {
                member.calls.push(call(record, false));
            }
            Entry::PreCommitted { .. } => {
                member.noted.insert(txn);
                member.records.push((key, token, record, forced));
            }
            Entry::End(Role::Participant) => {
                store.forget(txn);
                member.records.push((key, token, record, forced));
            }
            _ => member.records.push((key, token, record, forced)),
        }
    }

    /// What there is for each store that is ready: verbs, those that nobody waits for first, then one write for all records. One
    /// that panics has not answered, and is taken out.
    fn hand_over(&mut self, now: u64) {
        let inbox = &self.inbox;
        for (&node, member) in &mut self.members {
            if !member.has_something() || member.ready_at() > now {
                continue;
            }
            member.since = now;
            if let Some(round) = &mut member.round {
                Round::begin_next(round);
            }
            let round = member.round.clone();
            let whom = (node, member.attachment, round.as_ref());
            if let Some(store) = &member.participant {
                let calls = std::mem::take(&mut member.calls);
                let (first, then): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(Call::is_lazy);
                for call in first.into_iter().chain(then) {
                    let verb = |verb| reply(inbox, whom, What::Verb(call.key, call.token, verb));
                    let (txn, record) = (call.key.txn, &call.record);
                    guarded(|| match &record.entry {
                        Entry::Prepared { .. } => store.prepare(txn, record, verb(Verb::Prepare)),
                        Entry::Finished { decision, retained } if call.is_prepared => {
                            if *retained && let Some(log) = &member.log {
                                // Found again without its branch's end, that is made good (see `recovered`).
                                log.append(std::slice::from_ref(record), false, Box::new(drop));
                            }
                            match decision {
                                Decision::Commit => store.commit(txn, call.forced, verb(Verb::Finish)),
                                Decision::Abort => store.rollback(txn, verb(Verb::Finish)),
                            }
                        }
                        Entry::Heuristic { decision } => {
                            store.complete(txn, *decision, verb(Verb::Complete));
                        }
                        Entry::Committing { .. } => store.commit_merged(txn, record, verb(Verb::Finish)),
                        _ => store.commit_one_phase(txn, record, verb(Verb::Finish)),
                    });
                }
            }
            if !member.records.is_empty() {
                let (mut records, mut asked, mut forced) = (Vec::new(), Vec::new(), false);
                for (key, token, record, is_forced) in member.records.drain(..) {
                    forced |= is_forced;
                    if is_forced || !matches!(record.entry, Entry::End(_) | Entry::Fence { .. }) {
                        asked.push((key, token));
                    }
                    records.push(record);
                }
                let reply = reply(inbox, whom, What::Records(asked));
                guarded(|| match &member.log {
                    Some(log) => log.append(&records, forced, reply),
                    None => no_log(reply),
                });
            }
            if let Some(round) = &round {
                round.is_handed_over();
            }
        }
    }

    /// Who is to be told what.
    pub(crate) fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// The coordinator closes: nobody will be told any more.
    pub(crate) fn take_clients(&mut self) -> Vec<Told> {
        let waiting = self.tracked.iter_mut();
        waiting.filter_map(|(txn, tracked)| Some((tracked.client.take()?, *txn, Word::Closed))).collect()
    }
}
