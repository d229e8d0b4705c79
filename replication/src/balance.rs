//! Who is asked for a read: a router for clients, over a primary and its replicas. Pure: time and chance come in.
//!
//! A [`Need`] says what the answer must be good for, a [`Session`] carries what its client has seen and written, and the
//! [`Router`] chooses among [`Target`]s: stores in this process or clients of others, it is the same.
//!
//! | the client wants | said by | met by |
//! |---|---|---|
//! | to read what it wrote | [`Session::wrote`] | a target that shows that LSN, or can be waited for |
//! | never to go back in time | [`Session::saw`] | the same |
//! | at most so old | [`Need::stale_us_max`] | targets that say so of themselves |
//! | one answer, a majority's, all, or the primary's | [`Need::consistency`] | so many targets; the primary only under its lease |
//!
//! A target that fails is left out, for longer each time, and then tried by one request at a time until one succeeds. Among
//! those that are left the [`Strategy`] chooses; two random choices by load come near the best with little knowledge
//! (Mitzenmacher, *The power of two choices in randomized load balancing*, 2001).

use seawall_wal::Lsn;
use seawall_wal::runtime::Rng;
use std::sync::Arc;

mod health;

use health::Health;

/// Something that can be read from.
pub trait Target: Send + Sync {
    /// What it is called; no two share a name.
    fn name(&self) -> &str;

    /// What it shows, as far as is known here.
    fn visible(&self) -> Lsn;

    /// How old what it shows may be, in microseconds: 0 on a primary.
    fn stale_us(&self) -> u64;

    /// Until when it is the primary, by the router's clock, whatever happens: the end of its lease. None for a replica.
    fn lease_until(&self) -> Option<u64>;

    /// Whether it says that it can serve.
    fn is_healthy(&self) -> bool {
        true
    }

    /// Its share of requests under [`Strategy::Weighted`].
    fn weight(&self) -> u32 {
        1
    }
}

/// How many must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consistency {
    /// Any one.
    One,
    /// More than half of all targets, healthy or not.
    Quorum,
    /// Every one.
    All,
    /// The primary, while its lease lasts: what it says nobody can have made untrue.
    Primary,
}

impl Consistency {
    /// By its name: `one`, `quorum`, `all` or `primary`.
    pub fn by_name(name: &str) -> Option<Consistency> {
        match name {
            "one" => Some(Consistency::One),
            "quorum" => Some(Consistency::Quorum),
            "all" => Some(Consistency::All),
            "primary" => Some(Consistency::Primary),
            _ => None,
        }
    }
}

/// What an answer must be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// How many must answer.
    pub consistency: Consistency,
    /// Whoever answers must show at least this.
    pub at_least: Lsn,
    /// And be at most so old, in microseconds.
    pub stale_us_max: Option<u64>,
    /// Whether a target that does not show `at_least` yet may be waited for, where no other is left.
    pub may_wait: bool,
}

impl Need {
    /// Any one's answer, whatever it shows.
    pub fn any() -> Need {
        Need { consistency: Consistency::One, at_least: Lsn::ZERO, stale_us_max: None, may_wait: true }
    }
}

/// What a client has seen and written: with it, it reads its own writes, and never goes back.
///
/// ```
/// use seawall_replication::balance::{Need, Session};
/// use seawall_wal::Lsn;
/// let mut session = Session::default();
/// session.wrote(Lsn(800));
/// session.saw(Lsn(500));
/// assert_eq!(session.need(Need::any()).at_least, Lsn(800));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    floor: Lsn,
}

impl Session {
    /// A commit of its own ended here.
    pub fn wrote(&mut self, end: Lsn) {
        self.floor = self.floor.max(end);
    }

    /// An answer was as of this.
    pub fn saw(&mut self, visible: Lsn) {
        self.floor = self.floor.max(visible);
    }

    /// A need, raised to what the client has seen and written.
    pub fn need(&self, need: Need) -> Need {
        Need { at_least: need.at_least.max(self.floor), ..need }
    }
}

/// How one is chosen among those that will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// By chance.
    Random,
    /// In turn.
    RoundRobin,
    /// By chance, in proportion to [`Target::weight`].
    Weighted,
    /// The better of two by chance: by what is on its way to each and how long it takes, then by how old it is.
    TwoChoices,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All of these, places in the router's list. Each must be [reported](Router::report).
    Ask(Vec<usize>),
    /// These, once they show what is needed: wait for that there, then ask. Each must be reported.
    Wait(Vec<usize>),
    /// Nobody, and why.
    Nobody(Nobody),
}

