//! What operators see of a primary and its replicas, as processes: figures and health by HTTP, links in `status` and `top`, the
//! flight recorder's dumps, `doctor` about what has come apart; and the dashboard, held against what there is.
#![cfg(all(unix, feature = "serve"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and runs processes"
)]

#[path = "seeing/client.rs"]
mod client;
#[path = "seeing/nodes.rs"]
mod nodes;

use nodes::{Place, ask, free_ports, get, local, metrics, of_link, ready, write};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// A primary that serves transactions, and a replica of it, each with its figures.
struct Pair {
    place: Place,
    ships: String,
    answers: String,
    node: u16,
    at_primary: u16,
    at_replica: u16,
}

impl Pair {
    fn new(name: &str) -> Pair {
        let [ships, answers, node, at_primary, at_replica] = free_ports();
        let place = Place::new(name);
        place.succeed(&["-q", "init", "a"]);
        Pair { place, ships: local(ships), answers: local(answers), node, at_primary, at_replica }
    }

    fn start_primary(&mut self, more: &[&str]) {
        let (node, metrics) = (local(self.node), local(self.at_primary));
        let args = ["serve", "a", "--replication", &self.ships, "--node", "1", "--listen", &node];
        let watching = ["--metrics-addr", &metrics, "--flight-recorder", "flight-a", "--plain-text"];
        self.place.start("a", &[&args[..], &watching, more].concat());
    }

    fn start_replica(&mut self) {
        let metrics = local(self.at_replica);
        let args = ["replica", "b", "--of", &self.ships, "--name", "b", "--listen", &self.answers];
        let watching = ["--metrics-addr", &metrics, "--flight-recorder", "flight-b", "--plain-text"];
        self.place.start("b", &[&args[..], &watching, &["--ready-lag", "3s"]].concat());
    }

    #[track_caller]
    fn until_ready(&self, port: u16) {
        self.place.until("to be ready", || ready(port), |found| matches!(found, Some((200, _))));
    }

    /// Until the replica has applied all that there is.
    #[track_caller]
    fn until_level(&self) {
        let lag = || of_link(self.at_primary, "lag_bytes", "b", "out");
        self.place.until("to have it all", lag, |lag| *lag == Some(0.0));
    }
}

#[test]
fn a_replica_that_is_stopped_lags_and_one_that_is_cut_off_is_not_ready() {
    let mut pair = Pair::new("lag");
    pair.start_primary(&[]);
    pair.until_ready(pair.at_primary);
    pair.start_replica();
    pair.until_ready(pair.at_replica);
    write(pair.node, 0..20);
    pair.until_level();
    let at = pair.at_primary;
    assert_eq!(of_link(at, "connected", "b", "out"), Some(1.0));
    assert_eq!(of_link(at, "lag_seconds", "b", "out"), Some(0.0));
    assert!(of_link(at, "log_bytes_total", "b", "out") > Some(0.0));
    let kept = "seawall_link_retained_bytes{name=\"b\",direction=\"out\",who=\"slot b\"}";
    assert!(metrics(at)[kept] > 0.0);
    let applied = of_link(at, "applied_lsn", "b", "out");
    let at_replica = || of_link(pair.at_replica, "applied_lsn", "b", "in");
    pair.place.until("both sides to say the same", at_replica, |found| *found >= applied);

    // Its process stands still: it says nothing, and what the primary commits it lacks.
    pair.place.signal("b", "-STOP");
    write(pair.node, 20..30);
    let lag = || of_link(at, "lag_seconds", "b", "out").unwrap();
    let first = pair.place.until("to lag", lag, |lag| *lag > 0.2);
    let later = pair.place.until("to lag more", lag, |lag| *lag > first + 0.5);
    assert!(later < 60.0 && of_link(at, "lag_bytes", "b", "out") > Some(0.0));
    assert!(of_link(at, "silence_seconds", "b", "out") > Some(0.5));
    let gone = || of_link(at, "connected", "b", "out");
    pair.place.until("to be given up", gone, |connected| *connected == Some(0.0));
    assert!(of_link(at, "errors_total", "b", "out") > Some(0.0));
    pair.place.signal("b", "-CONT");
    pair.until_level();
    assert_eq!(of_link(at, "lag_seconds", "b", "out"), Some(0.0));
    assert!(of_link(at, "sessions_total", "b", "out") >= Some(2.0));
    pair.until_ready(pair.at_replica);

    // A primary that does not wait for anybody is ready without it.
    pair.place.stop("a");
    let cut = pair.place.until(
        "to notice",
        || ready(pair.at_replica),
        |found| matches!(found, Some((503, reasons)) if reasons.iter().any(|reason| reason.contains("nobody"))),
    );
    assert_eq!(get(pair.at_replica, "/health/live").unwrap().0, 200, "{cut:?}");
    let behind = pair.place.until(
        "to have heard nothing for long",
        || ready(pair.at_replica),
        |found| matches!(found, Some((503, reasons)) if reasons.iter().any(|reason| reason.contains("behind"))),
    );
    assert!(behind.unwrap().1.iter().any(|reason| reason.contains("3s are allowed")));

    // What happened is written down when somebody asks.
    pair.place.signal("b", "-USR1");
    let dumps = pair.place.until("a dump", || pair.place.dumps("flight-b"), |dumps| !dumps.is_empty());
    let (name, lines) = &dumps[0];
    assert!(name.starts_with("b-flight-") && name.ends_with("-asked.jsonl"), "{name}");
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!((events[0], *events.last().unwrap()), ("started", "dump"), "{events:?}");
    let count = |event: &str| events.iter().filter(|found| **found == event).count();
    let (came, went) = (count("link_connected"), count("link_disconnected"));
    assert!(came >= 2 && came == went, "{events:?}");
    let times: Vec<u64> = lines.iter().map(|line| line["time_us"].as_u64().unwrap()).collect();
    assert!(times.is_sorted());
    let sample = lines.iter().rfind(|line| line["event"] == "link").unwrap();
    assert!(sample["name"] == "b" && sample["direction"] == "in" && sample["connected"] == false, "{sample}");
    pair.place.stop("b");
    assert!(pair.place.errors().contains("flight-b/b-flight-"), "{}", pair.place.errors());
    assert_eq!(pair.place.dumps("flight-a").len(), 0, "nothing failed there");
}

