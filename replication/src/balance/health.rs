//! What is known of a target by how requests to it went. Pure.
//!
//! ```text
//!        failed, FAILURES_MAX times in a row        due
//! well ─────────────────────────────────────► out ───────► tried by one request
//!   ▲                                          ▲                  │ failed: out for twice as long
//!   └──────────────────────────────────────────┴──────────────────┘ answered: well
//! ```

use super::Report;

/// So many failures in a row leave a target out.
const FAILURES_MAX: u32 = 3;
/// For so long at first, and at most.
const OUT_US: (u64, u64) = (100_000, 10_000_000);
/// A trial that nobody reports is forgotten after this.
const TRIAL_US_MAX: u64 = 30_000_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    failures: u32,
    /// Left out until then, and for how long.
    out: Option<(u64, u64)>,
    /// Since when it is being tried.
    tried_at: Option<u64>,
    /// Asked, and not reported.
    open: u64,
    /// An average of what answers took, the newest counting for an eighth.
    latency_us: u64,
}

impl Health {
    pub(super) fn may_ask(&self, now: u64) -> bool {
        self.out.is_none() || self.is_due(now)
    }

    /// Left out, long enough, and nobody tries it.
    pub(super) fn is_due(&self, now: u64) -> bool {
        let is_tried = self.tried_at.is_some_and(|at| now.saturating_sub(at) < TRIAL_US_MAX);
        self.out.is_some_and(|(until, _)| now >= until) && !is_tried
    }

    pub(super) fn asked(&mut self, now: u64) {
        self.open += 1;
        if self.out.is_some() {
            self.tried_at = Some(now);
        }
    }

    pub(super) fn report(&mut self, now: u64, report: Report) {
        self.open = self.open.saturating_sub(1);
        let was_tried = self.tried_at.take().is_some();
        match report {
            Report::Answered { latency_us } => {
                (self.failures, self.out) = (0, None);
                self.latency_us = match self.latency_us {
                    0 => latency_us.max(1),
                    old => (old.saturating_mul(7).saturating_add(latency_us) / 8).max(1),
                };
            }
            Report::Failed => {
                self.failures = self.failures.saturating_add(1);
                match self.out {
                    // Asked before it was left out: it counts once.
                    Some(_) if !was_tried => {}
                    Some((_, long)) => {
                        let long = long.saturating_mul(2).min(OUT_US.1);
                        self.out = Some((now.saturating_add(long), long));
                    }
                    None if self.failures >= FAILURES_MAX => {
                        self.out = Some((now.saturating_add(OUT_US.0), OUT_US.0));
                    }
                    None => {}
                }
            }
            Report::Withdrawn => {}
        }
    }

    /// How long a request would take, by guess.
    pub(super) fn cost(&self) -> u64 {
        self.latency_us.max(1).saturating_mul(self.open + 1)
    }
}
