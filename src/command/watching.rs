//! How a daemon is looked at: figures and health by HTTP, and a flight recorder.
//!
//! ```text
//! serve, replica ─ Shown ─► Board ◄─ http: GET /metrics, /health/live, /health/ready
//!        └ tick: SIGUSR1, samples of links ─► FlightRecorder ─► a file
//! ```

use super::{Failure, Outcome, Ui};
use clap::Args;
use seawall::Db;
use seawall::observe::{Field, FlightOptions, FlightRecorder};
use seawall::replication::node::{Link, to_prometheus};
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

mod http;

/// How often the flight recorder writes down how links stand.
const SAMPLE: Duration = Duration::from_secs(10);

/// Where a daemon can be looked at.
#[derive(Debug, Args)]
pub(crate) struct Watching {
    /// Answers GET /metrics (Prometheus' text), /health/live and /health/ready here, without certificates; a port alone is one of
    /// loopback, port 0 takes any
    #[arg(long, value_name = "HOST:PORT", value_parser = listening)]
    metrics_addr: Option<String>,
    /// Where the last minutes' events are written to on a failure, and on SIGUSR1: a file each, the last 16 are kept. Without
    /// it, beside the store's directory
    #[arg(long, value_name = "DIR")]
    flight_recorder: Option<PathBuf>,
}

/// `HOST:PORT`, or a port of loopback.
fn listening(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    match port.parse::<u16>() {
        Ok(port) => Ok(format!("{host}:{port}")),
        Err(_) => Err(format!("`{text}` is not HOST:PORT, nor a port")),
    }
}

/// What there is to see of a node. It holds the store open.
pub(crate) trait Shown: Send + Sync {
    fn db(&self) -> &Db;

    fn links(&self) -> Vec<Link>;

    /// Why it cannot do its work now; nothing: it can.
    fn unready(&self) -> Vec<String>;
}

/// What is shown at present.
pub(crate) struct Board(Mutex<At>);

enum At {
    Not(&'static str),
    Work(Arc<dyn Shown>),
}

impl Board {
    fn shown(&self) -> Result<Arc<dyn Shown>, &'static str> {
        match &*self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            At::Not(why) => Err(why),
            At::Work(shown) => Ok(Arc::clone(shown)),
        }
    }

    fn set(&self, at: At) {
        let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), at);
        drop(old);
    }

    /// Why the node cannot do its work now.
    fn unready(&self) -> Vec<String> {
        self.shown().map_or_else(|why| vec![why.to_owned()], |shown| shown.unready())
    }

    /// Prometheus' text exposition.
    fn metrics(&self) -> String {
        let mut text = String::new();
        let mut is_ready = false;
        if let Ok(shown) = self.shown() {
            is_ready = shown.unready().is_empty();
            let db = shown.db();
            text = db.stats().to_prometheus();
            text += &to_prometheus(&shown.links());
            let timeline = db.shipping().wal().timeline();
            gauge(&mut text, "epoch", "Epoch that the log is written in.", &[("", timeline.epoch)]);
            gauge(&mut text, "promised_epoch", "Highest epoch promised.", &[("", timeline.promised)]);
            let slots = db.slots();
            let of = |value: fn(&seawall::SlotStatus) -> u64| -> Vec<(&str, u64)> {
                slots.iter().map(|slot| (slot.name.as_str(), value(slot))).collect()
            };
            let is_lost = |slot: &seawall::SlotStatus| u64::from(slot.state == seawall::SlotState::Lost);
            gauge(&mut text, "slot_retained_bytes", "Log kept by a slot.", &of(|slot| slot.retained_bytes));
            gauge(&mut text, "slot_lost", "1 if the log that a slot kept is gone.", &of(is_lost));
        }
        gauge(&mut text, "ready", "1 if the node can do its work.", &[("", u64::from(is_ready))]);
        text
    }
}

/// A family, by the label `name`, or without.
fn gauge(out: &mut String, name: &str, help: &str, values: &[(&str, u64)]) {
    let _ = write!(out, "# HELP seawall_{name} {help}\n# TYPE seawall_{name} gauge\n");
    for (label, value) in values {
        let label = if label.is_empty() { String::new() } else { format!("{{name=\"{label}\"}}") };
        let _ = writeln!(out, "seawall_{name}{label} {value}");
    }
}

/// A daemon that is looked at.
pub(crate) struct Watch {
    recorder: Arc<FlightRecorder>,
    board: Arc<Board>,
    server: Option<http::Server>,
    dump_asked: Arc<AtomicBool>,
    told: Option<PathBuf>,
    sampled: Instant,
}

