//! A primary's session with one replica.
//!
//! ```text
//!              Hello            Opened(Ready)
//! Listening ─────────► Opening ───────────────► Shipping ───► Over
//!     │ hear()            │ opened()               │ marks(), read(), pump()
//!     └───────────────────┴── refuse(), end() ─────┴───────────────▲
//! ```
//!
//! *Listening* ends with a hello that passes every check (`hear`), *Opening* with the log pinned where the replica's ends
//! (`opened`). *Shipping* reads ahead of what is sent, and sends as far as the replica has said that there is room; it goes on
//! only once the first marks are there, which a replica sends when its promise is durable (R3). Where the log goes on in another
//! epoch, be it that this store is promoted or the one that it follows, the session ends, for the replica is to promise that epoch
//! first. Nothing heard for [`Settings::timeout_us`] is the end: a connection that one side has forgotten looks like silence.

use crate::invariants::{self, PrimaryView};
use crate::message::{
    Awaited, Compression, EPOCH_LEAP_MAX, FEATURES, Features, Heartbeat, Hello, Marks, Message, Name, Piece,
    StoreId, VERSION, VERSION_MIN, Welcome, Why,
};
use crate::mutation::Mutation;
use crate::timeline::{History, Relation, Tail};
use seawall_wal::Lsn;
use std::collections::VecDeque;

/// How a session behaves. Times are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A sign of life every so often.
    pub heartbeat_us: u64,
    /// What is newly visible is told after at most this.
    pub visible_us: u64,
    /// Silence for so long ends the session.
    pub timeout_us: u64,
    /// Bytes that one read asks for.
    pub read_bytes: usize,
    /// Bytes that are read before they can be sent.
    pub ahead_bytes: u64,
    /// Bytes that may be on their way, whatever room the replica has.
    pub window_bytes_max: u64,
    /// How pieces are compressed where both sides can; by LZ4 if the other side has no Zstandard.
    pub compression: Compression,
    /// A mistake to make on purpose.
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            heartbeat_us: 500_000,
            visible_us: 1_000,
            timeout_us: 5_000_000,
            read_bytes: 1 << 20,
            ahead_bytes: 4 << 20,
            window_bytes_max: 64 << 20,
            compression: Compression::None,
            mutation: None,
        }
    }
}

/// What the primary's log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Whose log it is.
    pub store_id: StoreId,
    /// Its epochs; the last is the one that it writes in.
    pub history: History,
    /// The highest epoch that it has heard of: above its own, it is fenced.
    pub promised: u64,
}

/// How far the primary is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it shows.
    pub visible: Lsn,
    /// What its device has.
    pub durable: Lsn,
    /// When the last record below `durable` was committed, in microseconds since 1970.
    pub time_us: u64,
    /// What the same clock says now.
    pub now_us: u64,
    /// The newest epoch that its log knows the beginning of.
    pub epoch: u64,
}

/// What came of opening the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is pinned from the place on, and the frame before it is the replica's last.
    Ready,
    /// Another frame stands there.
    Differs {
        /// Up to here both are known to hold the same.
        fork: Lsn,
    },
    /// The log ends before it, for now: a replica that ships its log on is behind the one that asks.
    Behind,
    /// It begins later.
    Gone {
        /// Where.
        first: Lsn,
    },
    /// There is no such slot, or it has lost its log.
    SlotMissing,
    /// Somebody else has that name or slot.
    Busy,
    /// Something failed here.
    Failed,
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// From the replica.
    Message(Message),
    /// In answer to [`Effect::Open`].
    Opened(Opened),
    /// In answer to [`Effect::Read`]: what there is, one behind the other. None: there was nothing for a while.
    Pieces(Vec<Piece>),
    /// In answer to [`Effect::Read`]: there will be no more.
    Ended,
    /// The primary has come so far.
    Moved(Progress),
    /// So far is the primary from here; none: no way leads to one. None is said: this is the primary.
    Distance(Option<u8>),
    /// Commits wait for these marks.
    Awaited(Awaited),
    /// A higher epoch was heard of, by another session or by a person.
    Fenced {
        /// That epoch.
        epoch: u64,
    },
    /// The connection is gone.
    Lost,
    /// The primary closes.
    Close,
    /// Time has passed.
    Tick,
}

