//! Was there an order? A history of transactions over lists and registers, and the graph of what depends on what.
//!
//! The idea is Elle's (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", 2020):
//! every element of a list is appended once in all, so a list that is read shows which transactions came before, and in
//! which order. From the longest list that was read of each key follows the order of its versions, and from that:
//!
//! | edge | from → to |
//! |---|---|
//! | ww | who appended an element → who appended the next |
//! | wr | who appended the last element that was read → who read it |
//! | rw | who read a list → who appended the next element |
//! | rt | who had returned → who began after that |
//!
//! A register is written blindly, so nothing that is read tells the order of its versions: for those the engine's own
//! positions are taken at their word.
//!
//! *Serializable* histories have no circle (Adya, 1999), and no circle with rt edges if strictly so. Under *snapshot
//! isolation* each circle has two rw edges next to each other (Cerone and Gotsman, 2018): so there is none in the graph of
//! all edges but rw, and of those followed by one rw.

use std::collections::{BTreeMap, BTreeSet};

/// What a transaction did, and what came of it.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// All that a key's list held.
    Read(String, Vec<u64>),
    Append(String, u64),
    /// A register's value.
    Look(String, Option<u64>),
    Set(String, u64),
    /// One more in a number that no reader's place follows from.
    Add,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    Aborted,
    /// It is in the store, or not.
    Unknown,
}

#[derive(Clone, Debug)]
pub(crate) struct Txn {
    pub(crate) name: String,
    /// Moments of one count: before its first step, and after it had returned. Without an end it never did.
    pub(crate) begin: u64,
    pub(crate) end: Option<u64>,
    pub(crate) outcome: Outcome,
    /// Its record's position, if it has one.
    pub(crate) lsn: Option<u64>,
    pub(crate) ops: Vec<Op>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Snapshot,
    Serializable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Ww,
    Wr,
    Rw,
    Rt,
}

type Graph = Vec<BTreeMap<usize, Edge>>;

/// What is wrong with a history, in words.
pub(crate) fn check(txns: &[Txn], level: Level) -> Result<(), String> {
    let versions = Versions::of(txns)?;
    let graph = versions.graph(txns);
    let circle = match level {
        Level::Serializable => find_circle(&graph),
        Level::Snapshot => find_circle(&without_lone_rw(&graph)),
    };
    let Some(circle) = circle else { return Ok(()) };
    let mut story = format!("{level:?}: a circle of {}", circle.len());
    for (i, at) in circle.iter().enumerate() {
        let next = circle[(i + 1) % circle.len()];
        let edge = graph[*at].get(&next).map_or("by two edges".to_owned(), |edge| format!("by {edge:?}"));
        story += &format!("\n  {:?}\n    {edge} before {}", txns[*at], txns[next].name);
    }
    Err(story)
}

/// Who wrote what, and in which order.
struct Versions {
    /// Of each key, its elements in order; of a register, its values.
    orders: BTreeMap<String, Vec<u64>>,
    writers: BTreeMap<u64, usize>,
    /// Those that are in the store.
    counts: Vec<bool>,
}

impl Versions {
    fn of(txns: &[Txn]) -> Result<Versions, String> {
        let mut writers = BTreeMap::new();
        for (i, txn) in txns.iter().enumerate() {
            for op in &txn.ops {
                if let Op::Append(_, element) | Op::Set(_, element) = op {
                    assert!(writers.insert(*element, i).is_none(), "elements are unique");
                }
            }
        }
        let mut counts: Vec<bool> = txns.iter().map(|txn| txn.outcome == Outcome::Committed).collect();
        let mut versions = Versions { orders: BTreeMap::new(), writers, counts: Vec::new() };
        for reader in txns.iter().filter(|txn| txn.outcome == Outcome::Committed) {
            versions.take_reads(txns, reader, &mut counts)?;
        }
        versions.counts = counts;
        versions.order_registers(txns);
        versions.check_lists(txns)?;
        Ok(versions)
    }