impl Watching {
    /// Listens and records from now on, of the store in this directory.
    pub(crate) fn start(&self, ui: &Ui, db: &Path, begins: &'static str) -> Outcome<Watch> {
        let board = Arc::new(Board(Mutex::new(At::Not(begins))));
        let listen = |address: &String| {
            http::Server::start(address, Arc::clone(&board))
                .map_err(|error| Failure::error(format!("listening at {address}: {error}")))
        };
        let server = self.metrics_addr.as_ref().map(listen).transpose()?;
        let recorder = FlightRecorder::new(self.flight(db)?);
        let dump_asked = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&dump_asked))
            .map_err(|error| Failure::error(format!("catching SIGUSR1: {error}")))?;
        record_panics(&recorder);
        recorder.note("started", &[("store", Field::Text(&db.display().to_string()))]);
        let watch = Watch { recorder, board, server, dump_asked, told: None, sampled: Instant::now() };
        if let Some(server) = &watch.server {
            let address = server.address().to_string();
            super::serve::tell_address(ui, "metrics", json!({ "metrics": address }), &address)?;
        }
        Ok(watch)
    }

    fn flight(&self, db: &Path) -> Outcome<FlightOptions> {
        let whole = std::path::absolute(db).map_err(|error| Failure::file("looking for", db, &error))?;
        let name = whole.file_name().map_or_else(|| "store".into(), |name| name.to_string_lossy());
        let beside = || whole.parent().unwrap_or(&whole).to_owned();
        let dir = self.flight_recorder.clone().unwrap_or_else(beside);
        if self.flight_recorder.is_some() {
            std::fs::create_dir_all(&dir).map_err(|error| Failure::file("creating", &dir, &error))?;
        }
        Ok(FlightOptions::new(dir, name))
    }
}

/// What led to a panic is written out, beside what the hook before does.
fn record_panics(recorder: &Arc<FlightRecorder>) {
    let (before, recorder) = (std::panic::take_hook(), Arc::downgrade(recorder));
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        if let Some(recorder) = recorder.upgrade() {
            let _ = recorder.dump_in_panic(&panic.to_string());
        }
    }));
}

impl Watch {
    /// For the store's and the links' events.
    pub(crate) fn recorder(&self) -> Arc<FlightRecorder> {
        Arc::clone(&self.recorder)
    }

    /// The node is at work from now on.
    pub(crate) fn show(&self, shown: Arc<dyn Shown>) {
        self.board.set(At::Work(shown));
    }

    /// Now and then.
    pub(crate) fn tick(&mut self, ui: &Ui) {
        if self.dump_asked.swap(false, Ordering::Relaxed) {
            self.sample();
            // What the disk says is told below.
            let _ = self.recorder.dump("asked");
        }
        if self.sampled.elapsed() >= SAMPLE {
            self.sample();
        }
        self.tell(ui);
    }

    fn sample(&mut self) {
        self.sampled = Instant::now();
        for link in self.board.shown().iter().flat_map(|shown| shown.links()) {
            let marks = link.marks;
            self.recorder.note(
                "link",
                &[
                    ("name", Field::Text(&link.name)),
                    ("direction", Field::Text(link.direction.name())),
                    ("connected", Field::Flag(link.is_connected)),
                    ("sent", Field::Number(link.sent.0)),
                    ("received", Field::Number(marks.received.0)),
                    ("durable", Field::Number(marks.durable.0)),
                    ("applied", Field::Number(marks.applied.0)),
                    ("visible", Field::Number(marks.visible.0)),
                    ("source_durable", Field::Number(link.source_durable.0)),
                    ("lag_bytes", Field::Number(link.lag_bytes)),
                    ("lag_seconds", Field::Fraction(link.lag.as_secs_f64())),
                ],
            );
        }
    }

    /// Says where events were written to.
    pub(crate) fn tell(&mut self, ui: &Ui) {
        if let Some(error) = self.recorder.take_error() {
            ui.warn(format!("the flight recorder could not write {error}"));
        }
        let last = self.recorder.last_dump();
        if let Some(path) = last.as_ref().filter(|_| last != self.told) {
            ui.say(format!("the last minutes' events are in {}", path.display()));
        }
        self.told = last;
    }

    /// The store is held no longer; there may be another.
    pub(crate) fn rest(&self, why: &'static str) {
        self.board.set(At::Not(why));
    }

    /// Nobody is answered any more, and the store is held no longer.
    pub(crate) fn hide(&mut self) {
        self.rest("it is being closed");
        self.server = None;
    }
}