#[test]
fn a_primary_is_ready_while_as_many_replicas_are_there_as_commits_wait_for() {
    let mut pair = Pair::new("waits");
    pair.start_primary(&["--sync", "ANY 1 (b)", "--ack", "durable"]);
    let waits = |found: &Option<(u16, Vec<String>)>| match found {
        Some((503, reasons)) => reasons.iter().any(|reason| reason.contains("ANY 1 (b), and 0 of those")),
        _ => false,
    };
    let begun = pair.place.until("to wait", || ready(pair.at_primary), waits).unwrap().1;
    assert!(begun.iter().any(|reason| reason.contains("not served yet")), "{begun:?}");
    assert_eq!(get(pair.at_primary, "/health/live").unwrap().0, 200);
    let not_ready = ask(pair.at_primary, b"GET /health/ready HTTP/1.0\r\n\r\n").unwrap();
    assert!(not_ready.0 == 503 && not_ready.1.starts_with("not ready: "), "{not_ready:?}");
    pair.start_replica();
    pair.until_ready(pair.at_primary);
    write(pair.node, 0..3);
    pair.place.kill("b");
    pair.place.until("to miss it", || ready(pair.at_primary), waits);
    pair.start_replica();
    pair.until_ready(pair.at_primary);
    pair.place.stop("b");
    pair.place.stop("a");
}

