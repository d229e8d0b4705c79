//! What prepared transactions hold in one way, of one keyspace: keys and spans of keys, each with who holds it. Pure.
//!
//! Every commit asks whether anybody holds a key of its own, under the sequencer's lock, and must get the answer as quickly
//! beside ten thousand holders as beside one. Keys are in an ordered map. Spans overlap at will (each of many transactions may
//! have scanned the same rows), so they are in an *interval tree*: a search tree in the order of their starts, in which every
//! node knows how far the spans below it reach.
//!
//! ```text
//!                 [f, k) reaches z              does a span meet [m, n)?
//!               ┌────────┴────────┐             at each node: it does; or
//!         [b, z) reaches z   [g, h) reaches h   something to the left ends behind m: left; else right
//! ```
//!
//! That is one path. If something to the left ends behind the start of what is asked for and does not meet it, it begins
//! behind its end, and so does all that stands further to the right. What keeps the tree flat is a *treap* (Seidel and Aragon,
//! "Randomized Search Trees", 1996): its shape follows from numbers that are drawn, not from the keys, so nobody who chooses keys
//! chooses it.

use crate::cover::Span;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Keys and spans, with their holders' serial numbers.
#[derive(Default)]
pub(super) struct Marks {
    points: BTreeMap<Box<[u8]>, BTreeSet<u64>>,
    spans: Spans,
}

/// One of them.
pub(super) enum Held<'a> {
    Key(&'a [u8]),
    Span(Span),
}

impl Marks {
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.spans.root.is_none()
    }

    pub(super) fn add(&mut self, held: &Held<'_>, serial: u64) {
        match held {
            Held::Span(span) => self.spans.add(span, serial),
            Held::Key(key) => match self.points.get_mut(*key) {
                Some(holders) => drop(holders.insert(serial)),
                None => drop(self.points.insert((*key).into(), BTreeSet::from([serial]))),
            },
        }
    }

    pub(super) fn remove(&mut self, held: &Held<'_>, serial: u64) {
        match held {
            Held::Span(span) => self.spans.remove(span, serial),
            Held::Key(key) => {
                if let Some(holders) = self.points.get_mut(*key) {
                    holders.remove(&serial);
                    if holders.is_empty() {
                        self.points.remove(*key);
                    }
                }
            }
        }
    }

    /// Who holds the key; of several, one.
    pub(super) fn at(&self, key: &[u8]) -> Option<u64> {
        let holder = self.points.get(key).and_then(BTreeSet::first).copied();
        holder.or_else(|| self.spans.find(key, |from| from <= key))
    }

    /// Who holds a key of the span.
    pub(super) fn within(&self, span: &Span) -> Option<u64> {
        let end = span.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut points = self.points.range::<[u8], _>((Bound::Included(&*span.from), end));
        let holder = points.find_map(|(_, holders)| holders.first().copied());
        holder.or_else(|| self.spans.find(&span.from, |from| is_below(from, span.to.as_deref())))
    }
}

fn is_below(key: &[u8], end: Option<&[u8]>) -> bool {
    end.is_none_or(|end| key < end)
}

#[derive(Default)]
struct Spans {
    root: Link,
    drawn: u64,
}

type Link = Option<Box<Node>>;

struct Node {
    span: Span,
    serial: u64,
    /// Where the spans from here down end; none if one of them does not.
    reach: Option<Arc<[u8]>>,
    priority: u64,
    left: Link,
    right: Link,
}

impl Spans {
    fn add(&mut self, span: &Span, serial: u64) {
        let node = Box::new(Node {
            span: span.clone(),
            serial,
            reach: span.to.clone(),
            priority: self.draw(),
            left: None,
            right: None,
        });
        let (below, above) = split(self.root.take(), span, serial);
        self.root = join(join(below, Some(node)), above);
    }

    fn remove(&mut self, span: &Span, serial: u64) {
        self.root = without(self.root.take(), span, serial);
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.drawn;
        drawn = (drawn ^ drawn >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ drawn >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^ drawn >> 31
    }

    /// Who holds a span that ends behind `from`, and of whose start it is true that it `begins` before the end.
    fn find(&self, from: &[u8], begins: impl Fn(&[u8]) -> bool) -> Option<u64> {
        let ends_behind = |end: &Option<Arc<[u8]>>| is_below(from, end.as_deref());
        let mut link = &self.root;
        while let Some(node) = link {
            if ends_behind(&node.span.to) && begins(&node.span.from) {
                return Some(node.serial);
            }
            let goes_left = node.left.as_ref().is_some_and(|left| ends_behind(&left.reach));
            link = if goes_left { &node.left } else { &node.right };
        }
        None
    }
}

impl Node {
    fn order(&self, span: &Span, serial: u64) -> Ordering {
        (&self.span.from, self.serial, &self.span.to).cmp(&(&span.from, serial, &span.to))
    }

