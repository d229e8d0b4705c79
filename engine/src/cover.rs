//! Ranges of keys, and a map from keys to marks that is written range by range. Pure.
//!
//! A [`Span`] is a range whose ends are places between keys: keys are byte strings, and right behind `k` comes `k` and a
//! zero byte, so that "up to and including `k`" is "below `k\0`", and every range is half open. A [`Cover`] gives every key the mark
//! of the span that was laid over it last. It is a treap of *breakpoints* (from here on this mark holds), never
//! changed once made: laying a span makes a new cover that shares all but the paths to its two ends with the old
//! one. So a reader keeps a cover without a lock, and each of many covers, one for every span laid, costs what a path
//! costs.

#![warn(clippy::indexing_slicing)]

use crate::key::KEY_BYTES_MAX;
use std::ops::Bound;
use std::sync::Arc;

/// Keys at or above `from` and below `to`; without `to`, all from there on. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Arc<[u8]>,
    pub(crate) to: Option<Arc<[u8]>>,
}

impl Span {
    /// None if no key lies in the range.
    pub(crate) fn new(from: Bound<&[u8]>, to: Bound<&[u8]>) -> Option<Span> {
        let behind = |key: &[u8]| [key, &[0]].concat().into();
        let from = match from {
            Bound::Unbounded => Arc::default(),
            Bound::Included(key) => key.into(),
            Bound::Excluded(key) => behind(key),
        };
        let to = match to {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(behind(key)),
            Bound::Excluded(key) => Some(key.into()),
        };
        let span = Span { from, to };
        let is_empty = span.to.as_ref().is_some_and(|to| *to <= span.from);
        (!is_empty).then_some(span)
    }

    /// All keys.
    pub(crate) fn all() -> Span {
        Span { from: Arc::default(), to: None }
    }

    /// As bounds whose keys are no longer than a key may be.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = match &*self.from {
            [] => Bound::Unbounded,
            // Only what stands right behind a longest key is longer than one.
            [key @ .., 0] if key.len() == KEY_BYTES_MAX => Bound::Excluded(key),
            key => Bound::Included(key),
        };
        let to = match self.to.as_deref() {
            None => Bound::Unbounded,
            Some([key @ .., 0]) if key.len() == KEY_BYTES_MAX => Bound::Included(key),
            Some(key) => Bound::Excluded(key),
        };
        (from, to)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        *self.from <= *key && self.to.as_ref().is_none_or(|to| *key < **to)
    }

    /// Whether any key lies in both.
    pub(crate) fn meets(&self, other: &Span) -> bool {
        let ends_behind = |a: &Span, b: &Span| a.to.as_ref().is_none_or(|to| b.from < *to);
        ends_behind(self, other) && ends_behind(other, self)
    }

    /// Bytes of its ends.
    pub(crate) fn byte_len(&self) -> usize {
        self.from.len() + self.to.as_ref().map_or(0, |to| to.len())
    }
}

/// Spans in key order, none touching another, asked of keys that ascend.
#[derive(Debug, Default)]
pub(crate) struct SpanCursor {
    spans: Vec<Span>,
    /// The first of them that does not end before the key asked last.
    at: usize,
}

impl SpanCursor {
    pub(crate) fn new(spans: Vec<Span>) -> SpanCursor {
        SpanCursor { spans, at: 0 }
    }

    /// The first span that ends behind the key.
    pub(crate) fn next_behind(&mut self, key: &[u8]) -> Option<&Span> {
        let ends_before = |span: &Span| span.to.as_ref().is_some_and(|to| **to <= *key);
        while self.spans.get(self.at).is_some_and(ends_before) {
            self.at += 1;
        }
        self.spans.get(self.at)
    }

    pub(crate) fn contains(&mut self, key: &[u8]) -> bool {
        self.next_behind(key).is_some_and(|span| span.contains(key))
    }
}

/// Joins what touches or overlaps; the spans come in the order of their starts.
pub(crate) fn joined(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut all: Vec<Span> = Vec::new();
    for span in spans {
        match all.last_mut() {
            Some(last) if last.to.as_ref().is_none_or(|to| span.from <= *to) => {
                let ends_later = match (&last.to, &span.to) {
                    (None, _) => false,
                    (_, None) => true,
                    (Some(a), Some(b)) => a < b,
                };
                if ends_later {
                    last.to = span.to;
                }
            }
            _ => all.push(span),
        }
    }
    all
}