    /// The longest list of each key; who was seen is in the store.
    fn take_reads(&mut self, txns: &[Txn], reader: &Txn, counts: &mut [bool]) -> Result<(), String> {
        for (key, list) in base_reads(reader)? {
            for element in &list {
                let writer = *self
                    .writers
                    .get(element)
                    .ok_or_else(|| format!("{key} holds {element}, which nobody wrote: {reader:?}"))?;
                if txns[writer].outcome == Outcome::Aborted {
                    return Err(format!("an aborted write was read: {:?} by {reader:?}", txns[writer]));
                }
                counts[writer] = true;
            }
            let longest = self.orders.entry(key.clone()).or_default();
            let common = longest.len().min(list.len());
            if longest[..common] != list[..common] {
                return Err(format!("{key} was {longest:?}, and was read as {list:?} by {reader:?}"));
            }
            if list.len() > longest.len() {
                *longest = list;
            }
        }
        for op in &reader.ops {
            if let Op::Look(key, Some(value)) = op {
                let Some(writer) = self.writers.get(value) else {
                    return Err(format!("{key} holds {value}, which nobody wrote: {reader:?}"));
                };
                if txns[*writer].outcome == Outcome::Aborted {
                    return Err(format!("an aborted write was read: {:?} by {reader:?}", txns[*writer]));
                }
                counts[*writer] = true;
            }
        }
        Ok(())
    }

    fn order_registers(&mut self, txns: &[Txn]) {
        let mut written: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for (txn, _) in txns.iter().zip(&self.counts).filter(|(_, counts)| **counts) {
            let last: BTreeMap<&String, u64> = txn
                .ops
                .iter()
                .filter_map(|op| if let Op::Set(key, value) = op { Some((key, *value)) } else { None })
                .collect();
            for (key, value) in last {
                written.entry(key.clone()).or_default().push((txn.lsn.unwrap_or(0), value));
            }
        }
        for (key, mut values) in written {
            values.sort();
            self.orders.insert(key, values.into_iter().map(|(_, value)| value).collect());
        }
    }

    /// Nothing that is in the store is missing, or there in part.
    fn check_lists(&self, txns: &[Txn]) -> Result<(), String> {
        for (i, txn) in txns.iter().enumerate().filter(|(i, _)| self.counts[*i]) {
            let mut mine: BTreeMap<&String, Vec<u64>> = BTreeMap::new();
            for op in &txn.ops {
                if let Op::Append(key, element) = op {
                    mine.entry(key).or_default().push(*element);
                }
            }
            for (key, elements) in mine {
                let order = self.orders.get(key).map_or(&[][..], |order| order);
                let Some(at) = order.iter().position(|element| *element == elements[0]) else {
                    return Err(format!(
                        "{key}: {elements:?} is lost, or was never there: number {i}, {txn:?}"
                    ));
                };
                if order.get(at..at + elements.len()) != Some(&elements[..]) {
                    return Err(format!("{key}: {elements:?} is not in one piece in {order:?}: {txn:?}"));
                }
            }
        }
        Ok(())
    }

    fn graph(&self, txns: &[Txn]) -> Graph {
        let mut graph: Graph = vec![BTreeMap::new(); txns.len()];
        let mut edge = |from: usize, to: usize, edge: Edge| {
            if from != to && self.counts[from] && self.counts[to] {
                graph[from].entry(to).or_insert(edge);
            }
        };
        for order in self.orders.values() {
            for pair in order.windows(2) {
                edge(self.writers[&pair[0]], self.writers[&pair[1]], Edge::Ww);
            }
        }
        for (i, txn) in txns.iter().enumerate().filter(|(i, _)| self.counts[*i]) {
            let lists = base_reads(txn).unwrap_or_default().into_iter();
            let lists = lists.map(|(key, list)| (key, list.last().copied()));
            for (key, last) in lists.chain(registers(txn)) {
                let order = self.orders.get(&key).map_or(&[][..], |order| order);
                let at = last.map(|last| order.iter().position(|element| *element == last));
                if let Some(last) = last {
                    edge(self.writers[&last], i, Edge::Wr);
                }
                let next = match at {
                    None => order.first(),
                    Some(Some(at)) => order.get(at + 1),
                    // An intermediate value of a register: whoever wrote it wrote it again.
                    Some(None) => None,
                };
                if let Some(next) = next {
                    edge(i, self.writers[next], Edge::Rw);
                }
            }
        }
        for (i, before) in txns.iter().enumerate() {
            let Some(end) = before.end else { continue };
            for (j, after) in txns.iter().enumerate().filter(|(_, after)| after.begin > end) {
                debug_assert!(before.begin < after.begin);
                edge(i, j, Edge::Rt);
            }
        }
        graph
    }
}