    /// What is below has changed.
    fn reaching(mut self: Box<Node>) -> Link {
        let mut reach = self.span.to.clone();
        for below in [&self.left, &self.right].into_iter().flatten() {
            reach = reach.zip(below.reach.as_ref()).map(|(a, b)| if a < *b { Arc::clone(b) } else { a });
        }
        self.reach = reach;
        Some(self)
    }
}

/// Those before this one, and the others.
fn split(link: Link, span: &Span, serial: u64) -> (Link, Link) {
    let Some(mut node) = link else { return (None, None) };
    if node.order(span, serial).is_lt() {
        let (below, above) = split(node.right.take(), span, serial);
        node.right = below;
        (node.reaching(), above)
    } else {
        let (below, above) = split(node.left.take(), span, serial);
        node.left = above;
        (below, node.reaching())
    }
}

/// Of two, all of the first before those of the second.
fn join(a: Link, b: Link) -> Link {
    match (a, b) {
        (None, only) | (only, None) => only,
        (Some(mut a), Some(b)) if a.priority >= b.priority => {
            a.right = join(a.right.take(), Some(b));
            a.reaching()
        }
        (Some(a), Some(mut b)) => {
            b.left = join(Some(a), b.left.take());
            b.reaching()
        }
    }
}

fn without(link: Link, span: &Span, serial: u64) -> Link {
    let mut node = link?;
    match node.order(span, serial) {
        Ordering::Equal => return join(node.left.take(), node.right.take()),
        Ordering::Greater => node.left = without(node.left.take(), span, serial),
        Ordering::Less => node.right = without(node.right.take(), span, serial),
    }
    node.reaching()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use seawall_wal::runtime::Rng;

    fn any_span(rng: &mut Rng, keys: u64) -> Span {
        let from = rng.below(keys);
        let to = match rng.below(8) {
            0 => None,
            1 => Some(keys),
            _ => Some(from + 1 + rng.below(4)),
        };
        let bytes = |key: u64| Arc::from(key.to_be_bytes());
        Span { from: if rng.below(20) == 0 { Arc::default() } else { bytes(from) }, to: to.map(bytes) }
    }

    fn depth(link: &Link) -> usize {
        link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    /// Held, given back, asked for: what is found is always one of those that hold it, and none is overlooked.
    #[test]
    fn what_is_found_is_what_is_held() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let (mut marks, mut model) = (Marks::default(), Vec::<(Option<u64>, Option<Span>, u64)>::new());
            let keys = 4 + rng.below(40);
            let (mut found, mut missed) = (0, 0);
            for round in 0..600_u64 {
                match rng.below(5) {
                    0 | 1 if model.len() < 60 => {
                        let serial = rng.below(30);
                        if rng.chance(1, 3) {
                            let key = rng.below(keys);
                            // Of a key a holder counts once.
                            if !model.contains(&(Some(key), None, serial)) {
                                model.push((Some(key), None, serial));
                            }
                            marks.add(&Held::Key(&key.to_be_bytes()), serial);
                        } else {
                            let span = any_span(&mut rng, keys);
                            marks.add(&Held::Span(span.clone()), serial);
                            model.push((None, Some(span), serial));
                        }
                    }
                    2 if !model.is_empty() => {
                        let (key, span, serial) = model.swap_remove(rng.below(model.len() as u64) as usize);
                        match (key, span) {
                            (Some(key), _) => marks.remove(&Held::Key(&key.to_be_bytes()), serial),
                            (_, Some(span)) => marks.remove(&Held::Span(span), serial),
                            _ => {}
                        }
                    }
                    3 => {
                        let key = rng.below(keys + 2);
                        let is_held = |(point, span, _): &&(Option<u64>, Option<Span>, u64)| {
                            *point == Some(key)
                                || span.as_ref().is_some_and(|span| span.contains(&key.to_be_bytes()))
                        };
                        let holders: Vec<u64> = model.iter().filter(is_held).map(|held| held.2).collect();
                        let holder = marks.at(&key.to_be_bytes());
                        assert_eq!(holder.is_some(), !holders.is_empty(), "seed {seed}, round {round}");
                        assert!(holder.is_none_or(|holder| holders.contains(&holder)));
                        if holder.is_some() { found += 1 } else { missed += 1 }
                    }
                    _ => {
                        let asked = any_span(&mut rng, keys);
                        let is_met = |(point, span, _): &&(Option<u64>, Option<Span>, u64)| {
                            point.is_some_and(|key| asked.contains(&key.to_be_bytes()))
                                || span.as_ref().is_some_and(|span| span.meets(&asked))
                        };
                        let holders: Vec<u64> = model.iter().filter(is_met).map(|held| held.2).collect();
                        let holder = marks.within(&asked);
                        assert_eq!(holder.is_some(), !holders.is_empty(), "seed {seed}, round {round}");
                        assert!(holder.is_none_or(|holder| holders.contains(&holder)));
                    }
                }
                assert_eq!(marks.is_empty(), model.is_empty());
            }
            assert!(found > 10 && missed > 0, "seed {seed}: {found} found, {missed} not");
        }
    }

    /// Whatever the order in which spans come, and however they lie: a path is short.
    #[test]
    fn the_tree_stays_flat() {
        let span = |from: u64, to: u64| Span {
            from: Arc::from(from.to_be_bytes()),
            to: Some(Arc::from(to.to_be_bytes())),
        };
        let shapes: [fn(u64) -> (u64, u64); 4] =
            [|i| (i, i + 1), |i| (20_000 - i, 20_001 - i), |_| (0, 9), |i| (i, 40_000 - i)];
        for shape in shapes {
            let mut spans = Spans::default();
            let all: Vec<Span> = (0..10_000).map(shape).map(|(from, to)| span(from, to)).collect();
            all.iter().zip(0..).for_each(|(span, serial)| spans.add(span, serial));
            assert!(depth(&spans.root) < 60, "{}", depth(&spans.root));
            all.iter().zip(0..).step_by(2).for_each(|(span, serial)| spans.remove(span, serial));
            assert!(depth(&spans.root) < 60);
            all.iter().zip(0..).skip(1).step_by(2).for_each(|(span, serial)| spans.remove(span, serial));
            assert!(spans.root.is_none());
        }
    }
}
