//! Ballots of Paxos Commit: no two leaders share one, and an answer counts for what was proposed in it (T10).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

use seawall_txn::mutation::Mutation;
use seawall_txn::proto::paxos_commit::{Acceptor, Leader};
use seawall_txn::{
    Answer, Ballot, Body, Context, Decision, Durable, Effect, Entry, Group, Host, Input, Key, Message,
    NodeId, Participant, Plan, Protocol, Record, Reply, Role, Site, Timer, Timing, TxnId, Value,
};
use std::sync::Arc;

const TXN: TxnId = TxnId { coordinator: NodeId(9), epoch: 1, sequence: 1 };

fn group(acceptors: &[u64]) -> Arc<Group> {
    let acceptors = acceptors.iter().map(|&id| NodeId(id)).collect();
    Arc::new(Group { participants: vec![NodeId(1), NodeId(2)], acceptors })
}

fn context(node: u64, epoch: u64) -> Context {
    Context::new(NodeId(node), epoch)
}

fn sends(effects: Vec<Effect>) -> Vec<Message> {
    let message = |effect| if let Effect::Send(message) = effect { Some(message) } else { None };
    effects.into_iter().filter_map(message).collect()
}

/// Delivers to an acceptor, its record durable at once; its answers.
fn accept(acceptor: &mut Acceptor, from: u64, body: Body) -> Vec<Body> {
    let mut out = Vec::new();
    for effect in acceptor.step(0, Input::Message { from: NodeId(from), epoch: 1, body }) {
        match effect {
            Effect::Send(message) => out.push(message),
            Effect::Persist { token, .. } => out.extend(sends(acceptor.step(0, Input::Persisted(token)))),
            _ => {}
        }
    }
    out.into_iter().map(|message| message.body).collect()
}

fn hear(leader: &mut Leader, from: u64, bodies: Vec<Body>) -> Vec<Message> {
    let hear = |body| sends(leader.step(0, Input::Message { from: NodeId(from), epoch: 1, body }));
    bodies.into_iter().flat_map(hear).collect()
}

fn to(messages: &[Message], node: u64) -> Body {
    messages.iter().find(|message| message.to == NodeId(node)).expect("a message to it").body.clone()
}

fn decision(messages: &[Message]) -> Option<Decision> {
    messages.iter().find_map(|message| match message.body {
        Body::Decide { decision, .. } => Some(decision),
        _ => None,
    })
}

