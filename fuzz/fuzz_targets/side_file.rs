#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| seawall_engine::fuzzing::side_file(data));
