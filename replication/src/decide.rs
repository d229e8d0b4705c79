//! Who is to be promoted: a decision that somebody else carries out, and fences. Pure.
//!
//! Promotion is safe without a decision being right: it begins an epoch, and the old primary's replicas and the old primary
//! itself hear of it (R4). What the choice is for is to lose nothing that was acknowledged. If a commit is acknowledged by
//! k of n replicas, any n−k+1 of them include one that has it: so many must have been heard, and the most advanced of them is
//! the one. *Heard* is one that was made to promise the new epoch before it said where its log ends
//! (`Wal::promise`): else it could go on acknowledging to the old primary after it was counted.

use crate::timeline::Tail;

/// A replica that could be promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it is called.
    pub name: String,
    /// Where its *durable* log ends.
    pub tail: Tail,
    /// Whether whoever decides may choose it; one that may not still counts as heard.
    pub is_eligible: bool,
}

/// Chooses among candidates. Plugged in by whoever drives promotions.
pub trait PromotionPolicy: Send + Sync {
    /// The name of the one to promote; none if nobody should be.
    fn choose(&self, candidates: &[Candidate]) -> Option<String>;
}

/// The most advanced durable log, by epoch and then by place; of equals, the first by name.
///
/// ```
/// use seawall_replication::decide::{Candidate, MostAdvanced, PromotionPolicy};
/// use seawall_replication::timeline::Tail;
/// use seawall_wal::Lsn;
/// let candidate = |name: &str, epoch, place| Candidate {
///     name: name.to_owned(),
///     tail: Tail { epoch, place: Lsn(place), whole_end: Lsn(place), checksum: 0 },
///     is_eligible: true,
/// };
/// let heard = [candidate("a", 1, 9000), candidate("b", 2, 8192)];
/// // Commits are acknowledged by two of three replicas: two must be heard.
/// assert_eq!(MostAdvanced { heard_min: 2 }.choose(&heard), Some("b".to_owned()));
/// assert_eq!(MostAdvanced { heard_min: 2 }.choose(&heard[..1]), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MostAdvanced {
    /// So many must have been heard: n−k+1, where commits are acknowledged by any k of n.
    pub heard_min: usize,
}

impl MostAdvanced {
    /// Where commits are acknowledged by any `k` of `n` replicas.
    pub fn of_quorum(k: usize, n: usize) -> MostAdvanced {
        MostAdvanced { heard_min: (n + 1).saturating_sub(k).max(1) }
    }
}

impl PromotionPolicy for MostAdvanced {
    fn choose(&self, candidates: &[Candidate]) -> Option<String> {
        if candidates.len() < self.heard_min {
            return None;
        }
        let order = |candidate: &&Candidate| {
            (candidate.tail.epoch, candidate.tail.place, std::cmp::Reverse(candidate.name.clone()))
        };
        let best = candidates.iter().max_by_key(order)?;
        // Only one that has as much as the best will do, and only if it may be chosen.
        let as_good = |candidate: &&Candidate| {
            (candidate.tail.epoch, candidate.tail.place) == (best.tail.epoch, best.tail.place)
        };
        let mut may = candidates.iter().filter(as_good).filter(|candidate| candidate.is_eligible);
        may.by_ref().map(|candidate| candidate.name.clone()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_wal::Lsn;

    fn candidate(name: &str, epoch: u64, end: u64, is_eligible: bool) -> Candidate {
        let tail = Tail { epoch, place: Lsn(end), whole_end: Lsn(end), checksum: 0 };
        Candidate { name: name.to_owned(), tail, is_eligible }
    }

    #[test]
    fn nothing_acknowledged_is_given_up() {
        let policy = MostAdvanced::of_quorum(2, 3);
        assert_eq!(policy.heard_min, 2);
        let heard =
            [candidate("b", 3, 100, true), candidate("a", 3, 100, true), candidate("c", 2, 900, true)];
        assert_eq!(policy.choose(&heard).as_deref(), Some("a"));
        let heard = [candidate("a", 3, 100, false), candidate("b", 3, 90, true)];
        assert_eq!(policy.choose(&heard), None, "the only one that has it all may not");
        assert_eq!(policy.choose(&[]), None);
    }
}
