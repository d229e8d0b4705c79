//! What carries out the machines' effects: the nodes of one process, their stores, and the messages between them. It has no
//! thread and no clock; a [`Coordinator`](crate::Coordinator) drives it in production, and the simulation step by step.
//!
//! ```text
//! messages, timers, answers of stores ──► Site::step ──► effects ──┬─► records ──► DecisionLog, Participant ──► Inbox
//!        ▲                                                         ├─► messages: to nodes here, or handed out
//!        └─────────────────────────────────────────────────────────┴─► timers, notices
//! ```
//!
//! - A pass goes on until nothing is left to be done at once. What it has for a store is handed over when it has seen to all
//!   that has come, and while the store holds its log back, so that it is one flush; records of a node are *one* write.
//!   Outcomes come first: nothing that has to be forced stands before them, so that they are visible at once.
//! - Records that are not forced are on the device with whatever is forced after them in the same log ([`Answer::Durable`]
//!   marks how far); if nothing is for [`FLUSH_US`], a flush is asked for.
//! - A node whose store fails is taken out at once, with all that its machines know: what is true is on its disk. It comes
//!   back when it is attached again.
//! - A participant that cannot be reached ([`Answer::Away`]) stays: a branch that it was to prepare is forgotten here, as by a
//!   crash, and one that it was to end stays in doubt and asks again. Nobody waits for it to show an outcome.
//! - *The resolver*: branches that a store has prepared and no machine knows are taken up again, when it is attached and from
//!   then on every [`SWEEP_US`]; in doubt, they ask.

use crate::decision::DecisionLog;
use crate::error::{Error, Result};
use crate::id::{NodeId, TxnId};
use crate::message::{Body, Decision, Message, Protocol, Role, Vote};
use crate::mutation::Mutation;
use crate::participant::{Answer, Participant};
use crate::proto::{Context, Effect, Input, Plan, Timing, Token};
use crate::record::{Durable, Entry};
use crate::site::{Key, Site};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

mod client;
mod inbox;
mod member;
mod notice;
mod passing;
mod present;
mod resolver;
mod timers;

pub(crate) use client::{Client, Word, guarded};
pub use inbox::Backlog;
use inbox::{Answered, Place, Said, Verb, What, no_log, reply};
pub(crate) use inbox::{Come, Inbox, Start};
use member::{Call, Lazy, Member};
pub use notice::Notice;
pub(crate) use present::{Absent, Present};
use timers::Timers;

/// So long records wait for something forced to ride with, in microseconds.
pub const FLUSH_US: u64 = 10_000;
/// So long after a store could not flush it is asked again, in microseconds.
const FLUSH_AGAIN_US: u64 = 1_000_000;
/// So often stores are searched for branches that nobody sees to, in microseconds.
pub const SWEEP_US: u64 = 5_000_000;

#[derive(Default)]
struct Tracked {
    plan: Option<Plan>,
    /// Branches here that do not show the outcome yet.
    open: Vec<NodeId>,
    decided: Option<Decision>,
    cause: Option<Error>,
    /// Told of its end; without one, notices tell of it.
    client: Option<Arc<Client>>,
}

impl Tracked {
    fn opens(&mut self, node: NodeId) {
        if !self.open.contains(&node) {
            self.open.push(node);
        }
    }
}

/// What is to be told to whom.
pub(crate) type Told = (Arc<Client>, TxnId, Word);

/// The nodes of one process.
pub struct Host {
    timing: Timing,
    mutation: Option<Mutation>,
    members: BTreeMap<NodeId, Member>,
    tracked: BTreeMap<TxnId, Tracked>,
    inbox: Arc<Inbox>,
    /// Room for what is taken from it.
    taken: (Vec<Answered>, Vec<Come>),
    timers: Timers,
    local: VecDeque<Message>,
    outgoing: Vec<Message>,
    notices: Vec<Notice>,
    told: Vec<Told>,
    /// The nodes here, for whoever does not want to wait for a pass.
    present: Arc<RwLock<Present>>,
    swept: u64,
    attachments: u64,
    /// Of nodes with a log: the last incarnation here.
    epochs: BTreeMap<NodeId, u64>,
    /// Nodes that are attached, and of which there was an incarnation elsewhere since the last one here.
    elsewhere: BTreeSet<NodeId>,
}