/// What a transaction read of each key before it wrote to it, one entry for each read.
fn base_reads(txn: &Txn) -> Result<Vec<(String, Vec<u64>)>, String> {
    let mut own: BTreeMap<&String, Vec<u64>> = BTreeMap::new();
    let mut seen: BTreeMap<&String, Vec<u64>> = BTreeMap::new();
    let mut reads = Vec::new();
    for op in &txn.ops {
        match op {
            Op::Append(key, element) => own.entry(key).or_default().push(*element),
            Op::Read(key, list) => {
                let mine = own.get(key).map_or(&[][..], |mine| mine);
                let Some(base) = list.strip_suffix(mine) else {
                    return Err(format!("its own appends to {key} are not there: {txn:?}"));
                };
                let before = seen.entry(key).or_insert_with(|| base.to_vec());
                if before != base {
                    return Err(format!("{key} was {before:?} before: {txn:?}"));
                }
                reads.push((key.clone(), base.to_vec()));
            }
            Op::Look(..) | Op::Set(..) | Op::Add => {}
        }
    }
    Ok(reads)
}

/// Reads of registers that the transaction had not set itself.
fn registers(txn: &Txn) -> impl Iterator<Item = (String, Option<u64>)> {
    let mut set = BTreeSet::new();
    txn.ops.iter().filter_map(move |op| match op {
        Op::Set(key, _) => {
            set.insert(key);
            None
        }
        Op::Look(key, value) if !set.contains(key) => Some((key.clone(), *value)),
        _ => None,
    })
}

/// All edges but rw, each also prolonged by one rw that follows.
fn without_lone_rw(graph: &Graph) -> Graph {
    let mut next: Graph = vec![BTreeMap::new(); graph.len()];
    for (from, edges) in graph.iter().enumerate() {
        for (middle, edge) in edges.iter().filter(|(_, edge)| **edge != Edge::Rw) {
            next[from].entry(*middle).or_insert(*edge);
            for (to, _) in graph[*middle].iter().filter(|(_, edge)| **edge == Edge::Rw) {
                next[from].entry(*to).or_insert(Edge::Rw);
            }
        }
    }
    next
}

/// The nodes of a circle, if there is one; a short one, if there are several through its first node.
fn find_circle(graph: &Graph) -> Option<Vec<usize>> {
    // Nodes without a way in or out are on no circle; what is left has one.
    let mut alive = vec![true; graph.len()];
    loop {
        let mut has_in = vec![false; graph.len()];
        let mut has_out = vec![false; graph.len()];
        for (from, edges) in graph.iter().enumerate().filter(|(from, _)| alive[*from]) {
            for to in edges.keys().filter(|to| alive[**to]) {
                (has_out[from], has_in[*to]) = (true, true);
            }
        }
        let mut is_same = true;
        for at in 0..graph.len() {
            if alive[at] && !(has_in[at] && has_out[at]) {
                (alive[at], is_same) = (false, false);
            }
        }
        if is_same {
            break;
        }
    }
    let nodes = (0..graph.len()).filter(|at| alive[*at]);
    nodes.filter_map(|start| way_back(graph, &alive, start)).min_by_key(Vec::len)
}

/// The shortest way from a node to itself, breadth first.
fn way_back(graph: &Graph, alive: &[bool], start: usize) -> Option<Vec<usize>> {
    let mut from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for to in graph[at].keys().filter(|to| alive[**to]) {
            if *to == start {
                let mut way = vec![at];
                while way[way.len() - 1] != start {
                    way.push(from[&way[way.len() - 1]]);
                }
                way.reverse();
                return Some(way);
            }
            if !from.contains_key(to) {
                from.insert(*to, at);
                queue.push_back(*to);
            }
        }
    }
    None
}