/// Bytes of a node, its share of reference counts included.
pub(crate) const NODE_BYTES: u64 = size_of::<Node>() as u64 + 32;

#[derive(Debug)]
struct Node {
    at: Arc<[u8]>,
    /// From `at` to the next breakpoint; 0 is none.
    mark: u64,
    priority: u64,
    left: Link,
    right: Link,
}

type Link = Option<Arc<Node>>;

/// Which mark each key has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cover(Link);

impl Node {
    fn with(&self, left: Link, right: Link) -> Link {
        let (at, mark, priority) = (Arc::clone(&self.at), self.mark, self.priority);
        Some(Arc::new(Node { at, mark, priority, left, right }))
    }
}

impl Cover {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The mark of a key.
    pub(crate) fn mark(&self, key: &[u8]) -> Option<u64> {
        let (mut link, mut mark) = (&self.0, 0);
        while let Some(node) = link {
            let is_there = *node.at <= *key;
            link = if is_there { &node.right } else { &node.left };
            mark = if is_there { node.mark } else { mark };
        }
        (mark != 0).then_some(mark)
    }

    /// The keys around a key that has a mark, all of which have it.
    pub(crate) fn span_of(&self, key: &[u8]) -> Option<Span> {
        let (mut link, mut start, mut to) = (&self.0, None, None);
        while let Some(node) = link {
            if *node.at <= *key {
                start = Some(node);
                link = &node.right;
            } else {
                to = Some(Arc::clone(&node.at));
                link = &node.left;
            }
        }
        let start = start.filter(|start| start.mark != 0)?;
        Some(Span { from: Arc::clone(&start.at), to })
    }

    /// Whether a key of the span has this mark or a higher one.
    pub(crate) fn has_since(&self, span: &Span, since: u64) -> bool {
        fn is_within(link: &Link, span: &Span, since: u64) -> bool {
            let Some(node) = link else { return false };
            let is_behind = span.from < node.at;
            let is_before = span.to.as_ref().is_none_or(|to| node.at < *to);
            (is_behind && is_before && node.mark != 0 && node.mark >= since)
                || (is_behind && is_within(&node.left, span, since))
                || (is_before && is_within(&node.right, span, since))
        }
        self.mark(&span.from).is_some_and(|mark| mark >= since) || is_within(&self.0, span, since)
    }

    /// The same with this mark, which is not 0, over all keys of the span.
    #[must_use]
    pub(crate) fn laid(&self, span: &Span, mark: u64) -> Cover {
        let (left, rest) = split(&self.0, &span.from);
        let start = single(&span.from, mark);
        let (end, right) = match &span.to {
            None => (None, None),
            Some(to) => {
                let right = split(&rest, to).1;
                let behind = self.mark(to).unwrap_or(0);
                let is_there = first(&right).is_some_and(|first| first.at == *to);
                (if is_there { None } else { single(to, behind) }, right)
            }
        };
        Cover(join(join(left, start), join(end, right)))
    }

    /// All that have a mark, in key order, joined whatever the marks are.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut points: Vec<(&Arc<[u8]>, u64)> = Vec::new();
        let (mut above, mut link) = (Vec::new(), &self.0);
        loop {
            while let Some(node) = link {
                above.push(node);
                link = &node.left;
            }
            let Some(node) = above.pop() else { break };
            points.push((&node.at, node.mark));
            link = &node.right;
        }
        let ends = points.iter().skip(1).map(|(at, _)| Some(Arc::clone(at))).chain([None]);
        let marked = points.iter().zip(ends).filter(|((_, mark), _)| *mark != 0);
        joined(marked.map(|((from, _), to)| Span { from: Arc::clone(from), to }))
    }
}

