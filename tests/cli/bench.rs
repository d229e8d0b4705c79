//! `seawall bench`. What is measured differs each time, so only what must hold for any figures is asserted.

use super::{command, fail, fresh, json, run, succeed};
use serde_json::Value;
use std::path::Path;

const SHORT: [&str; 7] = ["bench", "work", "--duration", "250ms", "--keys", "300", "-q"];

/// Runs a short bench, and gives what it wrote as JSON.
#[track_caller]
fn bench(dir: &Path, extra: &[&str]) -> Value {
    json(&succeed(dir, &[&SHORT[..], &["-o", "json"], extra].concat()))
}

#[track_caller]
fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn counted(row: &Value) -> u64 {
    row["histogram"].as_array().unwrap().iter().map(|bar| bar[2].as_u64().unwrap()).sum()
}

#[test]
fn every_workload_is_measured_and_nothing_is_left() {
    let dir = fresh("bench-all");
    let all = "fillsync,fillbatch,fillrandom,readrandom,readseq,scan,mixed,\
               ycsb-a,ycsb-b,ycsb-c,ycsb-d,ycsb-e,ycsb-f";
    let report = bench(&dir, &["--workload", all, "--threads", "2", "--batch", "7", "--value-size", "1k"]);
    assert!(!dir.join("work").exists());
    assert_eq!(report["seawall_bench"], 2);
    for fact in ["/machine/cpu", "/machine/system", "/place/file_system", "/io_backend", "/io_reason"] {
        assert!(!report.pointer(fact).unwrap().as_str().unwrap().is_empty(), "{fact}");
    }
    assert!(number(&report["device_writes_per_s"]) > 0.0);
    assert_eq!(report["settings"]["value_bytes"], 1024);
    let names: Vec<&str> = rows(&report).iter().map(|row| row["workload"].as_str().unwrap()).collect();
    assert_eq!(names.join(","), all);
    for row in rows(&report) {
        let ops = row["ops"].as_u64().unwrap();
        assert!(ops > 0 && counted(row) == ops, "{row}");
        assert!(number(&row["seconds"]) >= 0.25 && number(&row["ops_per_s"]) > 0.0, "{row}");
        let times = ["p50_us", "p99_us", "p999_us", "max_us"].map(|name| number(&row[name]));
        assert!(times[0] > 0.0 && times.is_sorted(), "{row}");
        assert_eq!(row["ops_per_100_ms"].as_array().unwrap().len(), 2);
        assert!(number(&row["cpu_us_per_op"]) > 0.0 && number(&row["device_writes_per_s"]) > 0.0, "{row}");
        if cfg!(target_os = "linux") {
            assert!(number(&row["voluntary_switches_per_op"]) >= 0.0, "{row}");
        }
        let workload = row["workload"].as_str().unwrap();
        let rows_per_op = row["rows"].as_u64().unwrap() as f64 / ops as f64;
        match workload {
            "fillbatch" => assert!((rows_per_op - 7.0).abs() < 1e-9, "{row}"),
            "readseq" | "scan" | "ycsb-e" => assert!(rows_per_op > 1.0, "{row}"),
            _ => assert!((rows_per_op - 1.0).abs() < 1e-9, "{row}"),
        }
        let fills = workload.starts_with("fill");
        assert_eq!(row["ratio_to_device"].is_number(), fills, "{row}");
        let writes = !["readrandom", "readseq", "scan", "ycsb-c"].contains(&workload);
        // A few operations of the kind of which there are 5 in 100 may not have come about.
        if writes && !["ycsb-b", "ycsb-d", "ycsb-e"].contains(&workload) {
            assert!(number(&row["commits_per_sync"]) > 0.0, "{row}");
            assert!(number(&row["device_bytes_per_user_byte"]) >= 1.0, "{row}");
        }
        assert!(writes || row["commits_per_sync"].is_null(), "{row}");
        assert!(row["store_bytes"].as_u64().unwrap() > 4096, "{row}");
        let kinds = row["kinds"].as_array().unwrap();
        let expected: &[&str] = match workload {
            "mixed" => &["read", "write"],
            "readrandom" | "readseq" | "scan" | "ycsb-c" => &["read"],
            "ycsb-a" | "ycsb-b" => &["read", "update"],
            "ycsb-d" => &["read", "insert"],
            "ycsb-e" => &["scan", "insert"],
            "ycsb-f" => &["read", "read-modify-write"],
            _ => &["write"],
        };
        let found: Vec<&str> = kinds.iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
        assert!(found.iter().all(|kind| expected.contains(kind)) && found.contains(&expected[0]), "{row}");
        let of_kinds: u64 = kinds.iter().map(|kind| kind["ops"].as_u64().unwrap()).sum();
        assert_eq!(of_kinds, ops, "{row}");
        assert!(kinds.iter().all(|kind| number(&kind["p50_us"]) > 0.0), "{row}");
    }
    let loaded: Vec<&str> =
        report["loaded"].as_array().unwrap().iter().map(|loaded| loaded["store"].as_str().unwrap()).collect();
    assert_eq!(loaded, ["rows", "ycsb", "ycsb-d-2", "ycsb-e-2", "ycsb"]);
    for loaded in report["loaded"].as_array().unwrap() {
        assert!(number(&loaded["rows_per_s"]) > 0.0 && loaded["rows"] == 300, "{loaded}");
        assert!(number(&loaded["data_bytes_per_user_byte"]) > 1.0, "{loaded}");
    }
}