impl Host {
    /// Without any nodes. `timing` is all nodes'.
    pub fn new(timing: Timing) -> Host {
        Host::with_inbox(timing, Arc::default())
    }

    /// With rounds, as a coordinator has it: what a store has not answered holds back what comes after. To be asked often.
    #[doc(hidden)]
    pub fn with_rounds(timing: Timing) -> Host {
        Host::with_inbox(timing, Arc::new(Inbox::new(Box::new(|| {}))))
    }

    pub(crate) fn with_inbox(timing: Timing, inbox: Arc<Inbox>) -> Host {
        Host {
            timing,
            mutation: None,
            members: BTreeMap::new(),
            tracked: BTreeMap::new(),
            inbox,
            taken: Default::default(),
            timers: Timers::default(),
            local: VecDeque::new(),
            outgoing: Vec::new(),
            notices: Vec::new(),
            told: Vec::new(),
            present: Arc::default(),
            swept: 0,
            attachments: 0,
            epochs: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
        }
    }

    /// Makes a mistake on purpose.
    #[doc(hidden)]
    pub fn set_mutation(&mut self, mutation: Option<Mutation>) {
        self.mutation = mutation;
    }

    /// A node begins a new incarnation here, with what it had written down and what its store has prepared. Its epoch is given
    /// back. Without a log it takes its host's epoch, and can be nothing but a participant.
    ///
    /// # Errors
    /// What reading and writing meet. `BadInput` if the node is here already.
    pub fn attach(
        &mut self,
        now: u64,
        node: NodeId,
        log: Option<Arc<dyn DecisionLog>>,
        participant: Option<Arc<dyn Participant>>,
        epoch_without_log: u64,
    ) -> Result<u64> {
        if self.members.contains_key(&node) {
            return Err(Error::BadInput(format!("{node} is attached already")));
        }
        let (epoch, kept) = match &log {
            Some(log) => log.start()?,
            None => (epoch_without_log, Durable::default()),
        };
        if log.is_some()
            && self.epochs.insert(node, epoch).is_some_and(|last| last.checked_add(1) != Some(epoch))
        {
            self.elsewhere.insert(node);
        }
        let found = match &participant {
            Some(store) => store.recover()?,
            None => Vec::new(),
        };
        self.begin(now, (node, epoch), log, participant, (kept, found));
        Ok(epoch)
    }

    fn begin(
        &mut self,
        now: u64,
        (node, epoch): (NodeId, u64),
        log: Option<Arc<dyn DecisionLog>>,
        participant: Option<Arc<dyn Participant>>,
        (kept, found): (Durable, Vec<(TxnId, Entry)>),
    ) {
        self.attachments += 1;
        let mut context = Context::new(node, epoch);
        context.timing = self.timing;
        context.mutation = self.mutation;
        if log.is_none() {
            // It may come again in the same epoch (T10).
            context.leaders_before = self.attachments << 40;
        }
        let mut member = Member {
            site: Site::new(context),
            epoch,
            attachment: self.attachments,
            is_searched: false,
            round: participant
                .as_ref()
                .filter(|store| store.can_merge() && self.inbox.rings())
                .map(|_| Arc::default()),
            since: 0,
            log,
            participant,
            logged: Lazy::default(),
            branches: Lazy::default(),
            calls: Vec::new(),
            records: Vec::new(),
            prepared: BTreeSet::new(),
            noted: BTreeSet::new(),
        };
        let durable = member.recovered(&kept, found);
        let (site, actions) = Site::recover(context, &durable, now);
        member.site = site;
        self.members.insert(node, member);
        self.present.write().comes(node);
        self.resolve_tracked(now, node, &durable);
        self.carry_out(node, actions);
        self.run(now);
    }

