//! What happens to a replica, what it wants done, and where it stands.

use crate::message::{Message, Name, Piece, Why};
use crate::mutation::Mutation;
use crate::timeline::{History, Tail};
use seawall_wal::Lsn;

/// How a replica behaves. Times are microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What it is called.
    pub name: Name,
    /// What keeps the log for it while it is away.
    pub slot: Option<Name>,
    /// Between so many the dialler chooses: what one lacks of the log, another may have, and one may be nearer to the primary.
    pub addresses: u32,
    /// A sign of life every so often.
    pub heartbeat_us: u64,
    /// Silence for so long ends the connection.
    pub timeout_us: u64,
    /// The first pause before it connects again, which doubles, up to the second.
    pub pause_us: (u64, u64),
    /// How long a gap between pieces may last.
    pub gap_us: u64,
    /// It stays so long with a replica that has no way to a primary, and nothing new: then it looks elsewhere. So it does, once for
    /// each address and seldom after that, where it might follow the primary itself.
    pub astray_us: u64,
    /// Bytes that may be on their way to it.
    pub window_bytes: u32,
    /// Records are applied when they are so old.
    pub delay_us: u64,
    /// What makes the pauses of several replicas differ.
    pub seed: u64,
    /// A mistake to make on purpose.
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
}

impl Settings {
    /// As usual, under this name.
    pub fn new(name: Name) -> Settings {
        Settings {
            name,
            slot: None,
            addresses: 1,
            heartbeat_us: 500_000,
            timeout_us: 5_000_000,
            pause_us: (50_000, 5_000_000),
            gap_us: 1_000_000,
            astray_us: 1_000_000,
            window_bytes: 16 << 20,
            delay_us: 0,
            seed: 0,
            mutation: None,
        }
    }
}

/// What the replica's own log and store are, once everything handed to them is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Where the log ends.
    pub tail: Tail,
    /// Its epochs.
    pub history: History,
    /// What was promised, durably.
    pub promised: u64,
    /// The end of what is durable of it.
    pub durable: Lsn,
    /// What the store has applied.
    pub applied: Lsn,
    /// What it shows.
    pub visible: Lsn,
}

/// Why the log did not take a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It does not continue what is there.
    Diverged {
        /// From where on.
        at: Lsn,
    },
    /// It is damaged, though it came whole: ask again.
    Damaged,
    /// The disk, or the store, has failed.
    Failed,
}

/// What happens to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// In answer to [`Effect::Dial`]: there is a connection, and this is what there is here.
    Connected {
        /// Which attempt.
        session: u64,
        /// What there is here.
        own: Own,
    },
    /// In answer to [`Effect::Dial`]: there is none; or it is gone.
    Lost {
        /// Which attempt.
        session: u64,
    },
    /// From the primary.
    Message {
        /// By the connection of which attempt.
        session: u64,
        /// What.
        message: Message,
    },
    /// In answer to [`Effect::Promise`]: it is durable.
    Promised,
    /// In answer to [`Effect::Accept`].
    Accepted {
        /// The end of the last whole record in the log.
        received: Lsn,
    },
    /// In answer to [`Effect::Accept`].
    Rejected(Rejected),
    /// In answer to [`Effect::Sync`].
    Synced {
        /// The end of the last whole record that is durable.
        durable: Lsn,
    },
    /// In answer to [`Effect::Apply`].
    Applied {
        /// What is applied.
        applied: Lsn,
        /// What is shown.
        visible: Lsn,
    },
    /// In answer to [`Effect::Show`]: what is shown now.
    Shown {
        /// The end.
        visible: Lsn,
    },
    /// Somebody else, who is about to promote another, was promised that no primary of a lower epoch is followed any more; that
    /// is durable.
    Fenced {
        /// That epoch.
        epoch: u64,
    },
    /// In answer to [`Effect::Apply`]: the record there names what only the primary's data file has.
    Outside {
        /// Where it stands.
        at: Lsn,
    },
    /// In answer to any: the disk, or the store, has failed.
    Failed,
    /// The replica closes, or is to be promoted.
    Close,
    /// Time has passed.
    Tick,
}

/// What a replica wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Connect to the primary, whoever that is now. Answered by [`Input::Connected`] or [`Input::Lost`].
    Dial {
        /// Names the attempt, and its connection.
        session: u64,
        /// Not to the one that the last attempt reached, where another is known: that one does not serve.
        elsewhere: bool,
    },
    /// Send this.
    Send(Message),
    /// Make durable that no primary of a lower epoch is followed, and the epochs of the log to come. Answered by
    /// [`Input::Promised`].
    Promise {
        /// The epochs.
        history: History,
    },
    /// Hand this to the log. Answered by [`Input::Accepted`] or [`Input::Rejected`], in order.
    Accept(Piece),
    /// Make durable what was accepted. Answered by [`Input::Synced`].
    Sync,
    /// Apply durable records up to this end. Answered by [`Input::Applied`].
    Apply {
        /// The end.
        to: Lsn,
    },
    /// So much may be shown. May be answered by [`Input::Shown`].
    Show {
        /// The end.
        limit: Lsn,
    },
    /// The primary did what the protocol does not allow.
    Violation(&'static str),
    /// Close the connection.
    Hang,
}

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// For the next attempt.
    Waiting {
        /// Until then.
        until: u64,
        /// What the primary said, if it said anything.
        why: Option<Why>,
    },
    /// A connection is being made.
    Dialling,
    /// The hello is on its way.
    Greeting,
    /// The promise is on its way to the disk.
    Promising,
    /// Pieces come.
    Following,
    /// The log has bytes that the primary's has not: it must be cut back.
    NeedsRewind {
        /// To this place.
        to: Lsn,
        /// The primary's epochs, of which the last must be promised.
        history: History,
    },
    /// The primary's log no longer has what is needed.
    NeedsImage {
        /// What it has.
        first: Lsn,
    },
    /// The disk, or the store, has failed: reopening decides.
    Broken,
    /// It was closed.
    Closed,
}