#[test]
fn what_a_bench_wrote_can_be_kept_and_is_a_store() {
    let dir = fresh("bench-keep");
    let report = bench(&dir, &["--workload", "fillsync,mixed", "--threads", "1,3", "--keep"]);
    for (row, threads) in rows(&report).iter().zip([1, 3]) {
        let store = format!("work/fillsync-{threads}");
        let keys = succeed(&dir, &["scan", &store, "-k", "bench", "--keys-only"]);
        assert_eq!(keys.lines().count() as u64, row["rows"].as_u64().unwrap());
        assert_eq!(json(&succeed(&dir, &["verify", &store, "-o", "json"]))["problems"], json("[]"));
    }
    assert_eq!(succeed(&dir, &["scan", "work/rows", "-k", "bench", "--keys-only"]).lines().count(), 300);
    assert_eq!(std::fs::read_dir(dir.join("work")).unwrap().count(), 3);
}

/// What the workloads of YCSB leave: those that insert have left more rows, the others as many, each of its length.
#[test]
fn ycsb_leaves_the_rows_that_it_is_to_leave() {
    let dir = fresh("bench-ycsb");
    let workloads = ["--workload", "ycsb-a,ycsb-f,ycsb-d,ycsb-e", "--durability", "memory"];
    let report = bench(&dir, &[&workloads[..], &["--threads", "3", "--keep"]].concat());
    let rows_of = |store: &str| succeed(&dir, &["scan", store, "-k", "bench"]).lines().count() as u64;
    let done = |workload: &str, kind: &str| {
        let row = rows(&report).iter().find(|row| row["workload"] == workload).unwrap();
        let mut kinds = row["kinds"].as_array().unwrap().iter();
        kinds.find(|found| found["kind"] == kind).map_or(0, |found| found["ops"].as_u64().unwrap())
    };
    assert_eq!(rows_of("work/ycsb"), 300);
    for workload in ["ycsb-d", "ycsb-e"] {
        assert!(done(workload, "insert") > 0);
        assert_eq!(rows_of(&format!("work/{workload}-3")), 300 + done(workload, "insert"));
    }
    assert!(done("ycsb-a", "update") > 0 && done("ycsb-f", "read-modify-write") > 0);
    // A store smaller than its rows is read from the device.
    let small = bench(
        &fresh("bench-small"),
        &["--workload", "ycsb-c", "--threads", "1", "--memory", "1M", "--value-size", "10k"],
    );
    assert_eq!(small["settings"]["memory_bytes"], 1 << 20);
    assert!(rows(&small)[0]["store_bytes"].as_u64().unwrap() > 300 * 10_240);
}

