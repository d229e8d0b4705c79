//! Links in Prometheus' text exposition.

use super::Link;
use std::fmt::Write;

/// Name, kind and help of a family, and each link's value of it.
type Family = (&'static str, &'static str, &'static str, fn(&Link) -> f64);

const FAMILIES: [Family; 16] = [
    ("connected", "gauge", "1 if the log is shipped over the link.", |link| {
        f64::from(u8::from(link.is_connected))
    }),
    ("connected_seconds", "gauge", "For how long it has been.", |link| link.connected_for.as_secs_f64()),
    ("silence_seconds", "gauge", "Time since the other side was heard of.", |link| {
        link.silence.as_secs_f64()
    }),
    ("sessions_total", "counter", "Connections that came about.", |link| link.sessions as f64),
    ("errors_total", "counter", "Connections that were lost or refused.", |link| link.errors as f64),
    ("sent_lsn", "gauge", "The replica was sent everything below.", |link| link.sent.0 as f64),
    ("received_lsn", "gauge", "The replica has received everything below.", |link| {
        link.marks.received.0 as f64
    }),
    ("durable_lsn", "gauge", "The replica's device has everything below.", |link| {
        link.marks.durable.0 as f64
    }),
    ("applied_lsn", "gauge", "The replica has applied everything below.", |link| link.marks.applied.0 as f64),
    ("visible_lsn", "gauge", "The replica shows everything below.", |link| link.marks.visible.0 as f64),
    ("source_durable_lsn", "gauge", "Who ships the log has this durably.", |link| {
        link.source_durable.0 as f64
    }),
    ("source_visible_lsn", "gauge", "Who ships the log shows this.", |link| link.source_visible.0 as f64),
    ("lag_bytes", "gauge", "Bytes of log that the replica has not applied.", |link| link.lag_bytes as f64),
    ("lag_seconds", "gauge", "Age of the oldest record that the replica has not applied.", |link| {
        link.lag.as_secs_f64()
    }),
    ("log_bytes_total", "counter", "Bytes of log that went over the link.", |link| link.bytes as f64),
    ("log_bytes_per_second", "gauge", "The same, over the last five seconds.", |link| {
        link.bytes_per_s as f64
    }),
];

/// Links in Prometheus' text exposition format 0.0.4: names begin with `seawall_link_`, labels are the replica's `name` and the
/// `direction` of the log, `out` or `in`. To be put behind [`Stats::to_prometheus`](seawall_engine::Stats::to_prometheus).
///
/// ```
/// assert!(seawall_replication::node::to_prometheus(&[]).contains("\n# TYPE seawall_link_lag_bytes gauge\n"));
/// ```
pub fn to_prometheus(links: &[Link]) -> String {
    let mut out = String::new();
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = write!(out, "# HELP seawall_link_{name} {help}\n# TYPE seawall_link_{name} {kind}\n");
    };
    for (name, kind, help, value) in FAMILIES {
        head(&mut out, name, kind, help);
        for link in links {
            let _ = writeln!(out, "seawall_link_{name}{{{}}} {}", labels(link), value(link));
        }
    }
    head(&mut out, "retained_bytes", "gauge", "Log that is kept for the replica, by who keeps it.");
    for link in links {
        if let Some(retained) = &link.retained {
            let (labels, who, bytes) = (labels(link), &retained.holder, retained.bytes);
            let _ = writeln!(out, "seawall_link_retained_bytes{{{labels},who=\"{who}\"}} {bytes}");
        }
    }
    out
}

/// Names, and so slots, are of letters that stand for themselves.
fn labels(link: &Link) -> String {
    format!("name=\"{}\",direction=\"{}\"", link.name, link.direction.name())
}