    /// Clients that still wait for transactions of a coordinator that failed and is back: what it has not decided, it aborts.
    /// With Paxos Commit the acceptors know, and are asked; a sole participant elsewhere says itself. Nothing is presumed if an
    /// incarnation was at work elsewhere meanwhile: it may have seen to the end of what is not known any more.
    fn resolve_tracked(&mut self, now: u64, node: NodeId, durable: &Durable) {
        let was_elsewhere = self.elsewhere.remove(&node);
        let waiting: Vec<(TxnId, Option<Plan>)> = self
            .tracked
            .iter()
            .filter(|(txn, tracked)| txn.coordinator == node && tracked.decided.is_none())
            .map(|(txn, tracked)| (*txn, tracked.plan.clone()))
            .collect();
        for (txn, plan) in waiting {
            let Some(plan) = plan else { continue };
            let participants = &plan.group.participants;
            let is_elsewhere = participants.len() == 1 && participants.first() != Some(&node);
            let decision = match (durable.get(txn, Role::Coordinator), durable.get(txn, Role::Participant)) {
                (Some(Entry::Committing { .. }), _) => Some(Decision::Commit),
                (Some(_), _) => None,
                (None, Some(Entry::Finished { decision, .. })) => Some(*decision),
                (None, _) if was_elsewhere => {
                    let epoch = self.epochs.get(&node).map(|epoch| epoch.saturating_sub(1));
                    self.without_coordinator(txn, epoch);
                    None
                }
                (None, _) if is_elsewhere => None,
                (None, _) if plan.protocol == Protocol::PaxosCommit && participants.len() > 1 => {
                    self.step(now, node, Key { txn, role: Role::Coordinator }, Input::Lead(plan.group));
                    None
                }
                (None, _) => Some(Decision::Abort),
            };
            if let Some(decision) = decision {
                self.decided(txn, decision);
            }
        }
    }

    /// A node leaves, as by a crash: what it has not written down is forgotten.
    pub fn detach(&mut self, node: NodeId) {
        self.leave(node, None);
    }

    /// `fenced` by a later incarnation, of that epoch.
    fn leave(&mut self, node: NodeId, fenced: Option<u64>) {
        let member = self.members.remove(&node);
        self.present.write().leaves(node, fenced);
        self.timers.forget(node);
        if let Some(member) = member {
            self.let_go(node, &member);
        }
        for txn in self.tracked.keys().copied().collect::<Vec<_>>() {
            self.shows(node, txn);
            if txn.coordinator == node {
                self.without_coordinator(txn, fenced);
            }
        }
    }

    /// What a node that leaves had not voted for: nobody will see to its open branches, and nobody need wait for its votes. They
    /// are no "no": what it was about to prepare may be prepared after all, and it says so when it is back.
    fn let_go(&mut self, node: NodeId, member: &Member) {
        let queued = member.calls.iter().filter(|call| call.is_open()).map(|call| call.key.txn);
        let open: BTreeSet<TxnId> = member.site.open_branches().chain(queued).collect();
        if let Some(participant) = &member.participant {
            open.iter().for_each(|txn| guarded(|| participant.abandon(*txn)));
        }
        for txn in member.site.before_vote().filter(|txn| txn.coordinator != node) {
            self.knows_nothing(node, member.epoch, txn);
        }
    }

    /// A client's transaction whose coordinator has left. One that was fenced does not come back as what it was.
    fn without_coordinator(&mut self, txn: TxnId, fenced: Option<u64>) {
        if !self.tracked.contains_key(&txn) {
            return;
        }
        let Some(epoch) = fenced else { return self.unknown(txn) };
        let Some(tracked) = self.tracked.remove(&txn) else { return };
        if let Some(client) = tracked.client {
            let absent = Absent::fenced(txn.coordinator, epoch);
            let word =
                tracked.decided.map_or(Word::Fenced(absent), |decision| Word::of(decision, tracked.cause));
            self.told.push((client, txn, word));
        }
    }

    /// Whether the node is here.
    pub fn has(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// The nodes here, at any time.
    pub(crate) fn present(&self) -> Arc<RwLock<Present>> {
        Arc::clone(&self.present)
    }

    /// The nodes here.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.members.keys().copied()
    }

    /// Whether nothing is going on at any node.
    pub fn is_idle(&self) -> bool {
        self.members.values().all(|member| member.site.is_idle() && !member.has_something())
            && self.local.is_empty()
            && self.inbox.is_empty()
    }