/// Leader 1 crashes once; nothing is repeated, and the acceptors 11, 12, 13 never crash. What it decides, and then leader 2.
fn two_leaders(mutation: Option<Mutation>) -> (Option<Decision>, Option<Decision>) {
    let context = |node, epoch| Context { mutation, ..context(node, epoch) };
    let group = group(&[11, 12, 13]);
    let mut acceptors: Vec<Acceptor> = (11..=13).map(|node| Acceptor::new(context(node, 1), TXN)).collect();
    // Both votes have reached 13 alone: participants ask all acceptors when they ask again.
    for node in [1, 2] {
        let values = vec![(NodeId(node), Value::Prepared)];
        let body = Body::Phase2a { ballot: Ballot::ZERO, values, group: group.clone() };
        accept(&mut acceptors[2], node, body);
    }
    // Participant 1 leads, and has promises of 12 and 13; its second phase reaches 13 alone.
    let mut leader = Leader::new(context(1, 1), TXN, 1);
    let first = sends(leader.step(0, Input::Lead(group.clone())));
    let promise = accept(&mut acceptors[1], 1, to(&first, 12));
    assert!(hear(&mut leader, 12, promise).is_empty());
    let promise = accept(&mut acceptors[2], 1, to(&first, 13));
    let second = hear(&mut leader, 13, promise);
    accept(&mut acceptors[2], 1, to(&second, 13));
    // It crashes, is back, in doubt, and leads: 11 and 12 answer.
    let mut leader = Leader::new(context(1, 2), TXN, 1);
    let first = sends(leader.step(0, Input::Lead(group.clone())));
    let promise = accept(&mut acceptors[0], 1, to(&first, 11));
    assert!(hear(&mut leader, 11, promise).is_empty());
    let promise = accept(&mut acceptors[1], 1, to(&first, 12));
    let second = hear(&mut leader, 12, promise);
    let accepted = accept(&mut acceptors[0], 1, to(&second, 11));
    hear(&mut leader, 11, accepted);
    let accepted = accept(&mut acceptors[1], 1, to(&second, 12));
    let by_one = decision(&hear(&mut leader, 12, accepted));
    assert_eq!(by_one, Some(Decision::Abort), "neither 11 nor 12 has seen a vote");
    // It dies for good. Participant 2, in doubt, leads until it is not outbid: 12 and 13 answer.
    let mut other = Leader::new(context(2, 1), TXN, 1);
    let mut messages = sends(other.step(0, Input::Lead(group)));
    let mut by_two = None;
    for _ in 0..8 {
        for node in [12, 13] {
            let bodies: Vec<Body> =
                messages.iter().filter(|m| m.to == NodeId(node)).map(|m| m.body.clone()).collect();
            for body in bodies {
                let answers = accept(&mut acceptors[node as usize - 11], 2, body);
                let more = hear(&mut other, node, answers);
                by_two = by_two.or(decision(&more));
                messages.extend(more);
            }
        }
        messages = sends(other.step(0, Input::Timer(Timer::Retry)));
    }
    (by_one, by_two)
}

#[test]
fn a_leader_that_comes_back_does_not_take_its_ballot_again() {
    let (abort, commit) = (Some(Decision::Abort), Some(Decision::Commit));
    assert_eq!(two_leaders(None), (abort, abort));
    assert_eq!(two_leaders(Some(Mutation::ReuseBallots)), (abort, commit), "two leaders, two outcomes");
}

/// An acceptor that says it has accepted something else in this leader's ballot has not accepted what the leader proposes.
#[test]
fn an_answer_with_other_values_is_not_counted() {
    let mut leader = Leader::new(context(1, 2), TXN, 1);
    let first = sends(leader.step(0, Input::Lead(group(&[11]))));
    let Body::Phase1a { ballot, .. } = to(&first, 11) else { panic!("{first:?}") };
    let second = hear(&mut leader, 11, vec![Body::Phase1b { ballot, accepted: Vec::new() }]);
    let Body::Phase2a { values, .. } = to(&second, 11) else { panic!("{second:?}") };
    let others = values.iter().map(|&(node, _)| (node, Value::Prepared)).collect();
    assert_eq!(decision(&hear(&mut leader, 11, vec![Body::Phase2b { ballot, values: others }])), None);
    let told = hear(&mut leader, 11, vec![Body::Phase2b { ballot, values }]);
    assert_eq!(decision(&told), Some(Decision::Abort));
}

/// In ballot 0 as well: a commit takes everyone's vote, by name.
#[test]
fn the_votes_of_ballot_0_are_everyones() {
    let group = group(&[11]);
    let start = || {
        let mut leader = Leader::new(context(9, 1), TXN, 1);
        let protocol = Protocol::PaxosCommit;
        leader.step(0, Input::Start(seawall_txn::Plan { protocol, group: group.clone(), merged: false }));
        leader
    };
    let told = |values: &[(u64, Value)]| {
        let values = values.iter().map(|&(node, value)| (NodeId(node), value)).collect();
        decision(&hear(&mut start(), 11, vec![Body::Phase2b { ballot: Ballot::ZERO, values }]))
    };
    assert_eq!(told(&[(1, Value::Prepared), (2, Value::Prepared)]), Some(Decision::Commit));
    assert_eq!(told(&[(1, Value::Prepared), (3, Value::Prepared)]), None);
    assert_eq!(told(&[(1, Value::Prepared), (2, Value::Aborted)]), None);
}

