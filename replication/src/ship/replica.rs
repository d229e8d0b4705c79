//! A replica.
//!
//! ```text
//!            retry()          Connected            Welcome             Promised
//! Waiting ──────────► Dialling ────────► Greeting ─────────► Promising ────────► Following
//!    ▲                   │                  │ welcome()          │      follow()     │
//!    └───────────────────┴──────────────────┴──────── leave() ───┴───────────────────┘
//!                                           │ refused()                              │ Rejected
//!                                           ▼                                        ▼
//!                            NeedsRewind · NeedsImage                             Broken
//! ```
//!
//! *Waiting* for the next attempt, longer after each failure. *Promising*: the primary's epoch is new, and the promise to
//! follow no lower one is being made durable; nothing is said meanwhile, so nothing is sent (R3). *Following*: pieces go to the
//! log by their places (R6), one sync after the other makes them durable, and only then is that said (R2). What is durable is
//! applied, once somebody would see it or waits for it, and when it is old enough ([`Settings::delay_us`]). What may be shown is what the primary shows, as far as
//! it is durable here (R5).
//!
//! The last row is where somebody else must act: cut the log back ([`State::NeedsRewind`]), copy an image
//! ([`State::NeedsImage`]), or see to the disk ([`State::Broken`]). A machine does not leave it.
//!
//! What it follows may be a replica, which says how far the primary is. One that has no way to a primary, and nothing new, is left
//! (R11): else two replicas could follow each other, and nobody the primary.
//!
//! A delayed replica needs no clock in common with its primary: each heartbeat says how old the primary's newest record then
//! was, and what was durable there then is at least that old, plus the time since, by the replica's own clock.

use crate::invariants::{self, ReplicaView};
use crate::message::{
    Awaited, EPOCH_LEAP_MAX, FEATURES, Features, Heartbeat, Hello, Marks, Message, Piece, StoreId, VERSION,
    VERSION_MIN, Welcome, Why,
};
use crate::mutation::Mutation;
use crate::timeline::{Relation, Tail};
use seawall_wal::Lsn;
use seawall_wal::runtime::Rng;

mod delay;
mod order;
mod said;
mod way;

use delay::Ages;
use order::Order;
use way::{Leaves, Way};

pub use said::{Effect, Input, Own, Rejected, Settings, State};

/// What nobody waits for is said after at most this, in microseconds: that readers here see more, and mostly what is received, or
/// applied.
const UNAWAITED_SAID_US: u64 = 10_000;
/// What nobody would see yet, nor waits for, is applied after at most this, in microseconds, or once there are so many bytes of it.
const UNSEEN_APPLIED_US: u64 = 10_000;
const UNSEEN_APPLIED_BYTES: u64 = 1 << 20;

/// A replica. See the module.
#[derive(Clone, Debug)]
pub struct Replica {
    settings: Settings,
    store_id: StoreId,
    state: State,
    own: Own,
    rng: Rng,
    session: u64,
    pause_us: u64,
    heard_at: u64,
    followed_at: u64,
    said_at: u64,
    /// The primary's epoch, from its welcome on.
    following: u64,
    welcome: Option<Welcome>,
    way: Way,
    /// Whether the last attempt reached one that does not serve.
    elsewhere: bool,
    /// How often in a row the log from here on was said to be gone.
    lacking: u32,
    order: Order,
    /// Pieces at the log that it has not answered for.
    accepting: u64,
    /// Places of their ends.
    ends: std::collections::VecDeque<Lsn>,
    taken: Lsn,
    marks: Marks,
    said: Option<Marks>,
    /// Which marks somebody waits for at the primary.
    awaited: Awaited,
    is_syncing: bool,
    /// Whether pieces were handed to the log that no sync stands behind.
    is_dirty: bool,
    is_applying: bool,
    /// Since when there is something to apply that nobody would see.
    unseen_since: Option<u64>,
    is_promising: bool,
    /// Whether the log has refused a piece as no continuation, and taken none since.
    has_diverged: bool,
    /// What its primary shows, and the highest end that may be shown here.
    shipped: Lsn,
    shown: Lsn,
    ages: Ages,
    beat: Option<Heartbeat>,
}

