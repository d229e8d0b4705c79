#![no_main]

#[path = "../../tests/replay/loader.rs"]
mod loader;

// The row readers name each other by their place in the command.
use loader::command;

libfuzzer_sys::fuzz_target!(|data: &[u8]| loader::loader(data));
