//! What nodes say to each other, and its bytes. Pure.
//!
//! The bytes are normative in `docs/format/txn.md`. Every message names its transaction, its sender, the sender's
//! incarnation, and whom it is for; nothing in it depends on the message before it, so messages may be lost, repeated and
//! reordered. Decoding is strict, and sizes are limited before anything is allocated.

#![warn(clippy::indexing_slicing)]

use crate::bytes::{Malformed, Reader, Result, Writer};
use crate::id::{Ballot, Group, NodeId, TxnId};
use std::sync::Arc;

/// How a transaction comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// Everywhere.
    Commit,
    /// Nowhere.
    Abort,
}

/// Which of the protocols brings it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Two-phase commit with presumed abort.
    TwoPhase,
    /// Three-phase commit: never blocked by one dead node, and wrong under partition.
    ThreePhase,
    /// Paxos Commit: never blocked by a minority of dead acceptors, and right under partition.
    PaxosCommit,
}

/// A participant's answer to `Prepare`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Vote {
    /// Prepared, durably: either outcome can follow, whatever crashes.
    Yes,
    /// It only read: it needs no outcome, and has forgotten the transaction.
    ReadOnly,
    /// It has given the transaction up.
    No,
    /// It knows no such transaction: it crashed before it prepared, or is through with it.
    Unknown,
}

/// The part that a node plays in a transaction; one node may play several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Asks for votes and announces the outcome. In Paxos Commit: any node that leads a ballot.
    Coordinator,
    /// Holds a branch.
    Participant,
    /// Remembers votes for Paxos Commit.
    Acceptor,
}

/// How far a node has come, told to one that looks for an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// No trace of the transaction.
    Unknown,
    /// Voted yes, or is about to; or, of a coordinator, has not decided.
    Uncertain,
    /// Knows that all voted yes (three-phase commit).
    PreCommitted,
    /// Knows the outcome.
    Ended(Decision),
}

/// What an instance of Paxos Commit is about: how one participant voted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// It is prepared, or only read.
    Prepared,
    /// It is not, and will not be.
    Aborted,
}

/// A vote that an acceptor has accepted, and in which ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Accepted {
    /// Whose vote.
    pub instance: NodeId,
    /// The highest ballot in which it was accepted.
    pub ballot: Ballot,
    /// The vote.
    pub value: Value,
}

/// What a message says. Tags 0 are nothing, so that zeros never parse.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Body {
    /// To a participant: can you commit?
    Prepare {
        /// By which protocol it will end.
        protocol: Protocol,
        /// With whom.
        group: Arc<Group>,
    },
    /// To the only participant: commit, and tell.
    CommitOnePhase,
    /// To a coordinator.
    Vote(Vote),
    /// To a participant: this is the outcome.
    Decide {
        /// The outcome.
        decision: Decision,
        /// Whether the sender remembers the transaction until it hears that the outcome is durable.
        acknowledge: bool,
    },
    /// To whoever sent `Decide`: the outcome is durable here.
    Ack {
        /// What was done instead, or before, by someone's own decision.
        heuristic: Option<Decision>,
    },
    /// To a coordinator: this is how it ended here, where it could end without you.
    Finished(Decision),
    /// To a participant: nobody will ask for what you remember.
    Forget,
    /// To a coordinator, from a participant in doubt.
    Inquire(Protocol),
    /// How far have you come?
    Ask {
        /// In which role: a participant or a coordinator.
        of: Role,
        /// The role of who asks.
        by: Role,
    },
    /// To whoever asked.
    Answer {
        /// In which role it asked.
        to: Role,
        /// In which role this node answers.
        of: Role,
        /// How far this node has come.
        stage: Stage,
        /// False if it has crashed since the transaction began.
        operational: bool,
    },
    /// To a participant of three-phase commit: all voted yes. From the coordinator, or from who stands in for it.
    PreCommit(Role),
    /// To whoever sent it: this is durable here.
    PreCommitted(Role),
    /// To an acceptor: will you stay away from ballots below this one?
    Phase1a {
        /// The ballot.
        ballot: Ballot,
        /// Who takes part.
        group: Arc<Group>,
    },
    /// To the ballot's leader: yes; and this is what has been accepted.
    Phase1b {
        /// The ballot.
        ballot: Ballot,
        /// Ascending by instance.
        accepted: Vec<Accepted>,
    },
    /// To an acceptor: accept these votes.
    Phase2a {
        /// The ballot.
        ballot: Ballot,
        /// Ascending by instance.
        values: Vec<(NodeId, Value)>,
        /// Who takes part.
        group: Arc<Group>,
    },
    /// To the ballot's leader: accepted, durably.
    Phase2b {
        /// The ballot.
        ballot: Ballot,
        /// Ascending by instance.
        values: Vec<(NodeId, Value)>,
    },
    /// To a ballot's leader: there is a higher one.
    Outbid {
        /// What the acceptor has promised.
        promised: Ballot,
    },
    /// To the coordinator, from another leader: this is how it ended.
    Learned(Decision),
    /// To that leader: the coordinator knows.
    Heard,
    /// To an acceptor: everyone has the outcome.
    ForgetVotes {
        /// The incarnation of the coordinator that knows it, or is gone.
        epoch: u64,
    },
    /// To a coordinator: a later incarnation of you has been here.
    Fenced {
        /// That incarnation's epoch.
        epoch: u64,
    },
}

