//! Whose acknowledgement is enough. Pure.
//!
//! A [`Policy`] is said as PostgreSQL says it in `synchronous_standby_names`:
//!
//! | text | a commit is acknowledged when it is so at |
//! |---|---|
//! | `ANY 2 (a, b, c)` | any two of the three: the quorum's k-th largest mark |
//! | `FIRST 2 (a, b, c)` | the first two *that are connected*, in this order of preference |
//! | `2 (a, b, c)` | the same as with `FIRST` |
//! | `a, b` | the same as `FIRST 1 (a, b)` |
//!
//! Names are folded to lower case unless they are quoted, `""` in quotes being a quote; `*` is any replica.
//!
//! A [`Table`] keeps the marks of named replicas and says how far each level is reached. That never goes back (R7): what was
//! acknowledged stays so when a replica leaves, or comes back with less.

#![warn(clippy::indexing_slicing)]

use crate::message::Marks;
use seawall_wal::Lsn;
use std::collections::BTreeMap;
use std::fmt;

mod parse;

pub use parse::BadPolicy;

/// A level of acknowledgement above the primary's own device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Replicas have the bytes.
    Received,
    /// Replicas have them on their devices.
    Durable,
    /// Replicas have them in their stores.
    Applied,
}

impl Level {
    /// All of them.
    pub const ALL: [Level; 3] = [Level::Received, Level::Durable, Level::Applied];
}

/// How far each level is reached: exclusive ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// See [`Level::Received`].
    pub received: Lsn,
    /// See [`Level::Durable`].
    pub durable: Lsn,
    /// See [`Level::Applied`].
    pub applied: Lsn,
}

impl Reached {
    /// Of one level.
    pub fn of(&self, level: Level) -> Lsn {
        match level {
            Level::Received => self.received,
            Level::Durable => self.durable,
            Level::Applied => self.applied,
        }
    }

    fn raise(&mut self, level: Level, to: Lsn) {
        let mark = match level {
            Level::Received => &mut self.received,
            Level::Durable => &mut self.durable,
            Level::Applied => &mut self.applied,
        };
        *mark = (*mark).max(to);
    }
}

impl From<Marks> for Reached {
    fn from(marks: Marks) -> Reached {
        Reached { received: marks.received, durable: marks.durable, applied: marks.applied }
    }
}

/// A name in a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// This replica.
    Named(String),
    /// Any replica: `*`.
    Any,
}

impl Member {
    fn is(&self, name: &str) -> bool {
        match self {
            Member::Named(named) => named == name,
            Member::Any => true,
        }
    }
}

/// How the members are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Any so many of them.
    Any,
    /// The first so many that are connected.
    First,
}

/// Whose acknowledgement is enough.
///
/// ```
/// use seawall_replication::ack::Policy;
/// let policy: Policy = "ANY 2 (shore, harbour, \"Light House\")".parse()?;
/// assert_eq!(policy.to_string(), "ANY 2 (shore, harbour, \"Light House\")");
/// assert!("ANY 3 (shore, harbour)".parse::<Policy>().is_err());
/// # Ok::<(), seawall_replication::ack::BadPolicy>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    method: Method,
    count: usize,
    members: Vec<Member>,
}

impl Policy {
    /// Any so many of these.
    ///
    /// # Errors
    /// If that can never be, or is nobody.
    pub fn any(count: usize, members: Vec<Member>) -> Result<Policy, BadPolicy> {
        Policy::new(Method::Any, count, members)
    }

    /// The first so many of these that are connected.
    ///
    /// # Errors
    /// If that can never be, or is nobody.
    pub fn first(count: usize, members: Vec<Member>) -> Result<Policy, BadPolicy> {
        Policy::new(Method::First, count, members)
    }

    /// How they are chosen.
    pub fn method(&self) -> Method {
        self.method
    }

    /// So many of them.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Of these.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The place of a replica in the list, from 0; none if it does not count.
    pub fn rank(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.is(name))
    }

    /// How far a level is reached by these replicas; zero where too few are there.
    pub fn reached<'a>(&self, level: Level, replicas: impl IntoIterator<Item = Standing<'a>>) -> Lsn {
        let counted = |standing: Standing<'a>| {
            let rank = self.rank(standing.name)?;
            Some((rank, standing.name, standing.is_connected, standing.marks.of(level)))
        };
        let mut counted: Vec<(usize, &str, bool, Lsn)> = replicas.into_iter().filter_map(counted).collect();
        match self.method {
            // What a replica that is away has, it has.
            Method::Any => {
                counted.sort_by_key(|&(.., mark)| std::cmp::Reverse(mark));
                counted.get(self.count - 1).map_or(Lsn::ZERO, |&(.., mark)| mark)
            }
            Method::First => {
                counted.retain(|&(_, _, is_connected, _)| is_connected);
                counted.sort_by_key(|&(rank, name, ..)| (rank, name));
                match counted.get(..self.count) {
                    Some(first) => first.iter().map(|&(.., mark)| mark).min().unwrap_or(Lsn::ZERO),
                    None => Lsn::ZERO,
                }
            }
        }
    }
}

