#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seawall_replication::fuzzing::ack_policy(data));