impl Body {
    /// The role that it is addressed to.
    pub fn role(&self) -> Role {
        match self {
            Body::Prepare { .. }
            | Body::CommitOnePhase
            | Body::Decide { .. }
            | Body::Forget
            | Body::PreCommit(_) => Role::Participant,
            Body::Vote(_)
            | Body::Ack { .. }
            | Body::Finished(_)
            | Body::Inquire(_)
            | Body::Phase1b { .. }
            | Body::Phase2b { .. }
            | Body::Outbid { .. }
            | Body::Learned(_)
            | Body::Heard
            | Body::Fenced { .. } => Role::Coordinator,
            Body::Phase1a { .. } | Body::Phase2a { .. } | Body::ForgetVotes { .. } => Role::Acceptor,
            Body::Ask { of: role, .. } | Body::Answer { to: role, .. } | Body::PreCommitted(role) => *role,
        }
    }

    /// Whether it gives an order, or leads a ballot, which only the sender's latest incarnation may do. (A vote of ballot 0 is none.)
    #[doc(hidden)]
    pub fn is_order(&self) -> bool {
        match self {
            Body::Prepare { .. }
            | Body::CommitOnePhase
            | Body::Decide { .. }
            | Body::Forget
            | Body::PreCommit(_)
            | Body::Phase1a { .. } => true,
            Body::Phase2a { ballot, .. } => !ballot.is_zero(),
            _ => false,
        }
    }
}

/// A message.
///
/// ```
/// use seawall_txn::{Body, Message, NodeId, TxnId, Vote};
/// let txn = TxnId { coordinator: NodeId(1), epoch: 1, sequence: 1 };
/// let message = Message { txn, from: NodeId(2), to: NodeId(1), epoch: 1, body: Body::Vote(Vote::Yes) };
/// assert_eq!(Message::decode(&message.encode())?, message);
/// assert!(Message::decode(&[0; 64]).is_err());
/// # Ok::<(), seawall_txn::Malformed>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    /// What it is about.
    pub txn: TxnId,
    /// Who says it.
    pub from: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    /// The sender's incarnation.
    pub epoch: u64,
    /// What it says.
    pub body: Body,
}

const VERSION: u8 = 3;

impl Message {
    /// The most bytes that a message takes: all participants' votes with their ballots, and who takes part.
    pub const BYTES_MAX: usize = 64 << 10;