fn txn(name: &str, begin: u64, end: u64, ops: Vec<Op>) -> Txn {
    let (name, end, lsn) = (name.to_owned(), Some(end), Some(end));
    Txn { name, begin, end, outcome: Outcome::Committed, lsn, ops }
}

fn read(key: &str, list: &[u64]) -> Op {
    Op::Read(key.to_owned(), list.to_vec())
}

fn append(key: &str, element: u64) -> Op {
    Op::Append(key.to_owned(), element)
}

/// The checker itself: each anomaly as a history, and what it must say at either level.
#[test]
fn the_checker_tells_anomalies_from_orders() {
    let x = |list: &[u64]| read("x", list);
    let y = |list: &[u64]| read("y", list);
    type Case = (&'static str, Vec<Txn>, bool, bool);
    let last = |ops| txn("last", 100, 101, ops);
    let cases: [Case; 8] = [
        (
            "one after another",
            vec![
                txn("a", 1, 2, vec![x(&[]), append("x", 1)]),
                txn("b", 3, 4, vec![x(&[1]), append("x", 2)]),
                last(vec![x(&[1, 2])]),
            ],
            true,
            true,
        ),
        (
            "lost update",
            vec![
                txn("a", 1, 3, vec![x(&[]), append("x", 1)]),
                txn("b", 2, 4, vec![x(&[]), append("x", 2)]),
                last(vec![x(&[2])]),
            ],
            false,
            false,
        ),
        (
            "write skew",
            vec![
                txn("a", 1, 3, vec![x(&[]), y(&[]), append("x", 1)]),
                txn("b", 2, 4, vec![x(&[]), y(&[]), append("y", 2)]),
                last(vec![x(&[1]), y(&[2])]),
            ],
            true,
            false,
        ),
        (
            "read skew",
            vec![
                txn("a", 1, 4, vec![x(&[]), y(&[2])]),
                txn("b", 2, 3, vec![x(&[]), append("x", 1), y(&[]), append("y", 2)]),
                last(vec![x(&[1]), y(&[2])]),
            ],
            false,
            false,
        ),
        (
            "a stale read",
            vec![
                txn("a", 1, 2, vec![x(&[]), append("x", 1)]),
                txn("b", 3, 4, vec![x(&[])]),
                last(vec![x(&[1])]),
            ],
            false,
            false,
        ),
        (
            "the read-only anomaly",
            vec![
                txn("w", 1, 8, vec![x(&[]), y(&[]), append("x", 1)]),
                txn("d", 2, 3, vec![y(&[]), append("y", 2)]),
                txn("r", 4, 5, vec![x(&[]), y(&[2])]),
                last(vec![x(&[1]), y(&[2])]),
            ],
            true,
            false,
        ),
        (
            "a long fork",
            vec![
                txn("a", 1, 5, vec![x(&[]), append("x", 1)]),
                txn("b", 2, 6, vec![y(&[]), append("y", 2)]),
                txn("r", 3, 7, vec![x(&[1]), y(&[])]),
                txn("s", 4, 8, vec![x(&[]), y(&[2])]),
                last(vec![x(&[1]), y(&[2])]),
            ],
            false,
            false,
        ),
        (
            "a lost commit",
            vec![txn("a", 1, 2, vec![x(&[]), append("x", 1)]), last(vec![x(&[])])],
            false,
            false,
        ),
    ];
    for (what, txns, is_snapshot, is_serializable) in cases {
        assert_eq!(check(&txns, Level::Snapshot).is_ok(), is_snapshot, "{what}, snapshot");
        assert_eq!(check(&txns, Level::Serializable).is_ok(), is_serializable, "{what}, serializable");
    }
    let mut aborted = txn("a", 1, 2, vec![append("x", 1)]);
    aborted.outcome = Outcome::Aborted;
    assert!(check(&[aborted, txn("b", 1, 2, vec![x(&[1])])], Level::Snapshot).is_err());
    let half = [txn("a", 1, 4, vec![append("x", 1), append("x", 2)]), txn("b", 2, 3, vec![x(&[1])])];
    assert!(check(&half, Level::Snapshot).is_err(), "an intermediate read");
}