/// What a session wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Send this.
    Send(Message),
    /// Pin the log, and the slot if one is named, and hold the frame before the tail's place against its checksum. Answered by
    /// [`Input::Opened`].
    Open {
        /// Who follows.
        name: Name,
        /// What keeps the log for it while it is away.
        slot: Option<Name>,
        /// From where.
        tail: Tail,
    },
    /// Read the log on. Answered by [`Input::Pieces`] or [`Input::Ended`].
    Read {
        /// The place behind what was read.
        from: Lsn,
        /// About so many bytes.
        bytes_max: usize,
    },
    /// The replica has come so far: for whoever counts acknowledgements, and for its slot.
    Acked(Marks),
    /// Take no more writes: there is a primary of a higher epoch. To be durable before the next effect.
    Fence {
        /// That epoch.
        epoch: u64,
        /// Whether it may have been promised to nobody yet: else [`Why::Busy`] is the answer, and the end.
        is_claim: bool,
    },
    /// The replica did what the protocol does not allow.
    Violation(&'static str),
    /// Close the connection, unpin the log. Nothing follows.
    Close,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Listening,
    Opening(Box<Hello>),
    Shipping(Box<Shipping>),
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Shipping {
    /// Read, and not sent.
    queue: VecDeque<Piece>,
    queued: u64,
    is_reading: bool,
    /// Whether there is more to read, as far as is known.
    read: Lsn,
    sent: Lsn,
    last: u64,
    marks: Marks,
    /// What was told of the primary.
    told: Lsn,
    compression: Compression,
    /// Whether the replica is told what is waited for.
    tells_awaited: bool,
}

/// A session. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    settings: Settings,
    own: Own,
    state: State,
    progress: Progress,
    distance: Option<u8>,
    awaited: Awaited,
    heard_at: u64,
    beat_at: u64,
}

impl Primary {
    /// A connection has been made, and nothing was said.
    pub fn new(settings: Settings, own: Own, now: u64) -> Primary {
        Primary {
            settings,
            own,
            state: State::Listening,
            progress: Progress::default(),
            distance: Some(0),
            awaited: Awaited::default(),
            heard_at: now,
            beat_at: now,
        }
    }

    /// Whether it has asked for its connection to be closed.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The marks that are believed, and what was sent; none before anything is shipped.
    pub fn view(&self) -> Option<PrimaryView> {
        match &self.state {
            State::Shipping(to) => {
                Some(PrimaryView { marks: to.marks, sent: to.sent, read: to.read, last: to.last })
            }
            _ => None,
        }
    }

    /// When the replica was heard of last.
    pub fn heard_at(&self) -> u64 {
        self.heard_at
    }

    /// Whether something is visible that the replica was not told of.
    pub fn has_news(&self) -> bool {
        matches!(&self.state, State::Shipping(to) if self.progress.visible > to.told)
    }

    /// When it wants a [`Input::Tick`].
    pub fn wake_at(&self) -> Option<u64> {
        let silence = self.heard_at.saturating_add(self.settings.timeout_us);
        match &self.state {
            State::Listening => Some(silence),
            State::Opening(_) | State::Over => None,
            State::Shipping(_) => {
                let soon =
                    if self.has_news() { self.settings.visible_us } else { self.settings.heartbeat_us };
                Some(silence.min(self.beat_at.saturating_add(soon)))
            }
        }
    }

