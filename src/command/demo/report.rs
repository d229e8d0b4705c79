//! What a demo found, for people and as JSON.

use super::bank::Check;
use super::kill::Run;
use crate::command::output::Format;
use crate::command::{Failure, Outcome, Ui};
use serde::Serialize;
use std::time::Duration;

/// Everything that a demo counts and measures.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) device_before: f64,
    pub(super) device_after: f64,
    pub(super) text_rows: u64,
    pub(super) puts: Vec<Puts>,
    pub(super) seconds: f64,
    commit_us: Vec<u32>,
    flowing: Duration,
    commits: u64,
    syncs: u64,
    runs: u64,
    crashes: u64,
    recoveries_ms: Vec<f64>,
    lost: u64,
    half_applied: u64,
    never_tried: u64,
    kept_unacknowledged: u64,
    totals_changed: u64,
}

/// Single puts by so many threads.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Puts {
    pub(super) threads: u32,
    pub(super) commits_per_s: f64,
    pub(super) p50_us: u32,
    pub(super) p99_us: u32,
    pub(super) commits_per_sync: f64,
    pub(super) device_syncs_per_s: f64,
    pub(super) ratio_to_device: f64,
}

/// The report's JSON. The transfers' figures are those of the child processes, kills included.
#[derive(Debug, Serialize)]
struct Figures<'a> {
    acknowledged: u64,
    lost: u64,
    half_applied: u64,
    crashes: u64,
    commits_per_s: f64,
    p50_us: u32,
    p99_us: u32,
    commits_per_sync: f64,
    device_syncs_per_s: f64,
    ratio_to_device: f64,
    /// The longest.
    recovery_ms: f64,
    recoveries_ms: &'a [f64],
    device_syncs_per_s_before: f64,
    device_syncs_per_s_after: f64,
    kept_unacknowledged: u64,
    never_tried: u64,
    total_unchanged: bool,
    text_rows: u64,
    puts: &'a [Puts],
    seconds: f64,
}

impl Report {
    pub(super) fn add_run(&mut self, run: &Run, check: &Check, recovery_ms: f64) {
        self.runs += 1;
        self.crashes += u64::from(run.crashed);
        self.commit_us.extend(run.acknowledged.iter().map(|report| report.commit_us));
        self.flowing += run.flowing;
        self.commits += run.commits;
        self.syncs += run.syncs;
        self.recoveries_ms.push(recovery_ms);
        self.lost += check.lost;
        self.half_applied += check.half_applied;
        self.never_tried += check.never_tried;
        self.kept_unacknowledged += check.kept_unacknowledged;
        self.totals_changed += u64::from(!check.total_unchanged);
    }

    pub(super) fn passed(&self) -> bool {
        let kept =
            self.lost == 0 && self.half_applied == 0 && self.never_tried == 0 && self.totals_changed == 0;
        kept && self.crashes == self.runs
    }

    /// The report on standard output.
    pub(super) fn print(&self, ui: &Ui) -> Outcome {
        let mut sorted = self.commit_us.clone();
        sorted.sort_unstable();
        let commits_per_s = sorted.len() as f64 / self.flowing.as_secs_f64().max(1e-9);
        let device = self.device();
        let figures = Figures {
            acknowledged: sorted.len() as u64,
            lost: self.lost,
            half_applied: self.half_applied,
            crashes: self.crashes,
            commits_per_s,
            p50_us: percentile(&sorted, 50),
            p99_us: percentile(&sorted, 99),
            commits_per_sync: self.commits as f64 / self.syncs.max(1) as f64,
            device_syncs_per_s: device,
            ratio_to_device: commits_per_s / device.max(1e-9),
            recovery_ms: self.recoveries_ms.iter().copied().fold(0.0, f64::max),
            recoveries_ms: &self.recoveries_ms,
            device_syncs_per_s_before: self.device_before,
            device_syncs_per_s_after: self.device_after,
            kept_unacknowledged: self.kept_unacknowledged,
            never_tried: self.never_tried,
            total_unchanged: self.totals_changed == 0,
            text_rows: self.text_rows,
            puts: &self.puts,
            seconds: self.seconds,
        };
        self.warn_of_drift(ui);
        let mut out = ui.out();
        if ui.format == Format::Table {
            out.raw(self.table(&figures).as_bytes())?;
        } else {
            out.value(&figures)?;
        }
        out.finish()
    }

    /// Says so if the device was not the same throughout: ratios to it are then rough.
    fn warn_of_drift(&self, ui: &Ui) {
        let rates = || {
            self.puts
                .iter()
                .map(|puts| puts.device_syncs_per_s)
                .chain([self.device_before, self.device_after])
        };
        let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
        if most > 2.0 * least {
            ui.warn(format!(
                "the device did between {least:.0} and {most:.0} writes/s: something else keeps the machine busy, and \
                 the figures are rough"
            ));
        }
    }

    /// The device's rate: the median of all its measurements, which are spread over the demo.
    fn device(&self) -> f64 {
        let mut rates = vec![self.device_before, self.device_after];
        rates.extend(self.puts.iter().map(|puts| puts.device_syncs_per_s));
        rates.sort_unstable_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or_default()
    }

    fn table(&self, figures: &Figures<'_>) -> String {
        let line = |name: &str, text: String| format!("{name:<18} {text}\n");
        let mut table = String::new();
        table += &line("kill -9", format!("{} times, commits in flight each time", figures.crashes));
        table += &line("acknowledged", format!("{} transfers", figures.acknowledged));
        table += &line("lost", figures.lost.to_string());
        table += &line("half applied", figures.half_applied.to_string());
        let total = if figures.total_unchanged { "unchanged" } else { "CHANGED" };
        table += &line("total of balances", total.to_owned());
        let transfers = format!(
            "{:.0} transfers/s, p50 {} µs, p99 {} µs, {:.1} commits a sync",
            figures.commits_per_s, figures.p50_us, figures.p99_us, figures.commits_per_sync
        );
        table += &line("synced commits", transfers);
        let device = format!(
            "{:.0} durable 4 KiB writes/s ({:.0} before, {:.0} after); transfers: {:.1} × that",
            figures.device_syncs_per_s, self.device_before, self.device_after, figures.ratio_to_device
        );
        table += &line("device", device);
        for puts in &self.puts {
            let text = format!(
                "{:.0} commits/s, p50 {} µs, p99 {} µs, {:.1} a sync, {:.1} × the device",
                puts.commits_per_s, puts.p50_us, puts.p99_us, puts.commits_per_sync, puts.ratio_to_device
            );
            table += &line(&format!("puts, {} threads", puts.threads), text);
        }
        let times: Vec<String> = self.recoveries_ms.iter().map(|ms| format!("{ms:.1} ms")).collect();
        table += &line("recovery", times.join(", "));
        table + &line("took", format!("{:.0} s", self.seconds))
    }

    /// Whether the promise was kept.
    pub(super) fn verdict(&self) -> Outcome {
        if self.passed() {
            return Ok(());
        }
        let mut wrong = Vec::new();
        for (count, what) in [
            (self.lost, "acknowledged and lost"),
            (self.half_applied, "half applied"),
            (self.never_tried, "in the store that nobody tried"),
            (self.totals_changed, "checks with another total"),
            (self.runs - self.crashes, "runs that ended without a kill in the middle of commits"),
        ] {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        }
        Err(Failure::error(format!("the promise was broken: {}", wrong.join(", "))))
    }
}

/// The value below which `percent` of the sorted values lie; 0 of none.
pub(super) fn percentile(sorted: &[u32], percent: usize) -> u32 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}