/// A replica as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is there now.
    pub is_connected: bool,
    /// How far it has come.
    pub marks: Reached,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    is_connected: bool,
    marks: Reached,
}

/// What part a replica plays in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Its acknowledgements may count: one of `ANY`.
    Quorum,
    /// Its acknowledgements are waited for: among the `FIRST` that are connected.
    Sync,
    /// It would be waited for if one before it were away.
    Potential,
    /// It does not count.
    Async,
}

/// The marks of named replicas, and what they come to.
///
/// ```
/// use seawall_replication::ack::{Level, Reached, Table};
/// use seawall_wal::Lsn;
/// let marks = |lsn| Reached { received: Lsn(lsn), durable: Lsn(lsn), applied: Lsn(0) };
/// let mut table = Table::new("ANY 1 (a, b)".parse()?);
/// table.update("a", marks(100));
/// assert_eq!(table.update("b", marks(70)).of(Level::Durable), Lsn(100));
/// table.leave("a");
/// assert_eq!(table.reached().of(Level::Durable), Lsn(100), "it never goes back");
/// # Ok::<(), seawall_replication::ack::BadPolicy>(())
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    policy: Policy,
    rows: BTreeMap<String, Row>,
    reached: Reached,
    begin: Lsn,
}

impl Table {
    /// Nobody is known yet.
    pub fn new(policy: Policy) -> Table {
        Table { policy, rows: BTreeMap::new(), reached: Reached::default(), begin: Lsn::ZERO }
    }

    /// On a primary whose epoch begins here: a replica that has nothing of the epoch yet counts for nothing (R10).
    #[must_use]
    pub fn of_epoch(mut self, start: Lsn) -> Table {
        self.begin = start;
        self
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Another policy from now on. What was reached stays reached.
    pub fn set_policy(&mut self, policy: Policy) -> Reached {
        self.policy = policy;
        self.count()
    }

    /// A replica has come so far, and is there. Less than before is believed: it may have been made anew.
    pub fn update(&mut self, name: &str, marks: Reached) -> Reached {
        self.rows.insert(name.to_owned(), Row { is_connected: true, marks });
        self.count()
    }

    /// A replica went.
    pub fn leave(&mut self, name: &str) -> Reached {
        if let Some(row) = self.rows.get_mut(name) {
            row.is_connected = false;
        }
        self.count()
    }

    /// A replica will not come back, or must not count any more.
    pub fn forget(&mut self, name: &str) -> Reached {
        self.rows.remove(name);
        self.count()
    }

    /// How far each level is reached.
    pub fn reached(&self) -> Reached {
        self.reached
    }

    /// The replicas that are known.
    pub fn standings(&self) -> impl Iterator<Item = Standing<'_>> {
        self.rows.iter().map(|(name, row)| Standing {
            name,
            is_connected: row.is_connected,
            marks: row.marks,
        })
    }

    /// What part a replica plays now.
    pub fn part(&self, name: &str) -> Part {
        let Some(rank) = self.policy.rank(name) else { return Part::Async };
        match self.policy.method {
            Method::Any => Part::Quorum,
            Method::First => {
                let before = self.standings().filter(|other| other.is_connected && other.name != name);
                let before = before.filter_map(|other| Some((self.policy.rank(other.name)?, other.name)));
                let before = before.filter(|other| *other < (rank, name)).count();
                if before < self.policy.count { Part::Sync } else { Part::Potential }
            }
        }
    }

    fn count(&mut self) -> Reached {
        let before = self.reached;
        for level in Level::ALL {
            let found = self.policy.reached(level, self.standings());
            if found > self.begin {
                self.reached.raise(level, found);
            }
        }
        crate::invariants::assert_reached(&before, &self.reached);
        self.reached
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Any => "ANY",
            Method::First => "FIRST",
        };
        write!(f, "{method} {} (", self.count)?;
        for (index, member) in self.members.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match member {
                Member::Any => write!(f, "{comma}*")?,
                Member::Named(name) if parse::is_plain(name) => write!(f, "{comma}{name}")?,
                Member::Named(name) => write!(f, "{comma}\"{}\"", name.replace('"', "\"\""))?,
            }
        }
        f.write_str(")")
    }
}