fn single(at: &Arc<[u8]>, mark: u64) -> Link {
    // Whoever chooses keys could choose their order in the treap too, and gain nothing but slowness of his own.
    let mut priority = 0xcbf2_9ce4_8422_2325_u64;
    for byte in &**at {
        priority = (priority ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    priority = (priority ^ priority >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    priority ^= priority >> 29;
    Some(Arc::new(Node { at: Arc::clone(at), mark, priority, left: None, right: None }))
}

fn first(link: &Link) -> Option<&Arc<Node>> {
    let mut node = link.as_ref()?;
    while let Some(left) = &node.left {
        node = left;
    }
    Some(node)
}

/// The breakpoints below `at`, and the others.
fn split(link: &Link, at: &[u8]) -> (Link, Link) {
    let Some(node) = link else { return (None, None) };
    if *node.at < *at {
        let (below, above) = split(&node.right, at);
        (node.with(node.left.clone(), below), above)
    } else {
        let (below, above) = split(&node.left, at);
        (below, node.with(above, node.right.clone()))
    }
}

/// Of two, all breakpoints of the first below those of the second.
fn join(a: Link, b: Link) -> Link {
    match (a, b) {
        (None, only) | (only, None) => only,
        (Some(a), Some(b)) if a.priority >= b.priority => {
            a.with(a.left.clone(), join(a.right.clone(), Some(b)))
        }
        (Some(a), Some(b)) => b.with(join(Some(a), b.left.clone()), b.right.clone()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn span(from: Bound<&str>, to: Bound<&str>) -> Option<Span> {
        Span::new(from.map(str::as_bytes), to.map(str::as_bytes))
    }

    #[test]
    fn a_span_holds_what_its_bounds_hold() {
        use Bound::{Excluded, Included, Unbounded};
        let bounds = [
            Unbounded,
            Included(""),
            Excluded(""),
            Included("a"),
            Excluded("a"),
            Included("a\0"),
            Excluded("a\0"),
            Included("b"),
        ];
        let keys = ["", "\0", "a", "a\0", "a\0\0", "aa", "b", "b\0", "c"];
        for from in bounds {
            for to in bounds {
                let is_in = |key: &str| std::ops::RangeBounds::contains(&(from, to), key);
                let span = span(from, to);
                for key in keys {
                    let contains = span.as_ref().is_some_and(|span| span.contains(key.as_bytes()));
                    assert_eq!(contains, is_in(key), "{key:?} in {from:?} to {to:?}");
                }
                if let Some(span) = span {
                    let (from, to) = span.bounds();
                    assert_eq!(Span::new(from, to), Some(span));
                }
            }
        }
        let longest = vec![7; KEY_BYTES_MAX];
        let span = Span::new(Excluded(&longest), Unbounded).unwrap();
        assert_eq!(span.bounds(), (Excluded(&longest[..]), Unbounded));
        let span = Span::new(Unbounded, Included(&longest)).unwrap();
        assert_eq!(span.bounds(), (Unbounded, Included(&longest[..])));
    }

    #[test]
    fn what_was_laid_last_holds_in_every_cover_made_on_the_way() {
        let mut state = 3_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut covers = vec![(Cover::default(), vec![0_u64; 64])];
        for mark in 1..200 {
            let (cover, mut model) = covers.last().unwrap().clone();
            let (a, b) = (random(64) as u8, random(66) as u8);
            let to = [b];
            let to = if b > 63 { Bound::Unbounded } else { Bound::Excluded(&to[..]) };
            let Some(span) = Span::new(Bound::Included(&[a]), to) else { continue };
            for key in a..b.min(64) {
                model[usize::from(key)] = mark;
            }
            covers.push((cover.laid(&span, mark), model));
        }
        assert!(covers.len() > 90);
        for (cover, model) in &covers {
            let spans = cover.spans();
            assert!(spans.windows(2).all(|pair| pair[0].to.as_ref().unwrap() < &pair[1].from));
            for (key, mark) in model.iter().enumerate() {
                let key = [key as u8];
                assert_eq!(cover.mark(&key).unwrap_or(0), *mark);
                assert_eq!(spans.iter().any(|span| span.contains(&key)), *mark != 0);
                match cover.span_of(&key) {
                    None => assert_eq!(*mark, 0),
                    Some(span) => {
                        let to = key[0].wrapping_mul(7) % 65;
                        if let Some(asked) = Span::new(Bound::Included(&key), Bound::Excluded(&[to])) {
                            let newest = model[usize::from(key[0])..usize::from(to)].iter().max().unwrap();
                            for since in [0, 1, newest.saturating_sub(1), *newest, newest + 1] {
                                let has = *newest != 0 && *newest >= since;
                                assert_eq!(cover.has_since(&asked, since), has);
                            }
                        }
                        assert!(span.contains(&key) && *mark != 0);
                        let same = (0..64).filter(|key| span.contains(&[*key]));
                        assert!(same.map(|key| model[usize::from(key)]).all(|other| other == *mark));
                    }
                }
            }
        }
    }
}