impl Replica {
    /// A replica that follows nobody yet.
    pub fn new(settings: Settings, store_id: StoreId, own: Own, now: u64) -> Replica {
        let rng = Rng::new(settings.seed);
        let pause_us = settings.pause_us.0;
        let ages = Ages::new(settings.delay_us);
        let mut replica = Replica {
            settings,
            store_id,
            state: State::Waiting { until: now, why: None },
            rng,
            session: 0,
            pause_us,
            heard_at: now,
            followed_at: now,
            said_at: now,
            following: 0,
            welcome: None,
            way: Way::default(),
            elsewhere: false,
            lacking: 0,
            order: Order::new(own.tail.place),
            accepting: 0,
            ends: std::collections::VecDeque::new(),
            taken: own.tail.place,
            marks: Marks::default(),
            said: None,
            awaited: Awaited::ALL,
            is_syncing: false,
            is_dirty: false,
            is_applying: false,
            unseen_since: None,
            is_promising: false,
            has_diverged: false,
            shipped: Lsn::ZERO,
            shown: Lsn::ZERO,
            ages,
            beat: None,
            own,
        };
        replica.begin_marks();
        replica
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The epoch of the primary that it follows, if it follows one.
    pub fn following(&self) -> Option<u64> {
        (self.state == State::Following).then_some(self.following)
    }

    /// How many hops away the primary is, for those that follow this one; none: it has no way to one.
    pub fn distance(&self) -> Option<u8> {
        self.way.distance().filter(|_| self.state == State::Following)
    }

    /// How far it is, as far as its log and store have said.
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// When the primary was heard of last.
    pub fn heard_at(&self) -> u64 {
        self.heard_at
    }

    /// The last sign of life of the primary that it follows, or followed last.
    pub fn beat(&self) -> Option<Heartbeat> {
        self.beat
    }

    /// For the simulation.
    pub fn view(&self) -> ReplicaView {
        ReplicaView {
            marks: self.said.unwrap_or(self.marks),
            synced: self.own.durable,
            promised: self.own.promised,
            following: self.following(),
            shown: self.shown,
            shipped: self.shipped,
            next: self.order.next(),
        }
    }

    /// When it wants a [`Input::Tick`].
    pub fn wake_at(&self) -> Option<u64> {
        let silence = self.heard_at.saturating_add(self.settings.timeout_us);
        // What is old enough is applied, whoever is there.
        let ripe = self.ages.ripe_at(self.marks.applied).filter(|_| !self.is_applying);
        let other = match &self.state {
            State::Waiting { until, .. } => (!self.is_busy()).then_some(*until),
            State::Greeting => Some(silence),
            State::Following => {
                let beat = self.said_at.saturating_add(self.says_after_us());
                let gap = self.order.gap_since().map(|at| at.saturating_add(self.settings.gap_us));
                let leaves = self.way.wake_at(self.settings.astray_us);
                [Some(beat), Some(silence), gap, leaves].into_iter().flatten().min()
            }
            State::Broken | State::Closed => return None,
            _ => None,
        };
        let unseen = self.unseen_since.map(|at| at.saturating_add(UNSEEN_APPLIED_US));
        [ripe, unseen, other].into_iter().flatten().min()
    }

    /// Takes an input, and says what follows.
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Effect> {
        let before = self.view();
        let mut out = Vec::new();
        match input {
            Input::Connected { session, own } if session == self.session => {
                self.connected(now, own, &mut out)
            }
            Input::Lost { session } if session == self.session => self.lost(now),
            Input::Message { session, message } if session == self.session => {
                self.hear(now, message, &mut out);
            }
            Input::Connected { .. } | Input::Lost { .. } | Input::Message { .. } | Input::Tick => {}
            Input::Promised => self.promised(&mut out),
            Input::Accepted { received } => self.accepted(received),
            Input::Rejected(rejected) => self.rejected(now, rejected, &mut out),
            Input::Synced { durable } => self.synced(durable),
            Input::Applied { applied, visible } => {
                self.is_applying = false;
                self.own.applied = self.own.applied.max(applied);
                self.own.visible = self.own.visible.max(visible);
            }
            Input::Shown { visible } => self.own.visible = self.own.visible.max(visible),
            Input::Fenced { epoch } => self.fenced(now, epoch, &mut out),
            Input::Outside { at } => self.stop(State::NeedsImage { first: at }, &mut out),
            Input::Failed => self.stop(State::Broken, &mut out),
            Input::Close => self.stop(State::Closed, &mut out),
        }
        self.time(now, &mut out);
        self.work(now, &mut out);
        if self.settings.mutation.is_none() {
            invariants::assert_holds(invariants::replica_step(&before, &self.view()));
        }
        out
    }

    fn makes(&self, mutation: Mutation) -> bool {
        self.settings.mutation == Some(mutation)
    }

    fn is_over(&self) -> bool {
        matches!(
            self.state,
            State::NeedsRewind { .. } | State::NeedsImage { .. } | State::Broken | State::Closed
        )
    }

    /// Whether the log, or the anchor, still has something to answer for.
    fn is_busy(&self) -> bool {
        self.accepting > 0 || self.is_syncing || self.is_promising
    }

    fn stop(&mut self, state: State, out: &mut Vec<Effect>) {
        if self.is_over() {
            return;
        }
        if matches!(self.state, State::Greeting | State::Promising | State::Following) {
            out.push(Effect::Send(Message::Bye));
            out.push(Effect::Hang);
        } else if self.state == State::Dialling {
            out.push(Effect::Hang);
        }
        self.state = state;
    }

    /// Ends the connection, if there is one, and waits for the next.
    fn leave(&mut self, now: u64, why: Option<Why>, out: &mut Vec<Effect>) {
        if self.is_over() {
            return;
        }
        out.push(Effect::Hang);
        self.wait(now, why);
    }

    fn lost(&mut self, now: u64) {
        if !self.is_over() && !matches!(self.state, State::Waiting { .. }) {
            self.wait(now, None);
            // It may be back at once, at the same place.
            self.elsewhere = false;
        }
    }

    fn wait(&mut self, now: u64, why: Option<Why>) {
        if self.state == State::Following {
            self.way.left(self.way.leaves(now, self.settings.astray_us));
        }
        let (first, most) = self.settings.pause_us;
        let pause = match &why {
            // Nothing that changes by itself.
            Some(Why::ForeignStore | Why::Version | Why::SlotMissing) => most,
            _ => self.pause_us,
        };
        self.pause_us = self.pause_us.saturating_mul(2).clamp(first, most.max(first));
        // Between half of it and the whole: not all at once.
        let until = now.saturating_add(pause / 2 + self.rng.below(pause / 2 + 1));
        self.session += 1;
        self.state = State::Waiting { until, why };
        self.welcome = None;
        self.elsewhere = true;
    }

    fn violation(&mut self, now: u64, what: &'static str, out: &mut Vec<Effect>) {
        out.push(Effect::Violation(what));
        self.leave(now, None, out);
    }

    fn connected(&mut self, now: u64, own: Own, out: &mut Vec<Effect>) {
        if self.state != State::Dialling {
            return;
        }
        self.own = Own {
            promised: own.promised.max(self.own.promised),
            durable: own.durable.max(self.own.durable),
            ..own
        };
        self.taken = self.own.tail.place;
        self.order = Order::new(self.taken);
        self.shipped = Lsn::ZERO;
        self.said = None;
        self.begin_marks();
        let hello = Hello {
            version: VERSION,
            version_min: VERSION_MIN,
            features: FEATURES,
            store_id: self.store_id,
            name: self.settings.name.clone(),
            tail: self.own.tail,
            history: self.own.history.known(self.own.tail),
            promised: self.own.promised,
            slot: self.settings.slot.clone(),
        };
        out.push(Effect::Send(Message::Hello(hello)));
        (self.state, self.heard_at, self.said_at) = (State::Greeting, now, now);
    }

    /// A log that begins within its first segment has places before its first record: marks are what is really there (R1).
    fn begin_marks(&mut self) {
        self.own.tail.whole_end = self.own.tail.whole_end.min(self.own.tail.place);
        self.marks.received = self.own.tail.whole_end;
        self.update_marks();
    }

    fn update_marks(&mut self) {
        let own = &self.own;
        let durable = own.durable.min(self.marks.received);
        let applied = own.applied.min(durable);
        self.marks = Marks {
            received: self.marks.received,
            durable,
            applied,
            visible: own.visible.min(applied),
            taken: self.taken,
            credit: self.settings.window_bytes,
        };
        if self.makes(Mutation::AckUnsynced) {
            self.marks.durable = self.marks.received;
        }
    }

    fn hear(&mut self, now: u64, message: Message, out: &mut Vec<Effect>) {
        if !matches!(self.state, State::Greeting | State::Promising | State::Following) {
            return;
        }
        self.heard_at = self.heard_at.max(now);
        match message {
            Message::Welcome(welcome) if self.state == State::Greeting => self.welcome(now, welcome, out),
            // Repeated on the way.
            Message::Welcome(_) => {}
            Message::Refuse(why) => self.refused(now, why, out),
            Message::Piece(piece) if self.state == State::Following => self.piece(now, piece, out),
            Message::Heartbeat(beat) if self.state == State::Following => self.heartbeat(now, beat, out),
            Message::Distance(hops) if self.state != State::Greeting => {
                self.way.heard(now, hops, self.settings.addresses);
            }
            // Overtook the welcome: it comes again.
            Message::Distance(_) => {}
            // Where it overtakes the welcome marks are said later than they could be, and no other harm is done.
            Message::Awaited(awaited) => self.awaited = awaited,
            // Overtook the welcome, or was sent in spite of R3: it comes again.
            Message::Piece(_) | Message::Heartbeat(_) => {}
            Message::Bye => self.leave(now, None, out),
            Message::Hello(_) | Message::Marks(_) => {
                self.violation(now, "a replica's word from a primary", out)
            }
        }
    }

    fn welcome(&mut self, now: u64, welcome: Welcome, out: &mut Vec<Effect>) {
        let epoch = welcome.history.epoch();
        if epoch < self.own.promised && !self.makes(Mutation::IgnoreFence) {
            let why = Why::Fenced { epoch: self.own.promised };
            out.push(Effect::Send(Message::Refuse(why.clone())));
            return self.leave(now, Some(why), out);
        }
        if epoch > self.own.promised.max(self.own.tail.epoch).saturating_add(EPOCH_LEAP_MAX) {
            return self.violation(now, "an epoch out of reach", out);
        }
        if !(VERSION_MIN..=VERSION).contains(&welcome.version) {
            out.push(Effect::Send(Message::Refuse(Why::Version)));
            return self.leave(now, Some(Why::Version), out);
        }
        if welcome.resume != self.own.tail.place {
            return self.violation(now, "a welcome to another place", out);
        }
        let relation = welcome.history.relation(&self.own.history, self.own.tail);
        if relation != Relation::Prefix && !self.makes(Mutation::IgnoreHistory) {
            return self.violation(now, "a welcome to a log that does not continue this one", out);
        }
        // The store may be ahead of its log, while that is being filled: of what the image has, nothing is gone in that history.
        let store = Tail { place: self.own.tail.place.max(self.own.applied), ..self.own.tail };
        if let Relation::Forked { at } = welcome.history.relation(&self.own.history, store)
            && !self.makes(Mutation::IgnoreHistory)
        {
            return self.stop(State::NeedsImage { first: at }, out);
        }
        let is_new = epoch > self.own.promised || welcome.history != self.own.history;
        self.following = epoch;
        self.awaited = match welcome.features & Features::AWAITED {
            0 => Awaited::ALL,
            _ => Awaited::default(),
        };
        self.way.begin();
        if is_new {
            out.push(Effect::Promise { history: welcome.history.clone() });
            self.is_promising = true;
            self.state = State::Promising;
            self.welcome = Some(welcome);
            if self.makes(Mutation::PromiseLate) {
                self.follow(out);
            }
        } else {
            self.welcome = Some(welcome);
            self.follow(out);
        }
    }

    /// R3.
    fn promised(&mut self, out: &mut Vec<Effect>) {
        self.is_promising = false;
        if self.state == State::Promising
            && let Some(welcome) = &self.welcome
        {
            self.own.promised = self.own.promised.max(welcome.history.epoch());
            self.own.history = welcome.history.clone();
            self.follow(out);
        }
    }

    /// R4, by another's word: the session with an older primary ends.
    fn fenced(&mut self, now: u64, epoch: u64, out: &mut Vec<Effect>) {
        self.own.promised = self.own.promised.max(epoch);
        // Soon somebody is the primary.
        self.pause_us = self.settings.pause_us.0;
        self.way.search_anew();
        if let State::Waiting { until, .. } = &mut self.state {
            *until = (*until).min(now.saturating_add(self.pause_us));
        }
        let is_older = match self.state {
            State::Following => self.following < epoch,
            State::Greeting | State::Promising => true,
            _ => false,
        };
        if is_older {
            let why = Why::Fenced { epoch: self.own.promised };
            out.push(Effect::Send(Message::Refuse(why.clone())));
            self.leave(now, Some(why), out);
        }
    }

    fn follow(&mut self, out: &mut Vec<Effect>) {
        let Some(welcome) = self.welcome.take() else { return };
        (self.state, self.followed_at) = (State::Following, self.heard_at);
        self.shipped = welcome.visible;
        self.lacking = 0;
        self.show(out);
        self.said = None;
    }

    /// One lacks the log from here on: whether there is another to ask, before that is believed of all.
    fn is_had_elsewhere(&mut self) -> bool {
        self.lacking = self.lacking.saturating_add(1);
        self.lacking < self.settings.addresses
    }

    /// R4: a primary that is itself behind may not have this one's log cut.
    fn refused(&mut self, now: u64, why: Why, out: &mut Vec<Effect>) {
        match why {
            Why::Diverged { history, .. } if history.epoch() < self.own.promised => {
                let why = Why::Fenced { epoch: self.own.promised };
                out.push(Effect::Send(Message::Refuse(why.clone())));
                self.leave(now, Some(why), out);
            }
            Why::Diverged { fork, history } if self.state == State::Greeting => {
                let to = match history.relation(&self.own.history, self.own.tail) {
                    Relation::Prefix => fork,
                    Relation::Forked { at } => at.min(fork),
                    Relation::Unrelated => return self.stop(State::NeedsImage { first: fork }, out),
                };
                if to >= self.own.tail.place {
                    return self.violation(now, "told to cut the log behind its end", out);
                }
                self.stop(State::NeedsRewind { to, history }, out);
            }
            Why::LogGone { .. } | Why::SlotMissing if self.is_had_elsewhere() => self.leave(now, None, out),
            Why::LogGone { first } if self.state == State::Greeting => {
                self.stop(State::NeedsImage { first }, out);
            }
            why => self.leave(now, Some(why), out),
        }
    }

    /// R6.
    fn piece(&mut self, now: u64, piece: Piece, out: &mut Vec<Effect>) {
        if piece.after.0.saturating_sub(self.taken.0) >= u64::from(self.settings.window_bytes.max(1)) {
            return self.violation(now, "a piece that there is no room for", out);
        }
        self.way.moved(now);
        let ready = if self.makes(Mutation::IgnoreGaps) {
            vec![piece]
        } else {
            // As much again as there is room for may come out of order.
            let room = 2 * u64::from(self.settings.window_bytes) + 2 * Piece::BYTES_MAX as u64;
            match self.order.take(now, piece, room) {
                Ok(ready) => ready,
                Err(what) => return self.violation(now, what, out),
            }
        };
        for piece in ready {
            self.accepting += 1;
            self.ends.push_back(piece.end());
            // What makes it durable is asked for at once: the log does one after the other.
            self.is_dirty = true;
            out.push(Effect::Accept(piece));
        }
    }

    fn heartbeat(&mut self, now: u64, beat: Heartbeat, out: &mut Vec<Effect>) {
        self.beat = Some(beat);
        self.shipped = self.shipped.max(beat.visible);
        self.ages.heard(now, beat);
        if now.saturating_sub(self.followed_at) >= self.settings.timeout_us {
            self.pause_us = self.settings.pause_us.0;
        }
        self.show(out);
        if self.order.misses(beat.sent) {
            // A piece was lost, and none behind it has come to tell.
            self.leave(now, None, out);
        }
    }

    fn accepted(&mut self, received: Lsn) {
        self.accepting = self.accepting.saturating_sub(1);
        if let Some(end) = self.ends.pop_front() {
            self.taken = self.taken.max(end);
        }
        self.has_diverged = false;
        // Only now it is known to lead on.
        self.pause_us = self.settings.pause_us.0;
        self.marks.received = self.marks.received.max(received.min(self.taken));
    }

    fn rejected(&mut self, now: u64, rejected: Rejected, out: &mut Vec<Effect>) {
        // Those behind it do not chain to it, and are rejected too.
        self.accepting = self.accepting.saturating_sub(1);
        self.ends.pop_front();
        match rejected {
            Rejected::Failed => self.stop(State::Broken, out),
            Rejected::Damaged | Rejected::Diverged { .. } if self.state != State::Following => {}
            Rejected::Damaged => self.violation(now, "a piece that is damaged", out),
            // The next hello says where the log ends, by its last frame's checksum, and should be answered by the fork.
            Rejected::Diverged { at } if std::mem::replace(&mut self.has_diverged, true) => {
                self.stop(State::NeedsImage { first: at }, out);
            }
            Rejected::Diverged { .. } => self.violation(now, "a piece that does not continue the log", out),
        }
    }

    /// R2.
    fn synced(&mut self, durable: Lsn) {
        self.is_syncing = false;
        self.own.durable = self.own.durable.max(durable);
    }

    /// R5.
    fn show(&mut self, out: &mut Vec<Effect>) {
        let limit = if self.makes(Mutation::ShowUnshipped) {
            self.own.durable
        } else if self.makes(Mutation::ShowAhead) {
            self.shipped
        } else {
            self.shipped.min(self.own.durable)
        };
        if limit > self.shown && self.state == State::Following {
            self.shown = limit;
            out.push(Effect::Show { limit });
        }
    }

    fn time(&mut self, now: u64, out: &mut Vec<Effect>) {
        let is_silent = now.saturating_sub(self.heard_at) >= self.settings.timeout_us;
        let is_torn = self.order.gap_since().is_some_and(|at| now.saturating_sub(at) >= self.settings.gap_us);
        let leaves = self.way.leaves(now, self.settings.astray_us);
        match &self.state {
            State::Greeting | State::Following if is_silent => self.leave(now, None, out),
            State::Following if is_torn => self.leave(now, None, out),
            State::Following if leaves.is_some() => {
                let why = (leaves == Some(Leaves::Astray)).then_some(Why::NotServing);
                self.leave(now, why, out);
            }
            State::Waiting { until, .. } if now >= *until && !self.is_busy() => {
                self.state = State::Dialling;
                out.push(Effect::Dial { session: self.session, elsewhere: self.elsewhere });
            }
            _ => {}
        }
    }

    /// How long after it has last said its marks it says them again.
    fn says_after_us(&self) -> u64 {
        match self.said {
            None => 0,
            Some(said) if said == self.marks => self.settings.heartbeat_us,
            Some(said) if self.is_awaited(said) => 0,
            Some(_) => self.settings.heartbeat_us.min(UNAWAITED_SAID_US),
        }
    }

    /// Whether anybody waits for what has come since that was said: a commit, or whoever sends, for room.
    fn is_awaited(&self, said: Marks) -> bool {
        let Marks { received, durable, applied, taken, credit, .. } = self.marks;
        let is_received = (received, taken) != (said.received, said.taken);
        let is_room = taken.0.saturating_sub(said.taken.0) >= u64::from(credit) / 4;
        durable != said.durable
            || is_received && (self.awaited.received || is_room)
            || applied != said.applied && self.awaited.applied
    }

    /// Whether somebody would see it, or waits for it, or it has waited for others of its kind long enough: a thread woken for each
    /// commit would cost more than they do.
    fn is_applied_now(&mut self, now: u64, to: Lsn) -> bool {
        let applied = self.own.applied;
        let since = *self.unseen_since.get_or_insert(now);
        self.awaited.applied
            || self.shipped > applied
            || to.0.saturating_sub(applied.0) >= UNSEEN_APPLIED_BYTES
            || now.saturating_sub(since) >= UNSEEN_APPLIED_US
    }

    /// What can go on, goes on; and what is new is said.
    fn work(&mut self, now: u64, out: &mut Vec<Effect>) {
        if matches!(self.state, State::Broken | State::Closed) {
            return;
        }
        if self.is_dirty && !self.is_syncing {
            (self.is_dirty, self.is_syncing) = (false, true);
            out.push(Effect::Sync);
        }
        self.update_marks();
        self.show(out);
        let to = self.ages.ripe(now).min(self.marks.durable);
        if to <= self.own.applied {
            self.unseen_since = None;
        } else if !self.is_applying && self.is_applied_now(now, to) {
            (self.is_applying, self.unseen_since) = (true, None);
            out.push(Effect::Apply { to });
        }
        let is_due = now.saturating_sub(self.said_at) >= self.says_after_us();
        if self.state == State::Following && is_due {
            (self.said, self.said_at) = (Some(self.marks), now);
            out.push(Effect::Send(Message::Marks(self.marks)));
        }
    }
}
