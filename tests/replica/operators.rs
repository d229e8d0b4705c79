//! What an operator does by hand, cut short, twice, or without the right to.

use super::certificates::Authority;
use super::cluster::{Cluster, NAMES, OPERATOR, loopback, position};
use seawall::Lsn;
use seawall::wal::anchor::{Anchor, FILE_NAME, Slot};
use serde_json::Value;
use std::process::Stdio;

/// As a power cut in the middle of it leaves a rewind: the anchor says where it goes back to.
fn cut_short(cluster: &Cluster, node: usize, to: Lsn) {
    let path = cluster.dir.join(NAMES[node]).join("log").join(FILE_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    let Slot::Valid(anchor) = Anchor::choose(&bytes) else { panic!("no anchor") };
    let anchor = Anchor { sequence: anchor.sequence + 1, rewinding: to, ..anchor };
    let (at, block) = (anchor.offset() as usize, anchor.encode());
    bytes[at..at + block.len()].copy_from_slice(&block);
    std::fs::write(&path, bytes).unwrap();
}

fn slots(cluster: &Cluster, node: usize) -> Vec<(String, String)> {
    let listed = cluster.succeed(node, &["slot", "list", NAMES[node], "-o", "json"]);
    let slots: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let text = |slot: &Value, name: &str| slot[name].as_str().unwrap().to_owned();
    slots.iter().map(|slot| (text(slot, "name"), text(slot, "state"))).collect()
}

#[test]
fn a_rewind_that_was_cut_short_is_gone_on_with_and_old_slots_hold_nothing() {
    let mut cluster = Cluster::new("replica-rewinds", loopback(), None);
    cluster.serve(0);
    (1..3).for_each(|node| cluster.follow(node));
    (1..3).for_each(|node| cluster.until_follows(node));
    cluster.kill(0);
    let (next, _) = cluster.promote_one(&[1, 2]);
    let rewound = cluster.rewind(0, next).unwrap();
    cut_short(&cluster, 0, Lsn(position(&rewound, "lsn")));
    let of = cluster.address(next);
    let output = cluster.run_securely(0, &["replica", "a", "--of", &of, "--name", "a"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("rewind it again"), "{said}");
    cluster.rewind(0, next).unwrap();
    // Its slots were the primary's.
    assert_eq!(slots(&cluster, 0), []);
    cluster.succeed(0, &["slot", "create", "a", "behind-it"]);
    assert_eq!(slots(&cluster, 0), [("behind-it".to_owned(), "reserved".to_owned())]);
    cluster.succeed(0, &["slot", "drop", "a", "behind-it"]);
    cluster.follow(0);
    cluster.until_follows(0);
}

/// Who may not ask how far a peer is must not go on as if that had nothing more.
#[test]
fn a_promotion_that_may_not_ask_its_peers_stops() {
    let mut cluster = Cluster::new("replica-unheard", loopback(), Some(Authority::new()));
    cluster.serve(0);
    (1..3).for_each(|node| cluster.follow(node));
    (1..3).for_each(|node| cluster.until_follows(node));
    cluster.kill(0);
    (1..3).for_each(|node| cluster.stop(node));
    let (of, listen) = (cluster.address(0), cluster.address(2));
    let args = ["replica", "c", "--name", "c", "--of", &of, "--listen", &listen];
    let roles = ["--replica", "b.test", "--operator", OPERATOR];
    let mut command = cluster.command(2, &[&args[..], &roles].concat());
    let child =
        command.args(cluster.security("c")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    cluster.daemons[2] = Some(child);
    cluster.until(2, "to answer", |_| true);
    let promote = ["promote", "b", "--name", "b", "--peer", &listen];
    let output = cluster.run_securely(1, &promote);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1), "{said}");
    assert!(
        said.contains("does not tell this one how far its log is") && said.contains("--unheard"),
        "{said}"
    );
    // It is a replica as it was; what its peer has promised, it has promised to this attempt.
    let output = cluster.run_securely(1, &[&promote[..], &["--unheard"]].concat());
    assert!(output.status.success(), "{output:?}");
    let output = cluster.run_securely(1, &promote);
    assert!(!output.status.success(), "it is a primary");
}
