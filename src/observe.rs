//! Watching a store: its [events](crate::Event) and its [figures](crate::Stats), for whoever collects such things.
//!
//! | | |
//! |---|---|
//! | [`Listeners`] | several listeners of one store |
//! | [`FlightRecorder`] | the last minutes' events, written out when something fails |
//! | `TracingListener`, with the feature `tracing` | each event as an event of the `tracing` crate, target `seawall` |
//! | `MetricsListener`, with the feature `metrics` | counts events, and how long they took, in the `metrics` crate's facade |
//! | `MetricsBridge`, with the feature `metrics` | puts a store's figures there |
//!
//! The engine knows neither crate, and a commit pays for neither.

use crate::{Event, EventListener};
use std::sync::Arc;

mod flight;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "tracing")]
mod tracing;

pub use self::flight::{Field, FlightOptions, FlightRecorder};
#[cfg(feature = "metrics")]
pub use self::metrics::{MetricsBridge, MetricsListener};
#[cfg(feature = "tracing")]
pub use self::tracing::TracingListener;

/// Several listeners, each told of every event, in their order. One that panics keeps the event from those behind it.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-listeners-{}", std::process::id()));
/// use seawall::observe::Listeners;
/// use seawall::{Db, Event, EventListener};
/// use std::sync::Arc;
///
/// struct Print;
/// impl EventListener for Print {
///     fn event(&self, event: &Event) {
///         println!("{event:?}");
///     }
/// }
/// let both = Listeners::new([Arc::new(Print) as Arc<dyn EventListener>, Arc::new(Print)]);
/// let db = Db::builder(&dir).events(Arc::new(both)).open()?;
/// # drop(db);
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall::Error>(())
/// ```
pub struct Listeners(Vec<Arc<dyn EventListener>>);

impl Listeners {
    /// Of all these.
    pub fn new(all: impl IntoIterator<Item = Arc<dyn EventListener>>) -> Listeners {
        Listeners(all.into_iter().collect())
    }
}

impl EventListener for Listeners {
    fn event(&self, event: &Event) {
        self.0.iter().for_each(|listener| listener.event(event));
    }
}

/// What an event is called where it is counted or written down.
fn event_name(event: &Event) -> &'static str {
    match event {
        Event::CheckpointDone { .. } => "checkpoint_done",
        Event::WriteStall { .. } => "write_stall",
        Event::SlowSync { .. } => "slow_sync",
        Event::SnapshotOld { .. } => "snapshot_old",
        Event::PreparedOld { .. } => "prepared_old",
        Event::SlotLost { .. } => "slot_lost",
        Event::RewindGivenUp { .. } => "rewind_given_up",
        Event::NoSpace => "no_space",
        Event::Poisoned { .. } => "poisoned",
        Event::Degraded { .. } => "degraded",
        Event::Fenced { .. } => "fenced",
        Event::Promoted { .. } => "promoted",
        _ => "other",
    }
}
