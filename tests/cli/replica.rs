//! `seawall replica`, `promote`, `rewind`, `status --of`, and `serve --replication`: what is wrong with their words. What they do is
//! in `tests/replica.rs`.

use super::{fail, fresh, run, succeed};

/// What clap refuses begins with its own words.
#[track_caller]
fn refuse(dir: &std::path::Path, args: &[&str], why: &str) {
    let output = run(dir, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains(why), "{args:?}: {said}");
}

#[test]
fn wrong_words_about_replicas_are_refused() {
    let dir = fresh("replica");
    succeed(&dir, &["init", "db"]);
    let local = "127.0.0.1:1";
    refuse(&dir, &["serve", "db", "--plain-text"], "--node");
    refuse(&dir, &["serve", "db", "--node", "1", "--plain-text"], "--listen");
    refuse(&dir, &["serve", "db", "--replication", local], "--plain-text");
    refuse(&dir, &["serve", "db", "--replication", local, "--sync", "ANY 3 (a)", "--plain-text"], "byte");
    refuse(&dir, &["serve", "db", "--replication", local, "--ack", "durable", "--plain-text"], "--sync");
    refuse(
        &dir,
        &["serve", "db", "--node", "1", "--listen", local, "--sync", "a", "--plain-text"],
        "--replication",
    );
    refuse(&dir, &["replica", "db", "--name", "b", "--plain-text"], "--of");
    refuse(&dir, &["replica", "db", "--of", local, "--plain-text"], "--name");
    refuse(&dir, &["replica", "db", "--of", local, "--name", "No Name", "--plain-text"], "1 to 64");
    refuse(&dir, &["replica", "db", "--of", "here", "--name", "b", "--plain-text"], "HOST:PORT");
    refuse(&dir, &["replica", "db", "--of", local, "--name", "b"], "--certificate");
    refuse(&dir, &["promote", "db", "--peer", local], "--certificate");
    refuse(&dir, &["rewind", "db", "--plain-text"], "--to");
    refuse(&dir, &["status"], "<DB>");
    refuse(&dir, &["status", "db", "--of", local, "--plain-text"], "cannot be used with");
}

#[test]
fn a_store_that_is_no_replica_is_not_promoted_and_nobody_who_answers_is_said() {
    let dir = fresh("replica-none");
    succeed(&dir, &["init", "db"]);
    assert!(fail(&dir, &["promote", "db"], 2).contains("no replica's"));
    fail(&dir, &["promote", "none"], 3);
    let local = "127.0.0.1:1";
    assert!(fail(&dir, &["rewind", "db", "--to", local, "--plain-text"], 1).contains("does not answer"));
    assert!(fail(&dir, &["status", "--of", local, "--plain-text"], 1).contains("does not say"));
    // The store is as it was.
    succeed(&dir, &["put", "db", "k", "v"]);
}