#[test]
fn links_are_in_status_and_top() {
    let mut pair = Pair::new("links");
    pair.start_primary(&[]);
    pair.start_replica();
    pair.until_ready(pair.at_replica);
    write(pair.node, 0..5);
    pair.until_level();
    let (ships, answers) = (pair.ships.clone(), pair.answers.clone());
    let status = pair.place.json(&["status", "--of", &ships, "--plain-text"]);
    let link = &status["followers"][0];
    assert_eq!(
        (&link["name"], &link["log"], &link["state"]),
        (&"b".into(), &"out".into(), &"connected".into())
    );
    for mark in ["sent", "received", "durable", "applied", "visible", "bytes", "retained_bytes"] {
        assert!(link[mark].as_u64() > Some(0), "{mark}: {link}");
    }
    assert_eq!((link["lag_s"].as_f64(), &link["retained_by"]), (Some(0.0), &"slot b".into()), "{link}");
    assert!(
        link["connected_s"].as_f64() > Some(0.0) && link["reconnects"] == 0 && status["follows"].is_null()
    );
    let table = pair.place.succeed(&["status", "--of", &ships, "--plain-text"]);
    assert!(table.contains("RECEIVED") && table.contains("slot b"), "{table}");
    let status = pair.place.json(&["status", "--of", &answers, "--plain-text"]);
    assert_eq!(
        (&status["follows"]["name"], &status["follows"]["log"]),
        (&"b".into(), &"in".into()),
        "{status}"
    );

    let args = ["top", "--of", &ships, "--plain-text", "--interval", "100ms", "-n", "2", "-o", "jsonl"];
    let lines = pair.place.succeed(&args);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["(this node)", "b", "(this node)", "b"]);
    assert!(lines[0]["state"] == "primary" && lines[0]["lag_bytes"].is_null() && lines[3]["lag_bytes"] == 0);
    let shown =
        pair.place.succeed(&["top", "--of", &answers, "--plain-text", "--interval", "50ms", "-n", "12"]);
    assert_eq!(shown.lines().filter(|line| line.starts_with("NAME")).count(), 2, "{shown}");
    assert!(shown.contains("replica") && shown.contains("connected"), "{shown}");

    // A doctor that asks both has nothing to complain of.
    for of in [&ships, &answers] {
        let said = pair.place.json(&["doctor", "--of", of, "--plain-text"]);
        assert_eq!((&said["problems"], &said["warnings"]), (&0.into(), &0.into()), "{said}");
    }
    // One that asks beside the process says whose the store is.
    let said = pair.place.json(&["doctor", "a"]);
    assert!(said.to_string().contains("has the store open"), "{said}");
    pair.place.stop("b");
    let said = pair.place.json(&["doctor", "--of", &ships, "--plain-text"]);
    let away =
        said["findings"].as_array().unwrap().iter().find(|found| found["severity"] == "warning").unwrap();
    assert!(away["about"].as_str().unwrap().starts_with("replica b of "), "{said}");
    assert!(away["says"].as_str().unwrap().contains("slot b keeps"), "{said}");
    pair.place.stop("a");
}

#[test]
fn a_primary_that_is_replaced_writes_down_what_led_there_and_a_doctor_says_what_helps() {
    let mut pair = Pair::new("fenced");
    pair.start_primary(&[]);
    pair.start_replica();
    pair.until_ready(pair.at_replica);
    write(pair.node, 0..5);
    pair.until_level();
    pair.place.stop("b");
    // What nobody else has.
    write(pair.node, 5..10);
    let promoted = pair.place.json(&["promote", "b", "--slot", "a"]);
    assert_eq!(promoted["epoch"], 1, "{promoted}");
    let (old, new) = (pair.ships.clone(), pair.answers.clone());
    pair.place.start("new", &["serve", "b", "--replication", &new, "--plain-text"]);
    pair.place.start("c", &["replica", "c", "--of", &new, "--name", "c", "--plain-text"]);
    let follows = || {
        let said = pair.place.run(&["status", "--of", &new, "--plain-text"]).stdout;
        String::from_utf8_lossy(&said).into_owned()
    };
    pair.place.until("to follow", follows, |followers| followers.contains("connected"));
    pair.place.stop("c");
    // Whoever follows the new primary tells the old one.
    pair.place.start("c", &["replica", "c", "--of", &old, "--name", "c", "--plain-text"]);
    assert_eq!(pair.place.ended("a"), Some(1), "the old primary ends");
    pair.place.stop("c");
    let dumps = pair.place.dumps("flight-a");
    let (name, lines) = dumps.last().unwrap();
    assert!(name.ends_with("-fenced.jsonl"), "{name}");
    let fenced = lines.iter().find(|line| line["event"] == "fenced").unwrap();
    assert_eq!(fenced["epoch"], 1);
    assert!(pair.place.errors().contains("the last minutes' events are in "), "{}", pair.place.errors());

    let said = pair.place.json(&["doctor", "a"]);
    assert_eq!((&said["damage"], &said["problems"]), (&0.into(), &1.into()), "{said}");
    let problem = &said["findings"][0];
    assert!(
        problem["about"] == "fenced" && problem["says"].as_str().unwrap().contains("epoch 1"),
        "{problem}"
    );
    assert!(problem["helps"].as_str().unwrap().contains("seawall rewind a"), "{problem}");

    // Beside the new primary: what the old one has to do before it can follow.
    let of_new = ["doctor", "a", "--of", &new, "--plain-text", "--quick"];
    let said = pair.place.json(&of_new);
    let problems = said["findings"].as_array().unwrap().iter().filter(|found| found["severity"] == "problem");
    let rewind = problems.clone().find(|found| found["about"] == "rewind").unwrap();
    assert!(rewind["says"].as_str().unwrap().contains("needs a rewind"), "{said}");
    // And that this was only asked: nobody was fenced by it.
    assert_eq!(pair.place.json(&["status", "--of", &new, "--plain-text"])["promised"], 1);
    pair.place.succeed(&["rewind", "a", "--to", &new, "--plain-text"]);
    let said = pair.place.json(&of_new);
    assert_eq!(said["problems"], 0, "{said}");
    assert!(said.to_string().contains("a replica here can follow it"), "{said}");
    pair.place.stop("new");
}