/// An acceptor follows one proposal in a ballot.
#[test]
fn an_acceptor_takes_one_proposal_in_a_ballot() {
    let ballot = Ballot { round: 1, leader: NodeId(1), epoch: 1, sequence: 1 };
    let mut acceptor = Acceptor::new(context(11, 1), TXN);
    let mut propose = |value| {
        let values = vec![(NodeId(1), value), (NodeId(2), value)];
        let body = Body::Phase2a { ballot, values, group: group(&[11]) };
        acceptor.step(0, Input::Message { from: NodeId(1), epoch: 1, body })
    };
    assert!(propose(Value::Prepared).iter().any(|effect| matches!(effect, Effect::Persist { .. })));
    assert!(matches!(propose(Value::Aborted)[..], [Effect::Violation(_)]));
}

fn key(role: Role) -> Key {
    Key { txn: TXN, role }
}

fn prepared() -> Entry {
    Entry::Prepared { protocol: Protocol::PaxosCommit, group: group(&[11]) }
}

/// The ballot that is led in these messages.
fn led<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Option<Ballot> {
    messages.into_iter().find_map(|message| match message.body {
        Body::Phase1a { ballot, .. } => Some(ballot),
        _ => None,
    })
}

fn leads(site: &mut Site) -> Ballot {
    for _ in 0..4 {
        let actions = site.step(0, key(Role::Participant), Input::Timer(Timer::Retry));
        let messages = sends(actions.into_iter().map(|(_, effect)| effect).collect());
        if let Some(ballot) = led(&messages) {
            return ballot;
        }
    }
    panic!("it does not lead");
}

/// Without a crash: it hears of an outcome, and so does not lead any more; its store refuses, and it leads again.
#[test]
fn who_leads_again_leads_another_ballot() {
    let mut durable = Durable::default();
    durable.apply(&Record { txn: TXN, entry: prepared() });
    let (mut site, _) = Site::recover(context(1, 2), &durable, 0);
    let before = leads(&mut site);
    let body = Body::Decide { decision: Decision::Commit, acknowledge: true };
    let actions = site.receive(0, Message { txn: TXN, from: NodeId(9), to: NodeId(1), epoch: 1, body });
    let token = actions.iter().find_map(|(_, effect)| match effect {
        Effect::Persist { token, .. } => Some(*token),
        _ => None,
    });
    assert!(!site.has(key(Role::Coordinator)), "its ballot is moot");
    site.step(0, key(Role::Participant), Input::Refused(token.expect("its outcome is written")));
    let after = leads(&mut site);
    assert!(after > before, "{before:?}, then {after:?}");
    let (mut site, _) = Site::recover(context(1, 3), &durable, 0);
    assert!(leads(&mut site) > after, "after a crash");
}

/// In doubt, whatever happens.
struct Doubtful;

