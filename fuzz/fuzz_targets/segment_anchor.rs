#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seawall_wal::fuzzing::segment_anchor(data));
