//! Log shipping over loopback TLS: how fast a replica catches up, what following and waiting cost a primary, and how soon another
//! takes its place.
//!
//! ```text
//! cargo bench -p seawall-benches --features net,postgres --bench shipping \
//!     [-- --seconds 2 --reps 3 --mib 2048 --only 'bulk;async;paced;durable;postgres;failover']
//! ```
//!
//! Every replica is a process of its own, and all of them share one disk and the processors. The ways run one after the other, again
//! and again; what is printed are medians over the repetitions. The first table has what was asked beside what was found.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench fails by panicking, prints, and looks at the real clock"
)]

#[path = "shipping/bulk.rs"]
mod bulk;
#[path = "../../replication/tests/net/certificates.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod certificates;
#[path = "shipping/commits.rs"]
mod commits;
#[path = "shipping/failover.rs"]
mod failover;
#[path = "shipping/node.rs"]
mod node;
#[cfg(feature = "postgres")]
#[path = "shipping/postgres.rs"]
mod postgres;
#[path = "shipping/primary.rs"]
mod primary;
#[cfg(feature = "postgres")]
#[path = "../../txn/tests/postgres/server.rs"]
#[allow(unreachable_pub, reason = "the tests use all of it")]
mod server;

use commits::Followers;
use seawall_benches::{median, print_device};
use seawall_engine::{Ack, Db, DbBuilder};
use std::path::Path;
use std::time::Duration;

const BASE: &str = env!("CARGO_TARGET_TMPDIR");
const VALUE: [u8; 100] = [0x5a; 100];
const SEGMENT_BYTES: u64 = 16 << 20;
/// The name in a primary's certificate.
const ADDRESSED: &str = "primary.test";
/// Of the log alone, so much is written at most.
const LOG_MIB: u64 = 1024;

fn builder(dir: &Path) -> DbBuilder {
    Db::builder(dir).segment_bytes(SEGMENT_BYTES).memory_budget(512 << 20).log_bytes_max(1 << 30)
}

/// Figures by name, in the order in which they came, one of each repetition.
#[derive(Default)]
pub(crate) struct Figures(Vec<(String, Vec<f64>)>);

impl Figures {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name.to_owned(), vec![value])),
        }
    }

    fn values(&self, name: &str) -> Option<&[f64]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, values)| &**values)
    }

    fn median(&self, name: &str) -> Option<f64> {
        self.values(name).map(|values| median(values.iter().copied()))
    }

    /// The median of the ratios within each repetition.
    fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        let (of, to) = (self.values(of)?, self.values(to)?);
        Some(median(of.iter().zip(to).map(|(of, to)| of / to)))
    }

    /// The median of the differences within each repetition.
    fn difference(&self, of: &str, to: &str) -> Option<f64> {
        let (of, to) = (self.values(of)?, self.values(to)?);
        Some(median(of.iter().zip(to).map(|(of, to)| of - to)))
    }

    fn print(&self) {
        println!("| | median | from | to |\n|---|--:|--:|--:|");
        for (name, values) in &self.0 {
            let (low, high) = values
                .iter()
                .fold((f64::MAX, f64::MIN), |(low, high), &value| (low.min(value), high.max(value)));
            let text =
                |value: f64| if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
            println!(
                "| {name} | {} | {} | {} |",
                text(median(values.iter().copied())),
                text(low),
                text(high)
            );
        }
    }
}

/// One line of what was asked: the figure, and whether it is as it should be.
fn line(asked: &str, found: Option<(String, bool)>) {
    if let Some((found, is_met)) = found {
        println!("| {asked} | {found} | {} |", if is_met { "met" } else { "**missed**" });
    }
}