impl Participant for Doubtful {
    fn prepare(&self, _: TxnId, _: &Record, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn commit(&self, _: TxnId, _: bool, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn rollback(&self, _: TxnId, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn commit_one_phase(&self, _: TxnId, _: &Record, reply: Reply) {
        reply(Answer::Durable(0));
    }
    fn abandon(&self, _: TxnId) {}
    fn recover(&self) -> seawall_txn::Result<Vec<(TxnId, Entry)>> {
        Ok(vec![(TXN, prepared())])
    }
}

/// A node without a log has its host's epoch, and may be attached in it again and again.
#[test]
fn a_foreign_node_that_is_attached_again_leads_another_ballot() {
    let mut host = Host::new(Timing::default());
    let mut now = 0;
    let mut leads = || {
        let participant: Arc<dyn Participant> = Arc::new(Doubtful);
        host.attach(now, NodeId(1), None, Some(participant), 5).unwrap();
        for _ in 0..20 {
            let ballot = led(&host.take_outgoing());
            if let Some(ballot) = ballot {
                host.detach(NodeId(1));
                return ballot;
            }
            now = host.next_due();
            host.tick(now);
        }
        panic!("it does not lead");
    };
    let (before, after) = (leads(), leads());
    assert!(before.epoch == after.epoch && before < after, "{before:?}, then {after:?}");
}

/// The acceptors are gone: the coordinator's client is told that the outcome is not known, once a ballot has taken too long.
#[test]
fn a_ballot_that_takes_too_long_is_told_to_the_client() {
    let mut leader = Leader::new(context(9, 1), TXN, 1);
    let plan =
        seawall_txn::Plan { protocol: Protocol::PaxosCommit, group: group(&[11, 12, 13]), merged: false };
    leader.step(0, Input::Start(plan));
    let effects = leader.step(1, Input::Timer(Timer::Deadline));
    assert!(!effects.contains(&Effect::Unknown), "it leads first");
    assert!(effects.iter().any(|e| matches!(e, Effect::SetTimer { timer: Timer::Deadline, .. })));
    assert!(leader.step(2, Input::Timer(Timer::Deadline)).contains(&Effect::Unknown));
    // And nobody's but the coordinator's.
    let mut leader = Leader::new(context(1, 1), TXN, 1);
    leader.step(0, Input::Lead(group(&[11, 12, 13])));
    assert!(leader.step(1, Input::Timer(Timer::Deadline)).is_empty());
}

/// A node, with what it has written.
struct Node {
    site: Site,
    durable: Durable,
}

impl Node {
    fn new(node: u64, epoch: u64, mutation: Option<Mutation>) -> Node {
        let context = Context { mutation, ..context(node, epoch) };
        Node { site: Site::new(context), durable: Durable::default() }
    }

    /// All that it does is durable at once; what it sends, and what it tells its client.
    fn carry_out(&mut self, actions: Vec<(Key, Effect)>) -> (Vec<Message>, Option<Decision>) {
        let (mut sent, mut told) = (Vec::new(), None);
        let mut queue = std::collections::VecDeque::from(actions);
        while let Some((key, effect)) = queue.pop_front() {
            match effect {
                Effect::Send(message) => sent.push(message),
                Effect::Outcome(decision) => told = Some(decision),
                Effect::Persist { record, token, .. } => {
                    self.durable.apply(&record);
                    queue.extend(self.site.step(0, key, Input::Persisted(token)));
                }
                _ => {}
            }
        }
        (sent, told)
    }

    fn hear(&mut self, messages: &[Message]) -> (Vec<Message>, Option<Decision>) {
        let (mut sent, mut told) = (Vec::new(), None);
        for message in messages {
            let actions = self.site.receive(0, message.clone());
            let (more, outcome) = self.carry_out(actions);
            sent.extend(more);
            told = told.or(outcome);
        }
        (sent, told)
    }

    fn comes_back(&mut self) {
        let epoch = self.site.context().epoch + 1;
        let context = Context { epoch, ..*self.site.context() };
        let (site, actions) = Site::recover(context, &self.durable, 0);
        self.site = site;
        self.carry_out(actions);
    }
}

/// Coordinator 9 is thought dead, leads a ballot that would commit, and is cut off. Participant 1 leads a higher one, which aborts;
/// the coordinator's next incarnation has heard of it, and all is forgotten. Then the first one is heard again. Whether its client
/// is told that it commits.
fn led_by_the_dead(mutation: Option<Mutation>, are_acceptors_back: bool) -> Option<Decision> {
    let group = group(&[11, 12, 13]);
    let mut acceptors: Vec<Node> = (11..=13).map(|node| Node::new(node, 1, mutation)).collect();
    let ballot_0 = |from, to| {
        let values = vec![(NodeId(from), Value::Prepared)];
        let body = Body::Phase2a { ballot: Ballot::ZERO, values, group: group.clone() };
        Message { txn: TXN, from: NodeId(from), to: NodeId(to), epoch: 1, body }
    };
    acceptors[2].hear(&[ballot_0(1, 13), ballot_0(2, 13)]);

    let mut dead = Node::new(9, 1, mutation);
    let plan = Plan { protocol: Protocol::PaxosCommit, group: group.clone(), merged: false };
    dead.site.step(0, key(Role::Coordinator), Input::Start(plan));
    let actions = dead.site.step(0, key(Role::Coordinator), Input::Timer(Timer::Deadline));
    let (first, _) = dead.carry_out(actions);
    let to_node = |messages: &[Message], node: u64| -> Vec<Message> {
        messages.iter().filter(|m| m.to == NodeId(node)).cloned().collect()
    };
    let mut second = Vec::new();
    for node in [12, 13] {
        let (promise, _) = acceptors[node as usize - 11].hear(&to_node(&first, node));
        second.extend(dead.hear(&promise).0);
    }
    assert!(second.iter().any(|message| matches!(&message.body, Body::Phase2a { values, .. }
        if values.iter().all(|(_, value)| *value == Value::Prepared))));

    // 11 and 12 have no votes: an abort.
    let mut peer = Node::new(1, 1, mutation);
    let actions = peer.site.step(0, key(Role::Coordinator), Input::Lead(group.clone()));
    let (mut messages, _) = peer.carry_out(actions);
    let mut aborts = Vec::new();
    for _ in 0..4 {
        let mut answers = Vec::new();
        for node in [11, 12] {
            answers.extend(acceptors[node as usize - 11].hear(&to_node(&messages, node)).0);
        }
        messages = peer.hear(&answers).0;
        aborts.extend(
            messages
                .iter()
                .filter(|m| matches!(m.body, Body::Decide { decision: Decision::Abort, .. }))
                .cloned(),
        );
        if !aborts.is_empty() {
            break;
        }
        let actions = peer.site.step(0, key(Role::Coordinator), Input::Timer(Timer::Retry));
        messages.extend(peer.carry_out(actions).0);
    }
    assert!(!aborts.is_empty(), "it is outbid for ever");
    // The coordinator's next incarnation, which knows nothing of it, and the participants.
    let mut next = Node::new(9, 2, mutation);
    let (heard, _) = next.hear(&to_node(&messages, 9));
    let acks = [1, 2].map(|from| {
        let body = Body::Ack { heuristic: None };
        Message { txn: TXN, from: NodeId(from), to: NodeId(1), epoch: 1, body }
    });
    let (forget, _) = peer.hear(&[&heard[..], &acks[..]].concat());
    for node in 11..=13 {
        let acceptor = &mut acceptors[node as usize - 11];
        acceptor.hear(&to_node(&forget, node));
        assert!(acceptor.site.is_idle() && acceptor.durable.iter().next().is_none(), "it forgets");
        if are_acceptors_back {
            acceptor.comes_back();
        }
        // Repeated by the network.
        let (late, _) = acceptor.hear(&[ballot_0(1, node), ballot_0(2, node)]);
        if mutation.is_none() {
            assert!(late.is_empty() && acceptor.site.is_idle(), "{late:?}");
        }
    }
    let mut told = None;
    for node in 11..=13 {
        let (answers, _) = acceptors[node as usize - 11].hear(&to_node(&second, node));
        told = told.or(dead.hear(&answers).1);
    }
    told
}

/// `seawall torture --layer txn`, seed 37933.
#[test]
fn the_dead_do_not_lead_when_votes_are_forgotten() {
    for are_acceptors_back in [false, true] {
        assert_eq!(led_by_the_dead(None, are_acceptors_back), None);
        let unfenced = led_by_the_dead(Some(Mutation::ForgetUnfenced), are_acceptors_back);
        assert_eq!(unfenced, Some(Decision::Commit), "what aborted, commits");
    }
}