/// Why there is nobody to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nobody {
    /// Too few that can serve.
    Unhealthy,
    /// All that can serve are too far behind, or too old.
    Behind,
    /// No primary whose lease lasts.
    NoPrimary,
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It was answered, after so long.
    Answered {
        /// In microseconds.
        latency_us: u64,
    },
    /// It was not, for a cause of the target's own.
    Failed,
    /// It was given up, or refused for a cause of the request's.
    Withdrawn,
}

struct Seat<T> {
    target: Arc<T>,
    health: Health,
}

/// Chooses targets.
///
/// ```
/// use seawall_replication::balance::{Choice, Need, Report, Router, Strategy, Target};
/// use seawall_wal::Lsn;
/// use std::sync::Arc;
/// struct Store(&'static str, Lsn);
/// impl Target for Store {
///     fn name(&self) -> &str { self.0 }
///     fn visible(&self) -> Lsn { self.1 }
///     fn stale_us(&self) -> u64 { 0 }
///     fn lease_until(&self) -> Option<u64> { None }
/// }
/// let stores = vec![Arc::new(Store("a", Lsn(100))), Arc::new(Store("b", Lsn(900)))];
/// let mut router = Router::new(stores, Strategy::TwoChoices, 42);
/// // Only one of them shows what this client has written.
/// let need = Need { at_least: Lsn(500), ..Need::any() };
/// assert_eq!(router.choose(0, &need), Choice::Ask(vec![1]));
/// router.report(0, 1, Report::Answered { latency_us: 90 });
/// ```
pub struct Router<T> {
    seats: Vec<Seat<T>>,
    strategy: Strategy,
    rng: Rng,
    turn: usize,
}

impl<T: Target> Router<T> {
    /// Over these. The seed is the chance's.
    pub fn new(targets: Vec<Arc<T>>, strategy: Strategy, seed: u64) -> Router<T> {
        let seats = targets.into_iter().map(|target| Seat { target, health: Health::default() }).collect();
        Router { seats, strategy, rng: Rng::new(seed), turn: 0 }
    }

