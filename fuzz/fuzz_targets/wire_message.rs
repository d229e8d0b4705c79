#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seawall_replication::fuzzing::wire_message(data));