#[test]
fn a_users_directory_is_never_written_over() {
    let dir = fresh("bench-dir");
    std::fs::write(dir.join("file"), "text").unwrap();
    succeed(&dir, &["init", "db"]);
    succeed(&dir, &["put", "db", "k", "v"]);
    for (args, words) in [
        (&["bench", "."][..], "is not empty"),
        (&["bench", "db"], "is not empty"),
        (&["bench", "file"], "is a file"),
    ] {
        let said = fail(&dir, args, 2);
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(succeed(&dir, &["get", "db", "k"]), "v\n");
    assert_eq!(std::fs::read(dir.join("file")).unwrap(), b"text");

    std::fs::create_dir(dir.join("work")).unwrap();
    bench(&dir, &["--workload", "fillsync", "--threads", "1"]);
    assert_eq!(
        std::fs::read_dir(dir.join("work")).unwrap().count(),
        0,
        "an empty directory stays, and empty"
    );
}

#[test]
fn wrong_options_are_named_before_anything_is_measured() {
    let dir = fresh("bench-usage");
    std::fs::write(dir.join("other.json"), "{\"rows\":[]}").unwrap();
    std::fs::write(dir.join("newer.json"), "[]").unwrap();
    for (args, words) in [
        (&["--workload", "fillsomehow"][..], "possible values"),
        (&["--workload", "ycsb-g"], "possible values"),
        (&["--memory", "much"], "no unit of size"),
        (&["--threads", "0"], "0 is not in"),
        (&["--threads", ""], "cannot parse"),
        (&["--duration", "5"], "say the unit"),
        (&["--duration", "1ms"], "between 100ms"),
        (&["--duration", "2 fortnights"], "no unit of time"),
        (&["--value-size", "17M"], "at most 16 MiB"),
        (&["--value-size", "1.5k"], "no whole number"),
        (&["--keys", "0"], "0 is not in"),
        (&["--batch", "0"], "0 is not in"),
        (&["--durability", "mostly"], "possible values"),
        (&["--rate", "0"], "0 is not in"),
        (&["--assert-p99", "quick"], "no unit of time"),
        (&["--assert-ops", "many"], "invalid digit"),
        (&["--compare-tolerance", "5"], "--compare <FILE>"),
        (&["--compare", "other.json", "--compare-tolerance", "-5"], "unexpected argument"),
        (&["--compare", "other.json"], "is not what `seawall bench -o json` writes"),
        (&["--compare", "newer.json"], "is not what `seawall bench -o json` writes"),
        (&["--html", "missing/report.html"], "no directory for this file"),
        (&["--html", "."], "no directory for this file"),
    ] {
        let said = fail(&dir, &[&["bench", "work"], args].concat(), 2);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    fail(&dir, &["bench", "work", "--compare", "missing.json"], 3);
    assert!(!dir.join("work").exists());
}

#[test]
fn a_missed_threshold_is_exit_code_7_after_the_report() {
    let dir = fresh("bench-assert");
    let one = ["--workload", "fillsync", "--threads", "1", "-o", "json", "--html", "r.html"];
    for (limit, words) in [
        (["--assert-p50", "1ns"], "fillsync with 1 thread: p50 is"),
        (["--assert-p99", "1ns"], "p99 is"),
        (["--assert-p999", "1ns"], "p99.9 is"),
        (["--assert-ops", "1000000000"], "operations a second, below 1,000,000,000"),
    ] {
        let output = run(&dir, &[&SHORT[..], &one, &limit].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(said.starts_with("error: ") && said.contains(words), "{said}");
        assert_eq!(rows(&json(&String::from_utf8(output.stdout).unwrap())).len(), 1);
        std::fs::remove_file(dir.join("r.html")).unwrap();
    }
    let met = ["--assert-p50", "60m", "--assert-p99", "60m", "--assert-p999", "60m", "--assert-ops", "0"];
    succeed(&dir, &[&SHORT[..], &one, &met].concat());
    assert!(!dir.join("work").exists());
}

#[test]
fn runs_are_compared_with_earlier_ones() {
    let dir = fresh("bench-compare");
    let one = ["--workload", "fillsync", "--threads", "1"];
    let mut earlier = bench(&dir, &one);
    let mut write = |name: &str, ops_per_s: f64| {
        earlier["rows"][0]["ops_per_s"] = ops_per_s.into();
        std::fs::write(dir.join(name), earlier.to_string()).unwrap();
    };
    write("slow.json", 0.001);
    write("quick.json", 1e12);

    let better = bench(&dir, &[&one[..], &["--compare", "slow.json"]].concat());
    let compared = &better["comparison"][0];
    assert_eq!((&compared["workload"], &compared["slower"]), (&"fillsync".into(), &false.into()));
    assert!(number(&compared["ops_ratio"]) > 1.0 && number(&compared["p99_ratio"]) > 0.0, "{compared}");

    let output =
        run(&dir, &[&SHORT[..], &one, &["--compare", "quick.json", "--compare-tolerance", "50%"]].concat());
    assert_eq!(output.status.code(), Some(7));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("NOW / THEN") && table.contains("SLOWER"), "{table}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("is slower than it was"));

    // What it may be compared with again holds a comparison of its own.
    std::fs::write(dir.join("again.json"), better.to_string()).unwrap();
    bench(&dir, &[&one[..], &["--compare", "again.json", "--compare-tolerance", "1000"]].concat());
    for other in [
        ["--value-size", "7"],
        ["--memory", "9M"],
        ["--durability", "memory"],
        ["--rate", "10"],
        ["--batch", "9"],
    ] {
        let said = fail(&dir, &[&SHORT[..], &one, &["--compare", "slow.json"], &other].concat(), 2);
        assert!(said.contains(other[0]), "{said}");
    }
    let output = run(
        &dir,
        &[&SHORT[..], &["--workload", "fillbatch", "--threads", "1", "--compare", "slow.json"]].concat(),
    );
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not in the earlier run"));
}

#[test]
fn an_open_loop_counts_every_operation_that_was_due() {
    let dir = fresh("bench-open");
    let of = |rate: &str| {
        let args = ["--workload", "fillsync", "--threads", "3", "--rate", rate, "-o", "json"];
        let output = run(&dir, &[&SHORT[..], &args].concat());
        assert!(output.status.success(), "{output:?}");
        let report = json(&String::from_utf8(output.stdout).unwrap());
        let row = rows(&report)[0].clone();
        let (done, unserved) = (row["ops"].as_u64().unwrap(), row["unserved"].as_u64().unwrap());
        assert_eq!(counted(&row), done + unserved);
        (done, unserved, String::from_utf8(output.stderr).unwrap())
    };
    let (done, unserved, _) = of("200");
    assert_eq!(done + unserved, 50);
    // No device keeps up with this: the rest has waited, and is told.
    let (done, unserved, said) = of("100000000");
    assert_eq!(done + unserved, 25_000_000);
    assert!(unserved > done && said.contains("could not keep up"), "{said}");
}

#[test]
fn the_html_report_stands_alone_and_is_well_formed() {
    let dir = fresh("bench-html");
    let args = ["--workload", "fillsync,ycsb-a", "--threads", "1,2", "--html", "report.html"];
    bench(&dir, &args);
    let page = std::fs::read_to_string(dir.join("report.html")).unwrap();
    assert_well_formed(&page);
    let lower = page.to_lowercase();
    for outside in
        ["<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import", "http:", "https:"]
    {
        assert!(!lower.contains(outside), "{outside}");
    }
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("prefers-color-scheme: dark"));
    assert_eq!(page.matches("<svg ").count(), 8, "two charts for each of four runs");
    for words in [
        "fillsync",
        "ycsb-a",
        "update, p99",
        "rows in",
        "1 thread<",
        "2 threads<",
        "durable 4 KiB writes/s",
        "Latency",
        "Throughput",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf\""));
}

/// Every element that is opened is closed, in order; attributes are quoted; no `<` or `&` stands for itself.
#[track_caller]
fn assert_well_formed(page: &str) {
    let mut open = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some((text, tail)) = rest.split_once('<') {
        assert!(!text.contains('>'), "{text}");
        for reference in text.split('&').skip(1) {
            let name = reference.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot"].contains(&name), "&{reference}");
        }
        let (tag, tail) = tail.split_once('>').unwrap();
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}>");
        } else {
            let name = tag.split([' ', '/', '\n']).next().unwrap();
            assert!(!name.is_empty() && tag.matches('"').count().is_multiple_of(2), "<{tag}>");
            let bare = tag.split('"').step_by(2).collect::<String>();
            assert!(
                bare.split('=').skip(1).all(|after| after.starts_with([' ', '/']) || after.is_empty()),
                "<{tag}>"
            );
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = tail;
    }
    assert_eq!(open, [""; 0]);
    assert_eq!(rest.trim(), "");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_it_and_cleans_up() {
    let dir = fresh("bench-interrupt");
    let args = ["bench", "work", "--workload", "fillsync", "--threads", "2", "--duration", "60m"];
    let mut child = command(&dir, &args).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while !dir.join("work/fillsync-2/data").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(!dir.join("work").exists());
}