    /// Of how many transactions something is known here, beside what the machines know.
    #[doc(hidden)]
    pub fn tracked(&self) -> usize {
        self.tracked.len()
    }

    /// A branch has begun at a node here; its participant holds it.
    ///
    /// # Errors
    /// `NodeMissing`.
    pub fn join(&mut self, now: u64, node: NodeId, txn: TxnId) -> Result<()> {
        if self.members.get(&node).is_none_or(|member| member.participant.is_none()) {
            return Err(Error::NodeMissing(node));
        }
        self.joined(now, node, txn);
        self.run(now);
        Ok(())
    }

    /// The coordinator here commits a transaction.
    ///
    /// # Errors
    /// `NodeMissing`; `BadInput` for more participants or acceptors than a [`Group`](crate::Group) has.
    pub fn start(&mut self, now: u64, txn: TxnId, plan: Plan) -> Result<()> {
        if !self.members.contains_key(&txn.coordinator) {
            return Err(Error::NodeMissing(txn.coordinator));
        }
        plan.group.check()?;
        self.started(now, txn, plan);
        self.run(now);
        Ok(())
    }

    fn joined(&mut self, now: u64, node: NodeId, txn: TxnId) {
        self.tracked.entry(txn).or_default().opens(node);
        self.step(now, node, Key { txn, role: Role::Participant }, Input::Join);
    }

    fn started(&mut self, now: u64, txn: TxnId, plan: Plan) {
        self.tracked.entry(txn).or_default().plan = Some(plan.clone());
        self.step(now, txn.coordinator, Key { txn, role: Role::Coordinator }, Input::Start(plan));
    }

    /// Gives up a transaction that was not started: its branches here are rolled back.
    pub fn abandon(&mut self, now: u64, txn: TxnId) {
        let open = self.tracked.get(&txn).map(|tracked| tracked.open.clone()).unwrap_or_default();
        for node in open {
            let body = Body::Decide { decision: Decision::Abort, acknowledge: false };
            let input = Input::Message { from: txn.coordinator, epoch: txn.epoch, body };
            self.step(now, node, Key { txn, role: Role::Participant }, input);
        }
        self.tracked.remove(&txn);
        self.run(now);
    }

    /// A person ends a prepared branch at a node here, or has seen to one that was ended so (none).
    pub fn heuristic(&mut self, now: u64, node: NodeId, txn: TxnId, decision: Option<Decision>) {
        let input = decision.map_or(Input::ForgetHeuristic, Input::Heuristic);
        self.step(now, node, Key { txn, role: Role::Participant }, input);
        self.run(now);
    }

    /// A message has come, from another process.
    pub fn receive(&mut self, now: u64, message: Message) {
        self.local.push_back(message);
        self.run(now);
    }