    /// Its bytes.
    //= docs/format/txn.md#messages
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.txn(self.txn);
        out.node(self.from);
        out.node(self.to);
        out.u64(self.epoch);
        self.body.encode(&mut out);
        out.finish()
    }

    /// The message of these bytes.
    ///
    /// # Errors
    /// If they are not exactly what [`Message::encode`] writes.
    //= docs/format/txn.md#messages
    pub fn decode(bytes: &[u8]) -> Result<Message> {
        if bytes.len() > Message::BYTES_MAX {
            return Err(Malformed { at: Message::BYTES_MAX, what: "longer than a message may be" });
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed { at: 0, what: "not a version that this program knows" });
        }
        let message = Message {
            txn: reader.txn()?,
            from: reader.node()?,
            to: reader.node()?,
            epoch: reader.u64()?,
            body: Body::decode(&mut reader)?,
        };
        reader.end()?;
        Ok(message)
    }
}

impl Body {
    fn encode(&self, out: &mut Writer) {
        match self {
            Body::Prepare { protocol, group } => {
                out.u8(1);
                protocol.encode(out);
                out.group(group);
            }
            Body::CommitOnePhase => out.u8(2),
            Body::Vote(vote) => {
                out.u8(3);
                vote.encode(out);
            }
            Body::Decide { decision, acknowledge } => {
                out.u8(4);
                decision.encode(out);
                out.bool(*acknowledge);
            }
            Body::Ack { heuristic } => {
                out.u8(5);
                match heuristic {
                    None => out.u8(0),
                    Some(decision) => decision.encode(out),
                }
            }
            Body::Finished(decision) => {
                out.u8(6);
                decision.encode(out);
            }
            Body::Forget => out.u8(7),
            Body::Inquire(protocol) => {
                out.u8(8);
                protocol.encode(out);
            }
            Body::Ask { of, by } => {
                out.u8(9);
                of.encode(out);
                by.encode(out);
            }
            Body::Answer { to, of, stage, operational } => {
                out.u8(10);
                to.encode(out);
                of.encode(out);
                stage.encode(out);
                out.bool(*operational);
            }
            Body::PreCommit(role) => {
                out.u8(11);
                role.encode(out);
            }
            Body::PreCommitted(role) => {
                out.u8(12);
                role.encode(out);
            }
            Body::Phase1a { ballot, group } => {
                out.u8(13);
                out.ballot(*ballot);
                out.group(group);
            }
            Body::Phase1b { ballot, accepted } => {
                out.u8(14);
                out.ballot(*ballot);
                encode_accepted(out, accepted);
            }
            Body::Phase2a { ballot, values, group } => {
                out.u8(15);
                out.ballot(*ballot);
                encode_values(out, values);
                out.group(group);
            }
            Body::Phase2b { ballot, values } => {
                out.u8(16);
                out.ballot(*ballot);
                encode_values(out, values);
            }
            Body::Outbid { promised } => {
                out.u8(17);
                out.ballot(*promised);
            }
            Body::ForgetVotes { epoch } => {
                out.u8(18);
                out.u64(*epoch);
            }
            Body::Learned(decision) => {
                out.u8(19);
                decision.encode(out);
            }
            Body::Heard => out.u8(20),
            Body::Fenced { epoch } => {
                out.u8(21);
                out.u64(*epoch);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Body> {
        Ok(match reader.u8()? {
            1 => Body::Prepare { protocol: Protocol::decode(reader)?, group: Arc::new(reader.group()?) },
            2 => Body::CommitOnePhase,
            3 => Body::Vote(Vote::decode(reader)?),
            4 => Body::Decide { decision: Decision::decode(reader)?, acknowledge: reader.bool()? },
            5 => Body::Ack { heuristic: decode_heuristic(reader)? },
            6 => Body::Finished(Decision::decode(reader)?),
            7 => Body::Forget,
            8 => Body::Inquire(Protocol::decode(reader)?),
            9 => Body::Ask { of: Role::decode(reader)?, by: Role::decode(reader)? },
            10 => Body::Answer {
                to: Role::decode(reader)?,
                of: Role::decode(reader)?,
                stage: Stage::decode(reader)?,
                operational: reader.bool()?,
            },
            11 => Body::PreCommit(Role::decode(reader)?),
            12 => Body::PreCommitted(Role::decode(reader)?),
            13 => Body::Phase1a { ballot: reader.ballot()?, group: Arc::new(reader.group()?) },
            14 => Body::Phase1b { ballot: reader.ballot()?, accepted: decode_accepted(reader)? },
            15 => Body::Phase2a {
                ballot: reader.ballot()?,
                values: decode_values(reader)?,
                group: Arc::new(reader.group()?),
            },
            16 => Body::Phase2b { ballot: reader.ballot()?, values: decode_values(reader)? },
            17 => Body::Outbid { promised: reader.ballot()? },
            18 => Body::ForgetVotes { epoch: reader.u64()? },
            19 => Body::Learned(Decision::decode(reader)?),
            20 => Body::Heard,
            21 => Body::Fenced { epoch: reader.u64()? },
            _ => return Err(reader.bad("no kind of message")),
        })
    }
}

fn decode_heuristic(reader: &mut Reader<'_>) -> Result<Option<Decision>> {
    Ok(match reader.u8()? {
        0 => None,
        1 => Some(Decision::Commit),
        2 => Some(Decision::Abort),
        _ => return Err(reader.bad("no outcome")),
    })
}

pub(crate) fn encode_accepted(out: &mut Writer, accepted: &[Accepted]) {
    out.count(accepted.len());
    for vote in accepted {
        out.node(vote.instance);
        out.ballot(vote.ballot);
        vote.value.encode(out);
    }
}

pub(crate) fn decode_accepted(reader: &mut Reader<'_>) -> Result<Vec<Accepted>> {
    let count = reader.count(Group::PARTICIPANTS_MAX, 37)?;
    let one = |_| {
        Ok(Accepted { instance: reader.node()?, ballot: reader.ballot()?, value: Value::decode(reader)? })
    };
    let accepted: Vec<Accepted> = (0..count).map(one).collect::<Result<_>>()?;
    if !accepted.is_sorted_by(|a, b| a.instance < b.instance) {
        return Err(reader.bad("votes not in ascending order"));
    }
    Ok(accepted)
}

fn encode_values(out: &mut Writer, values: &[(NodeId, Value)]) {
    out.count(values.len());
    for (instance, value) in values {
        out.node(*instance);
        value.encode(out);
    }
}

fn decode_values(reader: &mut Reader<'_>) -> Result<Vec<(NodeId, Value)>> {
    let count = reader.count(Group::PARTICIPANTS_MAX, 9)?;
    let one = |_| Ok((reader.node()?, Value::decode(reader)?));
    let values: Vec<(NodeId, Value)> = (0..count).map(one).collect::<Result<_>>()?;
    if !values.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(reader.bad("votes not in ascending order"));
    }
    Ok(values)
}

/// Enums without fields, by a byte each; 0 is nothing.
macro_rules! tags {
    ($kind:ident, $what:literal, $($name:ident = $tag:literal),*) => {
        impl $kind {
            pub(crate) fn encode(self, out: &mut Writer) {
                out.u8(match self { $($kind::$name => $tag),* });
            }

            pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<$kind> {
                match reader.u8()? {
                    $($tag => Ok($kind::$name),)*
                    _ => Err(reader.bad($what)),
                }
            }
        }
    };
}

tags!(Decision, "no outcome", Commit = 1, Abort = 2);
tags!(Protocol, "no protocol", TwoPhase = 1, ThreePhase = 2, PaxosCommit = 3);
tags!(Vote, "no vote", Yes = 1, ReadOnly = 2, No = 3, Unknown = 4);
tags!(Role, "no role", Coordinator = 1, Participant = 2, Acceptor = 3);
tags!(Value, "no vote", Prepared = 1, Aborted = 2);

impl Stage {
    fn encode(self, out: &mut Writer) {
        out.u8(match self {
            Stage::Unknown => 1,
            Stage::Uncertain => 2,
            Stage::PreCommitted => 3,
            Stage::Ended(Decision::Commit) => 4,
            Stage::Ended(Decision::Abort) => 5,
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Stage> {
        Ok(match reader.u8()? {
            1 => Stage::Unknown,
            2 => Stage::Uncertain,
            3 => Stage::PreCommitted,
            4 => Stage::Ended(Decision::Commit),
            5 => Stage::Ended(Decision::Abort),
            _ => return Err(reader.bad("no stage")),
        })
    }
}