    /// The targets, by place.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<T>> {
        self.seats.iter().map(|seat| &seat.target)
    }

    /// One of them.
    pub fn target(&self, place: usize) -> Option<&Arc<T>> {
        self.seats.get(place).map(|seat| &seat.target)
    }

    /// Others from now on; those that stay, by name, keep what is known of them.
    pub fn set_targets(&mut self, targets: Vec<Arc<T>>) {
        let mut old = std::mem::take(&mut self.seats);
        let seat = |target: Arc<T>| {
            let known = old.iter().position(|seat| seat.target.name() == target.name());
            let health = known.map(|place| old.swap_remove(place).health).unwrap_or_default();
            Seat { target, health }
        };
        self.seats = targets.into_iter().map(seat).collect();
    }

    /// Whom to ask. `now` is microseconds of the clock that leases are by.
    pub fn choose(&mut self, now: u64, need: &Need) -> Choice {
        if need.consistency == Consistency::Primary {
            return self.primary(now, need);
        }
        let count = match need.consistency {
            Consistency::One | Consistency::Primary => 1,
            Consistency::Quorum => self.seats.len() / 2 + 1,
            Consistency::All => self.seats.len().max(1),
        };
        let able: Vec<usize> = (0..self.seats.len()).filter(|&place| self.is_able(now, place)).collect();
        if able.len() < count {
            return Choice::Nobody(Nobody::Unhealthy);
        }
        let (ready, behind): (Vec<usize>, Vec<usize>) =
            able.into_iter().partition(|&place| self.is_ready(place, need));
        let mut chosen = self.draw(now, ready, count);
        if chosen.len() == count {
            chosen.iter().for_each(|&place| self.asked(now, place));
            return Choice::Ask(chosen);
        }
        // The nearest to it first: but what is too old does not grow younger by waiting for an LSN.
        let mut behind: Vec<usize> = behind.into_iter().filter(|&place| self.is_fresh(place, need)).collect();
        behind
            .sort_by_key(|&place| std::cmp::Reverse(self.seats.get(place).map(|seat| seat.target.visible())));
        chosen.extend(behind.into_iter().take(count - chosen.len()));
        if chosen.len() < count || !need.may_wait {
            return Choice::Nobody(Nobody::Behind);
        }
        chosen.iter().for_each(|&place| self.asked(now, place));
        Choice::Wait(chosen)
    }

    /// How a request to a target went: each that was chosen, once.
    pub fn report(&mut self, now: u64, place: usize, report: Report) {
        if let Some(seat) = self.seats.get_mut(place) {
            seat.health.report(now, report);
        }
    }

    /// Of those whose lease lasts, the one whose lasts longest: an earlier primary's may not have run out yet.
    fn primary(&mut self, now: u64, need: &Need) -> Choice {
        let lease = |place: &usize| self.seats.get(*place)?.target.lease_until();
        let lasting = (0..self.seats.len()).filter(|place| lease(place).is_some_and(|until| until > now));
        let Some(place) = lasting.max_by_key(lease) else { return Choice::Nobody(Nobody::NoPrimary) };
        if !self.is_able(now, place) {
            return Choice::Nobody(Nobody::Unhealthy);
        }
        self.asked(now, place);
        match self.is_ready(place, need) {
            true => Choice::Ask(vec![place]),
            false => Choice::Wait(vec![place]),
        }
    }

    fn is_able(&self, now: u64, place: usize) -> bool {
        self.seats.get(place).is_some_and(|seat| seat.target.is_healthy() && seat.health.may_ask(now))
    }

    fn is_fresh(&self, place: usize, need: &Need) -> bool {
        let stale = self.seats.get(place).map_or(u64::MAX, |seat| seat.target.stale_us());
        need.stale_us_max.is_none_or(|most| stale <= most)
    }

    fn is_ready(&self, place: usize, need: &Need) -> bool {
        let visible = self.seats.get(place).map_or(Lsn::ZERO, |seat| seat.target.visible());
        visible >= need.at_least && self.is_fresh(place, need)
    }

    fn asked(&mut self, now: u64, place: usize) {
        if let Some(seat) = self.seats.get_mut(place) {
            seat.health.asked(now);
        }
    }

    /// So many different ones, or all that there are.
    fn draw(&mut self, now: u64, mut from: Vec<usize>, count: usize) -> Vec<usize> {
        let mut chosen = Vec::new();
        // One that failed before, and may be tried again, is tried by a request that others answer too, or at once: else it
        // would never come back while there are better ones.
        let probe = |place: &usize| self.seats.get(*place).is_some_and(|seat| seat.health.is_due(now));
        if let Some(at) = from.iter().position(probe) {
            chosen.push(from.remove(at));
        }
        while chosen.len() < count && !from.is_empty() {
            let at = self.pick(&from);
            chosen.push(from.remove(at));
        }
        chosen
    }

    /// A place in `from`, which is not empty.
    fn pick(&mut self, from: &[usize]) -> usize {
        let count = from.len() as u64;
        match self.strategy {
            Strategy::Random => self.rng.below(count) as usize,
            Strategy::RoundRobin => {
                // The next at or behind the turn, of those that will do.
                let at = from.iter().position(|&place| place >= self.turn).unwrap_or(0);
                self.turn = from.get(at).map_or(0, |place| place + 1);
                at
            }
            Strategy::Weighted => {
                let weight =
                    |place: &usize| self.seats.get(*place).map_or(0, |seat| seat.target.weight().into());
                let sum: u64 = from.iter().map(weight).sum();
                if sum == 0 {
                    return self.rng.below(count) as usize;
                }
                let mut left = self.rng.below(sum);
                let lands = |place: &usize| {
                    let weight = weight(place);
                    let is_it = left < weight;
                    left = left.saturating_sub(weight);
                    is_it
                };
                from.iter().position(lands).unwrap_or(0)
            }
            Strategy::TwoChoices => {
                let first = self.rng.below(count) as usize;
                let second = (first + 1 + self.rng.below(count.max(2) - 1) as usize) % from.len();
                let cost = |at: usize| {
                    let seat = from.get(at).and_then(|&place| self.seats.get(place));
                    seat.map_or((u64::MAX, 0), |seat| (seat.health.cost(), seat.target.stale_us()))
                };
                if cost(second) < cost(first) { second } else { first }
            }
        }
    }
}

impl<T: Target> std::fmt::Debug for Router<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.seats.iter().map(|seat| seat.target.name()).collect();
        f.debug_struct("Router")
            .field("targets", &names)
            .field("strategy", &self.strategy)
            .finish_non_exhaustive()
    }
}