    /// Messages for other processes.
    pub fn take_outgoing(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.outgoing)
    }

    /// What there is to be told.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// When [`tick`](Host::tick) has something to do, in microseconds: a timer, a flush, a sweep.
    pub fn next_due(&self) -> u64 {
        let timer = Some(self.timers.soonest());
        let lazies = self.members.values().flat_map(|member| [&member.logged, &member.branches]);
        let flush = lazies.filter(|lazy| !lazy.flushing).filter_map(|lazy| lazy.since).min();
        let flush = flush.map(|since| since.saturating_add(FLUSH_US));
        let held_back = self.members.values().filter(|member| member.has_something());
        let round = held_back.map(Member::ready_at).min();
        let sweep = Some(self.swept.saturating_add(SWEEP_US));
        [timer, flush, round, sweep].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Time has passed, or a store has answered.
    pub fn tick(&mut self, now: u64) {
        self.run(now);
        while let Some((node, key, timer)) = self.timers.take_due(now) {
            self.step(now, node, key, Input::Timer(timer));
        }
        self.flush(now);
        if now >= self.swept.saturating_add(SWEEP_US) {
            self.sweep(now);
        }
        self.run(now);
    }

    /// Asks stores to make durable what has waited for long enough.
    fn flush(&mut self, now: u64) {
        let inbox = &self.inbox;
        for (&node, member) in &mut self.members {
            let attachment = member.attachment;
            for place in [Place::Log, Place::Branches] {
                let lazy = member.lazy(place);
                if lazy.flushing || lazy.since.is_none_or(|since| now < since.saturating_add(FLUSH_US)) {
                    continue;
                }
                lazy.flushing = true;
                let reply = reply(inbox, (node, attachment, None), What::Flush(place));
                match place {
                    Place::Log => match &member.log {
                        Some(log) => log.flush(reply),
                        None => no_log(reply),
                    },
                    Place::Branches => match &member.participant {
                        Some(store) => store.flush(reply),
                        None => no_log(reply),
                    },
                }
            }
        }
    }

    fn step(&mut self, now: u64, node: NodeId, key: Key, input: Input) {
        if let Some(member) = self.members.get_mut(&node) {
            let actions = member.site.step(now, key, input);
            self.carry_out(node, actions);
        }
    }

    fn carry_out(&mut self, node: NodeId, actions: Vec<(Key, Effect)>) {
        for (key, effect) in actions {
            let txn = key.txn;
            match effect {
                Effect::Persist { record, token, forced } => self.persist(node, key, token, record, forced),
                Effect::Send(message) if self.members.contains_key(&message.to) => {
                    self.local.push_back(message)
                }
                Effect::Send(message) => self.outgoing.push(message),
                Effect::SetTimer { timer, at } => self.timers.set(node, key, timer, at),
                Effect::Rollback => {
                    if let Some(store) =
                        self.members.get(&node).and_then(|member| member.participant.as_ref())
                    {
                        store.abandon(txn);
                    }
                    self.shows(node, txn);
                }
                Effect::Outcome(decision) => self.decided(txn, decision),
                Effect::Unknown => self.unknown(txn),
                Effect::Damage { participant, done } => {
                    self.notices.push(Notice::Damage { txn, participant, done });
                }
                Effect::Fenced { epoch } => {
                    self.leave(node, Some(epoch));
                    self.notices.push(Notice::Fenced { node, epoch });
                    return;
                }
                Effect::Violation(what) => self.notices.push(Notice::Violation { node, txn, what }),
                Effect::Done => {
                    self.timers.clear(node, key);
                    if key.role == Role::Participant {
                        if let Some(member) = self.members.get_mut(&node) {
                            member.prepared.remove(&txn);
                        }
                        self.shows(node, txn);
                    }
                }
                // A site sees to it itself.
                Effect::Lead(_) => {}
            }
        }
    }

    fn decided(&mut self, txn: TxnId, decision: Decision) {
        let Some(tracked) = self.tracked.get_mut(&txn) else { return };
        if tracked.decided.is_none() {
            tracked.decided = Some(decision);
            if tracked.client.is_none() {
                let cause = tracked.cause.take();
                self.notices.push(Notice::Outcome { txn, decision, cause });
            }
        }
        self.settle(txn);
    }

    /// A branch here shows the outcome, or is gone.
    fn shows(&mut self, node: NodeId, txn: TxnId) {
        if let Some(tracked) = self.tracked.get_mut(&txn)
            && let Some(at) = tracked.open.iter().position(|open| *open == node)
        {
            tracked.open.swap_remove(at);
            self.settle(txn);
        }
    }

    fn settle(&mut self, txn: TxnId) {
        let Some(tracked) = self.tracked.get(&txn).filter(|tracked| tracked.open.is_empty()) else { return };
        let Some(decision) = tracked.decided else {
            if tracked.plan.is_none() && tracked.client.is_none() {
                // Nobody here coordinates it, and nothing of it is left.
                self.tracked.remove(&txn);
            }
            return;
        };
        let Some(tracked) = self.tracked.remove(&txn) else { return };
        match tracked.client {
            Some(client) => {
                self.told.push((client, txn, Word::of(decision, tracked.cause)));
            }
            None => self.notices.push(Notice::Settled { txn }),
        }
    }

    fn unknown(&mut self, txn: TxnId) {
        match self.tracked.get(&txn).and_then(|tracked| tracked.client.as_ref()) {
            Some(client) => self.told.push((Arc::clone(client), txn, Word::Unknown)),
            None => self.notices.push(Notice::Unknown { txn }),
        }
    }

    fn answered(&mut self, now: u64, answered: Answered) {
        let Answered { node, attachment, said } = answered;
        let member = self.members.get_mut(&node).filter(|member| member.attachment == attachment);
        let Some(member) = member else { return };
        let (what, answer) = match said {
            Said::Answer(what, answer) => (what, answer),
            Said::Found(found) => return self.found(now, node, found),
        };
        let place = if matches!(what, What::Verb(..) | What::Flush(Place::Branches)) {
            Place::Branches
        } else {
            Place::Log
        };
        let (keys, verb) = match what {
            What::Records(keys) => (keys, None),
            What::Verb(key, token, verb) => (vec![(key, token)], Some(verb)),
            What::Flush(place) => {
                let lazy = member.lazy(place);
                lazy.flushing = false;
                if matches!(answer, Answer::Refused(_)) {
                    // The disk is full, say: at once it would say so again.
                    lazy.since = lazy.since.map(|_| now.saturating_add(FLUSH_AGAIN_US));
                }
                (Vec::new(), None)
            }
        };
        match answer {
            Answer::Durable(mark) => {
                for &(key, token) in &keys {
                    self.done(now, node, key, token, verb);
                }
                let Some(member) = self.members.get_mut(&node) else { return };
                let mut reached = member.lazy(place).reached(now, mark);
                if member.participant.as_ref().is_some_and(|store| store.can_merge()) {
                    // One log for both.
                    reached.extend(member.logged.reached(now, mark));
                    reached.extend(member.branches.reached(now, mark));
                }
                for (key, token) in reached {
                    self.step(now, node, key, Input::Persisted(token));
                }
            }
            Answer::Written(mark) => {
                for &(key, token) in &keys {
                    member.lazy(place).add(now, mark, key, token);
                }
                for (key, _) in keys.into_iter().filter(|_| verb.is_some()) {
                    self.shows(node, key.txn);
                }
            }
            Answer::ReadOnly => {
                for (key, token) in keys {
                    self.step(now, node, key, Input::ReadOnly(token));
                }
            }
            Answer::Refused(error) => {
                let mut error = Some(error);
                for (key, token) in keys {
                    if let Some(tracked) = self.tracked.get_mut(&key.txn)
                        && tracked.cause.is_none()
                    {
                        tracked.cause = error.take();
                    }
                    self.step(now, node, key, Input::Refused(token));
                }
            }
            Answer::Heuristic(decision) => {
                for (key, token) in keys {
                    if verb == Some(Verb::Finish) && decision == Decision::Commit {
                        // Nobody repeats a rollback until it is acknowledged: it is told of here, or nowhere.
                        self.notices.push(Notice::Damage { txn: key.txn, participant: node, done: decision });
                    }
                    self.step(now, node, key, Input::Refused(token));
                    self.step(now, node, key, Input::Heuristic(decision));
                }
            }
            Answer::Away(error) => self.away(now, node, &keys, verb, error),
            Answer::Lost(error) => self.down(node, error),
        }
    }

    fn done(&mut self, now: u64, node: NodeId, key: Key, token: Token, verb: Option<Verb>) {
        if let Some(member) = self.members.get_mut(&node) {
            match verb {
                Some(Verb::Prepare) => {
                    member.prepared.insert(key.txn);
                }
                Some(Verb::Finish | Verb::Complete) => self.shows(node, key.txn),
                None => {}
            }
        }
        self.step(now, node, key, Input::Persisted(token));
    }

    fn knows_nothing(&mut self, node: NodeId, epoch: u64, txn: TxnId) {
        let message =
            Message { txn, from: node, to: txn.coordinator, epoch, body: Body::Vote(Vote::Unknown) };
        if self.members.contains_key(&message.to) {
            self.local.push_back(message);
        } else {
            self.outgoing.push(message);
        }
    }

    fn down(&mut self, node: NodeId, error: Error) {
        self.detach(node);
        self.notices.push(Notice::Down { node, error });
    }
}
