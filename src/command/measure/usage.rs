//! What a measurement cost the machine: processor time and context switches of this process.
//!
//! Processor time is the process's own clock. Switches are counted by the kernel for each thread, and are gone with
//! it: workers read theirs before they end, and those of the threads that stay (the store's) are read before and
//! after.

use std::ops::{AddAssign, Sub};
use std::time::Duration;

/// Times at which a thread left a processor: because it waited, or because it had to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
}

/// Used up so far, or between two moments. No switches where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) switches: Option<Switches>,
}

impl Usage {
    /// Of all threads that there are now.
    pub(crate) fn now() -> Usage {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Usage { cpu: Duration::new(seconds, nanos), switches: Switches::of_all_threads() }
    }

    /// What was used since `before`, with what threads that came and went meanwhile counted for themselves.
    pub(crate) fn since(self, before: Usage, gone: Option<Switches>) -> Usage {
        let staying = self.switches.zip(before.switches).map(|(now, before)| now - before);
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            switches: staying.zip(gone).map(|(mut switches, gone)| {
                switches += gone;
                switches
            }),
        }
    }
}

impl Switches {
    /// Of the calling thread, since it began.
    pub(crate) fn of_this_thread() -> Option<Switches> {
        Switches::parse(&std::fs::read_to_string("/proc/thread-self/status").ok()?)
    }

    fn of_all_threads() -> Option<Switches> {
        let mut sum = Switches::default();
        for entry in std::fs::read_dir("/proc/self/task").ok()? {
            // A thread may end while we look.
            let status = std::fs::read_to_string(entry.ok()?.path().join("status"));
            sum += status.ok().and_then(|status| Switches::parse(&status)).unwrap_or_default();
        }
        Some(sum)
    }

    fn parse(status: &str) -> Option<Switches> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().parse::<u64>().ok()
        };
        Some(Switches {
            voluntary: field("voluntary_ctxt_switches")?,
            involuntary: field("nonvoluntary_ctxt_switches")?,
        })
    }
}

impl AddAssign for Switches {
    fn add_assign(&mut self, other: Switches) {
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}

impl Sub for Switches {
    type Output = Switches;
    fn sub(self, other: Switches) -> Switches {
        Switches {
            voluntary: self.voluntary.saturating_sub(other.voluntary),
            involuntary: self.involuntary.saturating_sub(other.involuntary),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str =
        "Name:\tseawall\nThreads:\t3\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";

    #[test]
    fn switches_are_read_as_the_kernel_writes_them() {
        let found = Switches { voluntary: 150, involuntary: 545 };
        assert_eq!(Switches::parse(STATUS), Some(found));
        assert_eq!(Switches::parse("Name:\tseawall\n"), None);
        assert_eq!(Switches::parse(&STATUS.replace("545", "many")), None);
    }

    #[test]
    fn threads_that_came_and_went_are_counted_too() {
        let of = |cpu_ms, voluntary| Usage {
            cpu: Duration::from_millis(cpu_ms),
            switches: Some(Switches { voluntary, involuntary: 1 }),
        };
        let gone = Switches { voluntary: 1000, involuntary: 10 };
        let used = of(50, 30).since(of(20, 10), Some(gone));
        assert_eq!(used.cpu, Duration::from_millis(30));
        assert_eq!(used.switches, Some(Switches { voluntary: 1020, involuntary: 10 }));
        assert_eq!(of(50, 30).since(of(20, 10), None).switches, None);
        let before = Usage::now();
        assert!(Usage::now().since(before, None).cpu < Duration::from_secs(60));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_waits_has_switched() {
        let waits = 5;
        let switched = std::thread::spawn(move || {
            for _ in 0..waits {
                std::thread::sleep(Duration::from_millis(1));
            }
            Switches::of_this_thread()
        });
        let switched = switched.join().ok().flatten();
        assert!(switched.is_some_and(|switches| switches.voluntary >= waits), "{switched:?}");
    }
}
