//! A store's figures and events in the facade of the `metrics` crate.

use crate::wal::HistogramSnapshot;
use crate::{Event, EventListener, Stats};
use ::metrics::{counter, gauge, histogram};

/// Counts events in `seawall_events_total`, by the label `event`, and puts the times of those that have one into the
/// histogram `seawall_event_seconds`.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-metrics-{}", std::process::id()));
/// use seawall::observe::MetricsListener;
///
/// let db = seawall::Db::builder(&dir).events(std::sync::Arc::new(MetricsListener)).open()?;
/// # drop(db);
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricsListener;

impl EventListener for MetricsListener {
    fn event(&self, event: &Event) {
        let took = match event {
            Event::CheckpointDone { took, .. } | Event::WriteStall { took } | Event::SlowSync { took } => {
                Some(*took)
            }
            _ => None,
        };
        let name = super::event_name(event);
        counter!("seawall_events_total", "event" => name).increment(1);
        if let Some(took) = took {
            histogram!("seawall_event_seconds", "event" => name).record(took.as_secs_f64());
        }
    }
}

/// Puts the figures of one store into the recorder of the `metrics` crate, under the names that
/// [`Stats::to_prometheus`] has for them. Call [`publish`](MetricsBridge::publish) as often as figures are wanted.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("seawall-bridge-{}", std::process::id()));
/// use seawall::observe::MetricsBridge;
///
/// let db = seawall::Db::open(&dir)?;
/// let mut bridge = MetricsBridge::default();
/// bridge.publish(&db.stats()); // now and then, from a thread of the program's
/// # drop(db);
/// # std::fs::remove_dir_all(dir).unwrap();
/// # Ok::<(), seawall::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct MetricsBridge {
    /// What has been put there already.
    published: Stats,
}

impl MetricsBridge {
    /// Counters and gauges become what the store's are now. Of histograms, what was added since the last call is
    /// recorded: each value as the middle of its bucket, which is a power of two of a microsecond wide.
    pub fn publish(&mut self, stats: &Stats) {
        for (kind, (name, _, value)) in stats.families() {
            let name = format!("seawall_{name}");
            match kind {
                "counter" => counter!(name).absolute(value),
                _ => gauge!(name).set(value as f64),
            }
        }
        gauge!("seawall_oldest_snapshot_age_seconds").set(stats.oldest_snapshot_age.as_secs_f64());
        for retainer in &stats.log_retained {
            let who = || retainer.who.clone();
            gauge!("seawall_log_retained_bytes", "who" => who()).set(retainer.bytes as f64);
            gauge!("seawall_log_retained_age_seconds", "who" => who()).set(retainer.age.as_secs_f64());
        }
        // Who keeps nothing any more.
        for gone in &self.published.log_retained {
            if stats.log_retained.iter().all(|retainer| retainer.who != gone.who) {
                gauge!("seawall_log_retained_bytes", "who" => gone.who.clone()).set(0.0);
                gauge!("seawall_log_retained_age_seconds", "who" => gone.who.clone()).set(0.0);
            }
        }
        let before = &self.published;
        for (name, now, before) in [
            ("seawall_commit_seconds", &stats.commit_us, &before.commit_us),
            ("seawall_log_write_seconds", &stats.sync_us, &before.sync_us),
            ("seawall_checkpoint_seconds", &stats.checkpoint_us, &before.checkpoint_us),
        ] {
            record(name, now, before);
        }
        self.published = stats.clone();
    }
}

fn record(name: &'static str, now: &HistogramSnapshot, before: &HistogramSnapshot) {
    let histogram = histogram!(name);
    for (bucket, count) in now.buckets.iter().enumerate() {
        let added = count.saturating_sub(before.buckets.get(bucket).copied().unwrap_or(0));
        if added > 0 {
            // Values from half of this on; bucket 0 holds what took less than a microsecond.
            let end = 2_f64.powi(i32::try_from(bucket).unwrap_or(i32::MAX));
            let middle = if bucket == 0 { 0.5 } else { end * 0.75 };
            histogram.record_many(middle / 1e6, usize::try_from(added).unwrap_or(usize::MAX));
        }
    }
}