#[test]
fn who_asks_wrongly_or_slowly_harms_nobody() {
    let mut place = Place::new("http");
    let [metrics_port, ships] = free_ports();
    place.succeed(&["-q", "init", "a"]);
    // A port alone is one of loopback.
    let (metrics, ships) = (metrics_port.to_string(), local(ships));
    place.start("a", &["serve", "a", "--replication", &ships, "--plain-text", "--metrics-addr", &metrics]);
    place.until("to answer", || ready(metrics_port), |found| matches!(found, Some((200, _))));
    assert_eq!(
        ask(metrics_port, b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap().0,
        405
    );
    assert_eq!(get(metrics_port, "/").unwrap().0, 404);
    assert_eq!(
        ask(metrics_port, b"HEAD /health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap(),
        (200, String::new())
    );
    let long = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(64 << 10));
    assert!(ask(metrics_port, long.as_bytes()).is_none_or(|(status, _)| status == 431));
    assert!(ask(metrics_port, b"\0\xff\r\n\r\n").is_none_or(|(status, _)| status == 400));
    // Those that say nothing take no more than their places, and not for ever.
    let silent: Vec<_> =
        (0..64).map(|_| std::net::TcpStream::connect(local(metrics_port)).unwrap()).collect();
    place.until("to be rid of them", || get(metrics_port, "/health/live"), Option::is_some);
    drop(silent);
    // An address that is taken is said at once.
    place.succeed(&["-q", "init", "c"]);
    let taken = local(metrics_port);
    let output =
        place.run(&["serve", "c", "--replication", "127.0.0.1:0", "--plain-text", "--metrics-addr", &taken]);
    assert!(
        output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains(&taken),
        "{output:?}"
    );
    place.stop("a");
}

/// The names of metrics in a text: words that begin with `seawall_`.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("seawall_")).map(str::to_owned).collect()
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/grafana/seawall.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty() && titles.insert(title), "{title} twice");
        if panel["type"] == "row" {
            continue;
        }
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
        assert!(!unit.is_empty(), "{title} has no unit");
        assert!(panel["description"].as_str().is_some_and(|said| !said.is_empty()), "{title} says nothing");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} shows nothing");
        for target in targets {
            let names = named(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{title}: {target}");
            asked.extend(names);
        }
    }
    assert!(asked.len() > 30 && panels.len() > 20, "{asked:?}");

    let mut pair = Pair::new("dashboard");
    pair.start_primary(&[]);
    pair.start_replica();
    pair.until_ready(pair.at_replica);
    write(pair.node, 0..3);
    pair.until_level();
    let mut there = BTreeSet::new();
    let mut explained = BTreeSet::new();
    for port in [pair.at_primary, pair.at_replica] {
        let (_, exposition) = get(port, "/metrics").unwrap();
        let (comments, samples): (Vec<&str>, Vec<&str>) =
            exposition.lines().partition(|line| line.starts_with('#'));
        there.extend(samples.iter().flat_map(|line| named(line.split(['{', ' ']).next().unwrap())));
        explained
            .extend(comments.iter().filter(|line| line.starts_with("# HELP")).flat_map(|line| named(line)));
    }
    let missing: Vec<&String> = asked.difference(&there).collect();
    assert!(missing.is_empty(), "the dashboard asks for what nobody says: {missing:?}");
    // And the list for people is that of what there is.
    let listed = std::fs::read_to_string(root.join("docs/metrics.md")).unwrap();
    let listed = named(&listed);
    let unlisted: Vec<&String> = explained.difference(&listed).collect();
    assert!(unlisted.is_empty(), "not in docs/metrics.md: {unlisted:?}");
    let invented: Vec<&String> = listed.difference(&explained).collect();
    assert!(invented.is_empty(), "in docs/metrics.md, and said by nobody: {invented:?}");
    pair.place.stop("b");
    pair.place.stop("a");
}
