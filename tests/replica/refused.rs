//! Certificates that are not valid, names that may not, and two sides of which one speaks plain text: what is said of it.

use super::certificates::Authority;
use super::cluster::{CLIENT, Cluster, LONG, OPERATOR, loopback};
use std::process::{Child, Stdio};
use std::time::Instant;

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Refused {
    cluster: Cluster,
}

impl Refused {
    /// `a` serves, as it should; `b`'s certificate has expired, and it serves too.
    fn new(name: &str) -> Refused {
        let authority = Authority::new();
        let expired = |name: &str| authority.issue_to(&[name.to_owned(), "127.0.0.1".to_owned()], 2020);
        let (client, server) = (expired(OPERATOR), expired("b.test"));
        let mut cluster = Cluster::new(name, loopback(), Some(authority));
        let stranger = Authority::new();
        cluster.write_credentials("stranger", &stranger.issue(OPERATOR));
        std::fs::write(cluster.dir.join("other.pem"), stranger.pem()).unwrap();
        cluster.write_credentials("expired", &client);
        cluster.write_credentials("b", &server);
        cluster.succeed(1, &["-q", "init", "b"]);
        for (node, name) in [(0, "a"), (1, "b")] {
            let address = cluster.address(node);
            cluster.spawn(node, &["serve", name, "--replication", &address]);
        }
        cluster.until(0, "to serve", |_| true);
        Refused { cluster }
    }

    fn security(file: &str, authority: &str) -> Vec<String> {
        let [certificate, key] = ["pem", "key"].map(|kind| format!("{file}.{kind}"));
        ["--certificate", &certificate, "--key", &key, "--authority", authority].map(str::to_owned).to_vec()
    }

    /// What is said by one who asks for the status.
    fn told(&self, node: usize, security: &[String]) -> String {
        let (begin, of) = (Instant::now(), self.cluster.address(node));
        loop {
            let mut command = self.cluster.command(node, &["status", "--of", &of]);
            let output = command.args(security).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{security:?}: {said}");
            // It may not listen yet.
            if !said.contains("onnection refused") {
                return said;
            }
            assert!(begin.elapsed() < LONG, "{said}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn says(&self, node: usize, security: &[String], what: &str) {
        let said = self.told(node, security);
        assert!(said.contains(what), "{security:?}: {said}");
        assert!(!said.contains("transport error"), "{said}");
    }
}

#[test]
fn certificates_that_are_not_valid_are_refused_and_why_is_said() {
    let refused = Refused::new("replica-refused-certificates");
    let own = "authority.pem";
    // The alert comes, or the connection is gone before it is read.
    let unaccepted = "certificate is not accepted there";
    for (file, alert) in [("expired", "CertificateExpired"), ("stranger", "UnknownCA")] {
        let said = refused.told(0, &Refused::security(file, own));
        assert!(said.contains(alert) || said.contains(unaccepted), "{file}: {said}");
    }
    refused.says(0, &Refused::security(OPERATOR, "other.pem"), "UnknownIssuer");
    refused.says(1, &Refused::security(OPERATOR, own), "certificate expired");
    refused.says(0, &Refused::security(CLIENT, own), "this certificate's names may not");
    let mut misnamed = Refused::security(OPERATOR, own);
    misnamed.extend(["--of-name".to_owned(), "elsewhere.test".to_owned()]);
    refused.says(0, &misnamed, "not valid for name");
}

#[test]
fn plain_text_and_certificates_do_not_meet() {
    let refused = Refused::new("replica-refused-plain");
    let plain = ["--plain-text".to_owned()];
    refused.says(0, &plain, "perhaps certificates are wanted there");
    refused.cluster.succeed(2, &["-q", "init", "c"]);
    let address = refused.cluster.address(2);
    let mut command = refused.cluster.command(2, &["serve", "c", "--replication", &address, "--plain-text"]);
    let _process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    refused.says(2, &Refused::security(OPERATOR, "authority.pem"), "seems to speak plain text");
}

#[test]
fn a_replica_that_is_refused_says_why_and_tries_again_or_ends() {
    let refused = Refused::new("replica-refused-replica");
    let cluster = &refused.cluster;
    let of = cluster.address(0);
    // In another's name: nothing changes that.
    let mut command = cluster.command(0, &["replica", "copy", "--of", &of, "--name", "c"]);
    let output = command.args(cluster.security(CLIENT)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("names may not"), "{said}");
    assert!(!cluster.dir.join("copy").join("data").exists());
    // A certificate can be renewed.
    let log = cluster.dir.join("said");
    let mut command = cluster.command(0, &["replica", "copy", "--of", &of, "--name", "b"]);
    command.args(Refused::security("b", "authority.pem")).stdout(Stdio::null());
    let _process = Process(command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap());
    let begin = Instant::now();
    loop {
        let said = std::fs::read_to_string(&log).unwrap();
        if said.contains("CertificateExpired") && said.contains("tries again") {
            break;
        }
        assert!(begin.elapsed() < LONG, "{said}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
