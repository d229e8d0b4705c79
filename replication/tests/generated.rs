//! The code of the network's messages is generated, and committed: nobody needs a generator to build. Here it is held
//! against `replication/proto`; `SEAWALL_REGENERATE=1` writes it anew.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads and writes files"
)]

use std::path::Path;

#[test]
fn the_committed_code_is_what_the_definitions_say() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
    std::fs::create_dir_all(&out).unwrap();
    let definitions =
        protox::compile(["seawall/replication/v1/replication.proto"], [crate_dir.join("proto")]).unwrap();
    // Bodies are taken from the connection's buffers, not copied.
    tonic_prost_build::configure().bytes(".").out_dir(&out).compile_fds(definitions).unwrap();
    let made = std::fs::read_to_string(out.join("seawall.replication.v1.rs")).unwrap();
    let committed = crate_dir.join("src/net/generated/seawall.replication.v1.rs");
    if std::env::var_os("SEAWALL_REGENERATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(committed.parent().unwrap()).unwrap();
        std::fs::write(&committed, &made).unwrap();
    }
    let found = std::fs::read_to_string(&committed).unwrap_or_default().replace("\r\n", "\n");
    // Not by `assert_eq`: it is hundreds of lines.
    assert!(
        found == made,
        "{} is not what replication/proto says: SEAWALL_REGENERATE=1 makes it anew",
        committed.display()
    );
}