fn print_asked(figures: &Figures) {
    println!("| asked | found | |\n|---|---|---|");
    let shipped = figures.median("received and durable, MiB/s");
    let log = figures.ratio("received and durable, MiB/s", "log alone, MiB/s");
    line(
        "Shipping: at least 500 MiB/s, or the speed of the log alone",
        shipped.zip(log).map(|(mib, ratio)| {
            (format!("{mib:.0} MiB/s, {ratio:.2} of the log alone"), mib >= 500.0 || ratio >= 1.0)
        }),
    );
    for committers in [1, 8, 64] {
        let who = people(committers);
        let with = format!("{who}, one follows, commits/s");
        let sink = format!("{who}, one without a disk follows, commits/s");
        let alone = format!("{who}, nobody follows, commits/s");
        let idle = figures.median(&format!("{who}, one follows, idle %"));
        let slower = |ratio: f64| (1.0 - ratio) * 100.0;
        line(
            &format!("Asynchronous shipping slows {who} by under 5 %, where processors are left"),
            figures.ratio(&with, &alone).zip(figures.ratio(&sink, &alone)).zip(idle).map(
                |((with, sink), idle)| {
                    let text = format!(
                        "{:.1} % ({:.1} % where the follower has no disk); {idle:.0} % of the processors idle",
                        slower(with),
                        slower(sink)
                    );
                    (text, with > 0.95)
                },
            ),
        );
    }
    for committers in [1, 8, 64] {
        let of = |kind: &str, what: &str| format!("{} paced, {kind}, {what}", people(committers));
        let (alone, with) = (|what| of("nobody follows", what), |what| of("one follows", what));
        let rate = figures.ratio(&with("commits/s"), &alone("commits/s"));
        let p50 = figures.ratio(&with("p50 µs"), &alone("p50 µs"));
        let p99 = figures.ratio(&with("p99 µs"), &alone("p99 µs"));
        let idle = figures.median(&with("idle %"));
        line(
            &format!("The same of {} at half of their rate: p50", people(committers)),
            rate.zip(p50).zip(p99).zip(idle).map(|(((rate, p50), p99), idle)| {
                let text = format!("{p50:.2} × (p99 {p99:.2} ×, rate {rate:.2} ×); {idle:.0} % idle");
                (text, p50 < 1.05 && rate > 0.95)
            }),
        );
    }
    let added = figures.difference("1 committer, ANY 1 of 2, p50 µs", "1 committer, local, p50 µs");
    let sync = figures.median("a replica's sync, 1 at once, µs");
    line(
        "A durable commit adds at most one replica's sync and 150 µs",
        added.zip(sync).map(|(added, sync)| {
            (format!("{added:.0} µs, of which {sync:.0} are such a sync alone"), added <= sync + 150.0)
        }),
    );
    line(
        "64 durable committers: at least 0.5 of the local rate",
        figures
            .ratio("64 committers, ANY 1 of 2, commits/s", "64 committers, local, commits/s")
            .map(|ratio| (format!("{ratio:.2}"), ratio >= 0.5)),
    );
    for clients in ["1 committer", "64 committers"] {
        line(
            &format!("{clients}, durable: at least 3 × PostgreSQL"),
            figures
                .ratio(
                    &format!("{clients}, ANY 1 of 2, commits/s"),
                    &format!("PostgreSQL, {clients}, ANY 1 of 2, commits/s"),
                )
                .map(|ratio| (format!("{ratio:.2} ×"), ratio >= 3.0)),
        );
    }
    line(
        "Promotion to the first commit: under 1 s",
        figures.median("promotion to first commit, ms").map(|ms| (format!("{ms:.0} ms"), ms < 1000.0)),
    );
    line(
        "Rejoin by rewind after 10 s apart: under 5 s",
        figures.median("rejoin by rewind, s").map(|s| (format!("{s:.2} s"), s < 5.0)),
    );
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "node") {
        return node::run(&args[2..]);
    }
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let number =
        |name: &str, default: f64| value(name).map_or(default, |text| text.parse().expect("a number"));
    let (seconds, reps) = (number("--seconds", 2.0), number("--reps", 3.0) as usize);
    let mib = number("--mib", 2048.0) as u64;
    let only = value("--only").unwrap_or_default();
    let wants = |part: &str| only.is_empty() || only.split(';').any(|wanted| wanted == part);
    print_device(BASE);
    let mut figures = Figures::default();
    if wants("bulk") {
        let bulk = bulk::Bulk::new(mib);
        (0..reps).for_each(|_| bulk.measure(&mut figures));
        bulk.close();
    }
    commits_of_all(reps, seconds, &wants, &mut figures);
    if wants("failover") {
        for _ in 0..reps {
            failover::measure(number("--store-mib", 1024.0) as u64, Duration::from_secs(10), &mut figures);
        }
    }
    println!("{reps} repetitions, interleaved; commits for {seconds} s each\n");
    print_asked(&figures);
    println!();
    figures.print();
}

/// Who follows, and whether commits wait for them, by name.
type Kinds = [(&'static str, Followers, Ack); 3];

const FOLLOWED: Kinds = [
    ("nobody follows", Followers::Nobody, Ack::Local),
    ("one without a disk follows", Followers::Sink, Ack::Local),
    ("one follows", Followers::Replicas(1), Ack::Local),
];

const WAITED_FOR: Kinds = [
    ("local", Followers::Nobody, Ack::Local),
    ("local, 2 follow", Followers::Replicas(2), Ack::Local),
    ("ANY 1 of 2", Followers::Replicas(2), Ack::Durable),
];

fn commits_of_all(reps: usize, seconds: f64, wants: &dyn Fn(&str) -> bool, figures: &mut Figures) {
    #[cfg(feature = "postgres")]
    let streaming = wants("postgres").then(postgres::Streaming::start).flatten();
    let measure = |committers, kinds: Kinds, figures: &mut Figures| {
        for (kind, followers, ack) in kinds {
            let name = format!("{}, {kind}", people(committers));
            commits::measure(&name, (followers, ack), committers, None, seconds, figures);
        }
    };
    for _ in 0..reps {
        if wants("async") {
            [1, 8, 64].into_iter().for_each(|committers| measure(committers, FOLLOWED, figures));
        }
        if wants("paced") {
            [1, 8, 64].into_iter().for_each(|committers| paced(committers, seconds, figures));
        }
        for committers in [1, 64] {
            if wants("durable") {
                commits::replica_sync(if committers == 1 { 1 } else { 2 }, figures);
                measure(committers, WAITED_FOR, figures);
            }
            #[cfg(feature = "postgres")]
            if let Some(streaming) = &streaming {
                for (kind, waits) in [("local", false), ("ANY 1 of 2", true)] {
                    let name = format!("PostgreSQL, {}, {kind}", people(committers));
                    streaming.measure(&name, waits, committers, seconds, figures);
                }
            }
        }
    }
}

/// Half of what as many committers do without pause and alone: processors are left.
fn paced(committers: usize, seconds: f64, figures: &mut Figures) {
    let alone = (Followers::Nobody, Ack::Local);
    let most = commits::measure(
        &format!("{}, without pause", people(committers)),
        alone,
        committers,
        None,
        seconds / 2.0,
        figures,
    );
    for (kind, followers, ack) in FOLLOWED {
        let name = format!("{} paced, {kind}", people(committers));
        commits::measure(&name, (followers, ack), committers, Some(most / 2.0), seconds, figures);
    }
}

fn people(committers: usize) -> String {
    if committers == 1 { "1 committer".to_owned() } else { format!("{committers} committers") }
}
