//! Thresholds: what was asserted, what was found, and exit code 7.

use super::report::{Report, Row};
use crate::command::measure::units::{self, show_count, show_threads, show_us};
use crate::command::{Exit, Failure, Outcome};
use clap::Args;
use std::time::Duration;

/// What every workload, with every number of threads, must keep to.
#[derive(Debug, Default, Args)]
pub(super) struct Thresholds {
    /// Exit 7 unless half of the operations took no longer than this
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    assert_p50: Option<Duration>,
    /// Exit 7 unless 99 of 100 operations took no longer than this
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    assert_p99: Option<Duration>,
    /// Exit 7 unless 999 of 1,000 operations took no longer than this
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    assert_p999: Option<Duration>,
    /// Exit 7 unless there were so many operations a second
    #[arg(long, value_name = "N")]
    assert_ops: Option<u64>,
}

/// Fails with exit code 7 if a threshold was missed, or the run is slower than the one it is compared with.
pub(super) fn verdict(thresholds: &Thresholds, report: &Report) -> Outcome {
    let mut missed: Vec<String> = report.rows.iter().flat_map(|row| thresholds.missed(row)).collect();
    for compared in report.comparison.iter().filter(|compared| compared.slower) {
        missed.push(format!(
            "{} with {} is slower than it was: {:.2} × the operations a second, {:.2} × the p99",
            compared.workload,
            show_threads(compared.threads),
            compared.ops_ratio,
            compared.p99_ratio
        ));
    }
    if missed.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Threshold, missed.join("; "))) }
}

impl Thresholds {
    fn missed(&self, row: &Row) -> Vec<String> {
        let mut missed = Vec::new();
        let latency = &row.latency;
        for (name, limit, found_us) in [
            ("p50", self.assert_p50, latency.p50_us),
            ("p99", self.assert_p99, latency.p99_us),
            ("p99.9", self.assert_p999, latency.p999_us),
        ] {
            let limit_us = limit.map_or(f64::INFINITY, |limit| limit.as_secs_f64() * 1e6);
            if found_us > limit_us {
                let (found, limit) = (show_us(found_us), show_us(limit_us));
                let (workload, threads) = (&row.workload, show_threads(row.threads));
                missed.push(format!("{workload} with {threads}: {name} is {found}, above {limit}"));
            }
        }
        if let Some(least) = self.assert_ops.filter(|least| row.ops_per_s < *least as f64) {
            missed.push(format!(
                "{} with {}: {} operations a second, below {}",
                row.workload,
                show_threads(row.threads),
                show_count(row.ops_per_s),
                show_count(least as f64)
            ));
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::test_row;
    use super::*;

    #[test]
    fn every_threshold_is_looked_at() {
        let row = test_row("fillsync", 8, 1000.0, 400.0);
        let us = |us| Some(Duration::from_micros(us));
        let none = Thresholds::default;
        // The row's p50 is half of its p99, and its p99.9 twice that.
        for (thresholds, count) in [
            (none(), 0),
            (Thresholds { assert_p50: us(200), assert_p99: us(400), assert_p999: us(800), ..none() }, 0),
            (Thresholds { assert_p50: us(199), ..none() }, 1),
            (Thresholds { assert_p99: us(399), ..none() }, 1),
            (Thresholds { assert_p999: us(799), ..none() }, 1),
            (Thresholds { assert_ops: Some(1000), ..none() }, 0),
            (Thresholds { assert_ops: Some(1001), ..none() }, 1),
            (
                Thresholds {
                    assert_p50: us(1),
                    assert_p99: us(1),
                    assert_p999: us(1),
                    assert_ops: Some(9999),
                },
                4,
            ),
        ] {
            assert_eq!(thresholds.missed(&row).len(), count, "{thresholds:?}");
        }
    }
}
