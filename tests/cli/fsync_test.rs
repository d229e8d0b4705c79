//! `seawall fsync-test`. What is measured differs each time, so only what must hold for any figures is asserted.

use super::{command, fail, fresh, json, succeed};
use serde_json::Value;

const SHORT: [&str; 9] =
    ["fsync-test", "--seconds", "0.02", "--sizes", "4k,16k", "--in-flight", "1,3", "--committers", "1,4"];

#[test]
fn the_device_and_the_log_are_measured() {
    let dir = fresh("fsync-test");
    let report = json(&succeed(&dir, &[&SHORT[..], &["-o", "json", "-q"]].concat()));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "nothing is left");
    for fact in ["/machine/cpu", "/place/file_system", "/log/io_backend", "/log/io_reason"] {
        assert!(!report.pointer(fact).unwrap().as_str().unwrap().is_empty(), "{fact}");
    }
    let writes = report["writes"].as_array().unwrap();
    let by_threads: Vec<&Value> = writes.iter().filter(|row| row["way"] == "threads").collect();
    let durable = by_threads.iter().filter(|row| row["durable"] == true).count();
    assert_eq!((durable, by_threads.len()), (3 * 2 * 2, 3 * 2 * 2 + 2));
    let always = by_threads.iter().filter(|row| row["method"] == "write + fdatasync");
    assert!(always.clone().all(|row| row["refused"].is_null()) && always.count() == 4);
    for row in &by_threads {
        match row["refused"].as_str() {
            None => {
                for figure in ["writes_per_s", "mib_per_s", "p50_us", "max_us"] {
                    assert!(row[figure].as_f64().unwrap() > 0.0, "{figure}: {row}");
                }
            }
            Some(why) => assert!(!why.is_empty() && row["writes_per_s"].is_null(), "{row}"),
        }
    }
    let ring: Vec<&Value> = writes.iter().filter(|row| row["way"] == "io_uring").collect();
    assert_eq!((ring.len(), ring.len() + by_threads.len()), (2 * 2, writes.len()));
    for row in &ring {
        // A machine may refuse it; then it says why. Where it does not, the row names what the writes came down to.
        let method = row["method"].as_str().unwrap();
        assert!(
            method.starts_with("io_uring, ")
                && (method == "io_uring, durable") == row["writes_per_s"].is_null()
        );
        assert_eq!(
            row["writes_per_s"].as_f64().is_some_and(|rate| rate > 0.0),
            row["refused"].is_null(),
            "{row}"
        );
    }
    let log = report["log"]["rows"].as_array().unwrap();
    let committers: Vec<_> = log.iter().map(|row| row["committers"].as_u64().unwrap()).collect();
    assert_eq!(committers, [1, 4]);
    for figure in ["commits_per_s", "commits_per_sync", "device_writes_per_s", "ratio_to_device", "p99_us"] {
        assert!(log.iter().all(|row| row[figure].as_f64().unwrap() > 0.0), "{figure}: {report}");
    }
    let plan = &report["plan"];
    assert!(plan["quickest_method"].is_string() && plan["half_committers"].is_u64(), "{plan}");
    assert!(!plan["advice"].as_array().unwrap().is_empty());
    assert!(report["warnings"].is_array());
}

#[test]
fn it_works_beside_what_is_there_and_says_it_in_a_table() {
    let dir = fresh("fsync-test-table");
    std::fs::write(dir.join("file"), "text").unwrap();
    let table = succeed(&dir, &[&SHORT[..], &["."]].concat());
    for words in
        ["3 IN FLIGHT", "write + fdatasync", "O_DSYNC", "16 KiB", "COMMITTERS", "- a store here uses the"]
    {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn what_the_machine_refuses_is_left_out_with_a_remark() {
    let dir = fresh("fsync-test-refused");
    let output = command(&dir, &SHORT).env("SEAWALL_IO", "blocking").output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    assert!(!table.lines().any(|line| line.starts_with("io_uring") && line.contains("KiB")), "{table}");
    let remark = table.lines().find(|line| line.starts_with("io_uring, durable is refused here: ")).unwrap();
    assert!(remark.contains("SEAWALL_IO=blocking"), "{remark}");
    let device = table.lines().find(|line| line.starts_with("DEVICE: ")).unwrap();
    assert!(
        ["O_DIRECT + RWF_DSYNC", "RWF_DSYNC", "write + fdatasync"].iter().any(|way| device.contains(way))
    );
}

#[test]
fn what_cannot_be_measured_is_named() {
    let dir = fresh("fsync-test-usage");
    std::fs::write(dir.join("file"), "text").unwrap();
    succeed(&dir, &["init", "db"]);
    for (args, code, words) in [
        (&["missing"][..], 3, "missing"),
        (&["file"], 2, "is a file"),
        (&["db"], 2, "is a store"),
        (&["--sizes", "5000"], 2, "multiple of 4 KiB"),
        (&["--sizes", "0"], 2, "multiple of 4 KiB"),
        (&["--in-flight", "0"], 2, "0 is not in"),
        (&["--committers", "0"], 2, "0 is not in"),
        (&["--seconds", "0"], 2, "0.01 to 600"),
        (&["--sizes", "64M", "--in-flight", "256"], 2, "in flight together"),
    ] {
        let said = fail(&dir, &[&["fsync-test"], args].concat(), code);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    let mut left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["db", "file"]);
}
