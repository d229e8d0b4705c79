//! Running a test under many interleavings, for this crate's tests and those of the crates above. Compiled only with
//! `--cfg seawall_shuttle`.

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, Runner};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Random choices find most; priorities (PCT) find what takes threads to be held back for long, at one place fewer than
/// the depth says.
const DEPTHS: [usize; 2] = [3, 5];

fn config(failure_persistence: FailurePersistence) -> Config {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    config.failure_persistence = failure_persistence;
    config
}

/// One run for each scheduler, of `iterations` interleavings.
fn runs(
    iterations: usize,
    persistence: &FailurePersistence,
    body: impl Fn() + Send + Sync + Clone + 'static,
) -> Vec<Box<dyn FnOnce()>> {
    let (random, config_of_random) = (body.clone(), config(persistence.clone()));
    let mut runs: Vec<Box<dyn FnOnce()>> = vec![Box::new(move || {
        Runner::new(RandomScheduler::new_from_seed(1, iterations), config_of_random).run(random);
    })];
    for depth in DEPTHS {
        let (body, config) = (body.clone(), config(persistence.clone()));
        runs.push(Box::new(move || {
            Runner::new(PctScheduler::new_from_seed(2, depth, iterations), config).run(body);
        }));
    }
    runs
}

/// Explores `iterations` interleavings of each kind; any panic, deadlock or endless loop fails the test, and prints the
/// schedule that `shuttle::replay` takes.
pub fn explore(iterations: usize, body: impl Fn() + Send + Sync + Clone + 'static) {
    for run in runs(iterations, &FailurePersistence::Print, body) {
        run();
    }
}

/// What goes wrong within `iterations` interleavings of each kind.
pub fn find(iterations: usize, body: impl Fn() + Send + Sync + Clone + 'static) -> Option<String> {
    runs(iterations, &FailurePersistence::None, body).into_iter().find_map(|run| {
        let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}