    /// Takes an input, and says what follows.
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        let before = self.view();
        let mut out = Vec::new();
        match input {
            _ if self.is_over() => return out,
            Input::Message(message) => self.hear(now, message, &mut out),
            Input::Opened(opened) => self.opened(now, opened, &mut out),
            Input::Pieces(pieces) => self.read(pieces, &mut out),
            Input::Ended => self.end(true, &mut out),
            Input::Moved(progress) => self.moved(progress, &mut out),
            Input::Distance(hops) => self.way(hops, &mut out),
            Input::Awaited(awaited) => self.awaits(awaited, &mut out),
            Input::Fenced { epoch } if epoch > self.own.history.epoch() => {
                out.push(Effect::Send(Message::Refuse(Why::NotServing)));
                self.end(false, &mut out);
            }
            Input::Fenced { .. } | Input::Tick => {}
            Input::Lost => self.end(false, &mut out),
            Input::Close => self.end(true, &mut out),
        }
        self.pump(now, &mut out);
        if let (Some(before), Some(after)) = (before, self.view())
            && self.settings.mutation.is_none()
        {
            invariants::assert_holds(invariants::primary_step(&before, &after));
        }
        out
    }

    fn makes(&self, mutation: Mutation) -> bool {
        self.settings.mutation == Some(mutation)
    }

    fn end(&mut self, says_bye: bool, out: &mut Vec<Effect>) {
        if says_bye {
            out.push(Effect::Send(Message::Bye));
        }
        out.push(Effect::Close);
        self.state = State::Over;
    }

    fn refuse(&mut self, why: Why, out: &mut Vec<Effect>) {
        out.push(Effect::Send(Message::Refuse(why)));
        self.end(false, out);
    }

    fn violation(&mut self, what: &'static str, out: &mut Vec<Effect>) {
        out.push(Effect::Violation(what));
        self.end(false, out);
    }

    /// R4: first of all it takes no more writes.
    fn fence(&mut self, epoch: u64, is_claim: bool, out: &mut Vec<Effect>) {
        let known = self.own.promised.max(self.own.history.epoch());
        if epoch > known.saturating_add(EPOCH_LEAP_MAX) {
            return self.violation("an epoch out of reach", out);
        }
        self.own.promised = self.own.promised.max(epoch);
        out.push(Effect::Fence { epoch, is_claim });
        self.refuse(Why::Fenced { epoch }, out);
    }

    fn hear(&mut self, now: u64, message: Message, out: &mut Vec<Effect>) {
        self.heard_at = self.heard_at.max(now);
        match message {
            Message::Hello(hello) if self.state == State::Listening => self.hello(hello, out),
            // Repeated on the way, or overtaken.
            Message::Hello(_) => {}
            Message::Marks(marks) => self.marks(marks, out),
            Message::Refuse(Why::Fenced { epoch })
                if epoch > self.own.history.epoch() && !self.makes(Mutation::IgnoreFence) =>
            {
                self.fence(epoch, false, out);
            }
            Message::Refuse(_) | Message::Bye => self.end(false, out),
            Message::Welcome(_)
            | Message::Piece(_)
            | Message::Heartbeat(_)
            | Message::Distance(_)
            | Message::Awaited(_) => {
                self.violation("a primary's word from a replica", out);
            }
        }
    }

    fn hello(&mut self, hello: Hello, out: &mut Vec<Effect>) {
        let own = self.own.history.epoch();
        if hello.version < VERSION_MIN || hello.version_min > VERSION {
            return self.refuse(Why::Version, out);
        }
        if hello.store_id != self.own.store_id {
            return self.refuse(Why::ForeignStore, out);
        }
        let known = hello.promised.max(hello.tail.epoch);
        if known > own && !self.makes(Mutation::IgnoreFence) {
            return self.fence(known, hello.features & Features::CLAIM != 0, out);
        }
        if self.own.promised > own && !self.makes(Mutation::IgnoreFence) {
            return self.refuse(Why::Fenced { epoch: self.own.promised }, out);
        }
        let history = self.own.history.clone();
        if hello.features & Features::ASK != 0 {
            return self.refuse(Why::Diverged { fork: hello.tail.place, history }, out);
        }
        let relation = self.own.history.relation(&hello.history, hello.tail);
        match relation {
            Relation::Forked { at } if !self.makes(Mutation::IgnoreHistory) => {
                return self.refuse(Why::Diverged { fork: at, history }, out);
            }
            Relation::Unrelated if !self.makes(Mutation::IgnoreHistory) => {
                let first = history.turns().first().map_or(Lsn::ZERO, |turn| turn.start);
                return self.refuse(Why::LogGone { first }, out);
            }
            _ => {}
        }
        let (name, slot, tail) = (hello.name.clone(), hello.slot.clone(), hello.tail);
        self.state = State::Opening(Box::new(hello));
        out.push(Effect::Open { name, slot, tail });
    }

    fn opened(&mut self, now: u64, opened: Opened, out: &mut Vec<Effect>) {
        let State::Opening(hello) = &self.state else { return };
        let history = self.own.history.clone();
        match opened {
            Opened::Ready => {}
            Opened::Differs { fork } => return self.refuse(Why::Diverged { fork, history }, out),
            Opened::Behind => return self.refuse(Why::NotServing, out),
            Opened::Gone { first } => return self.refuse(Why::LogGone { first }, out),
            Opened::SlotMissing => return self.refuse(Why::SlotMissing, out),
            Opened::Busy => return self.refuse(Why::Busy, out),
            Opened::Failed => return self.refuse(Why::NotServing, out),
        }
        let features = hello.features & FEATURES;
        let resume = hello.tail.place;
        let version = hello.version.min(VERSION);
        let visible = self.progress.visible;
        out.push(Effect::Send(Message::Welcome(Welcome { version, features, history, resume, visible })));
        if self.distance != Some(0) {
            out.push(Effect::Send(Message::Distance(self.distance)));
        }
        let tells_awaited = features & Features::AWAITED != 0;
        if tells_awaited && self.awaited != Awaited::default() {
            out.push(Effect::Send(Message::Awaited(self.awaited)));
        }
        self.state = State::Shipping(Box::new(Shipping {
            queue: VecDeque::new(),
            queued: 0,
            is_reading: false,
            read: resume,
            sent: resume,
            last: 0,
            marks: Marks::default(),
            told: visible,
            compression: self.settings.compression.taken_by(features),
            tells_awaited,
        }));
        (self.heard_at, self.beat_at) = (self.heard_at.max(now), now);
    }

    /// R8.
    fn marks(&mut self, marks: Marks, out: &mut Vec<Effect>) {
        let believes = self.makes(Mutation::BelieveMarks);
        let State::Shipping(to) = &mut self.state else {
            return self.violation("marks before a welcome", out);
        };
        let old = to.marks;
        let is_late = marks.received < old.received
            || marks.durable < old.durable
            || marks.applied < old.applied
            || marks.visible < old.visible
            || marks.taken < old.taken;
        if believes {
            to.marks = marks;
            out.push(Effect::Acked(marks));
        } else if !marks.are_ordered() || marks.taken > to.sent {
            self.violation("marks beyond what was sent", out);
        } else if !is_late && marks != old {
            to.marks = marks;
            out.push(Effect::Acked(marks));
        }
    }

    fn read(&mut self, pieces: Vec<Piece>, out: &mut Vec<Effect>) {
        let State::Shipping(to) = &mut self.state else { return };
        to.is_reading = false;
        for piece in pieces {
            let follows = piece.after == to.read && piece.at >= to.read;
            if !follows || piece.length == 0 || piece.length as usize > Piece::BYTES_MAX {
                return self.violation("the log was read out of order", out);
            }
            to.read = piece.end();
            to.queued += u64::from(piece.length);
            to.queue.push_back(piece);
        }
    }

    fn moved(&mut self, progress: Progress, out: &mut Vec<Effect>) {
        // R3: the log goes on in an epoch that no welcome of this session told of.
        if progress.epoch > self.own.history.epoch() {
            return self.end(true, out);
        }
        let old = self.progress;
        self.progress = Progress {
            visible: old.visible.max(progress.visible),
            durable: old.durable.max(progress.durable),
            time_us: old.time_us.max(progress.time_us),
            now_us: progress.now_us,
            epoch: old.epoch.max(progress.epoch),
        };
    }

    /// R11.
    fn way(&mut self, hops: Option<u8>, out: &mut Vec<Effect>) {
        let is_new = std::mem::replace(&mut self.distance, hops) != hops;
        if is_new && matches!(self.state, State::Shipping(_)) {
            out.push(Effect::Send(Message::Distance(hops)));
        }
    }

    fn awaits(&mut self, awaited: Awaited, out: &mut Vec<Effect>) {
        let is_new = std::mem::replace(&mut self.awaited, awaited) != awaited;
        if is_new && matches!(&self.state, State::Shipping(to) if to.tells_awaited) {
            out.push(Effect::Send(Message::Awaited(awaited)));
        }
    }

    /// What can go on, goes on.
    fn pump(&mut self, now: u64, out: &mut Vec<Effect>) {
        if self.is_over() {
            return;
        }
        let is_local = matches!(self.state, State::Opening(_));
        if !is_local && now.saturating_sub(self.heard_at) >= self.settings.timeout_us {
            return self.end(true, out);
        }
        let Settings { window_bytes_max, ahead_bytes, read_bytes, heartbeat_us, visible_us, .. } =
            self.settings;
        let State::Shipping(to) = &mut self.state else { return };
        let window = u64::from(to.marks.credit).min(window_bytes_max);
        while to.sent.0.saturating_sub(to.marks.taken.0) < window
            && let Some(piece) = to.queue.pop_front()
        {
            to.queued -= u64::from(piece.length);
            (to.sent, to.last) = (piece.end(), u64::from(piece.length));
            out.push(Effect::Send(Message::Piece(piece.compressed(to.compression))));
        }
        // Before the first marks, its promise may not be durable yet.
        if !to.is_reading && to.queued < ahead_bytes && to.marks.credit > 0 {
            to.is_reading = true;
            out.push(Effect::Read { from: to.read, bytes_max: read_bytes });
        }
        let since = now.saturating_sub(self.beat_at);
        let is_news = self.progress.visible > to.told;
        if since >= heartbeat_us || is_news && since >= visible_us {
            let Progress { visible, durable, time_us, now_us, .. } = self.progress;
            to.told = to.told.max(visible);
            self.beat_at = now;
            let beat = Heartbeat { visible, durable, sent: to.sent, time_us, now_us };
            if since >= heartbeat_us && self.distance != Some(0) {
                out.push(Effect::Send(Message::Distance(self.distance)));
            }
            out.push(Effect::Send(Message::Heartbeat(beat)));
        }
    }
}
