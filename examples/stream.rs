//! A file in and out of a store, in bounded memory: `cargo run --example stream [DIR [FILE]]`
//!
//! From 256 KiB on a streamed value goes into extents of its own in the data file; the log only names them. Without a file
//! the example makes one of 8 MiB.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example shows what it does, with files"
)]
use seawall::{Db, Readable};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

type Anything = Box<dyn std::error::Error>;

fn main() -> Result<(), Anything> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "stream.db".to_owned());
    let db = Db::open(&dir)?;
    let files = db.keyspace("files")?;
    let path = match args.next() {
        Some(path) => path,
        None => {
            let path = format!("{dir}/../stream-example.bin");
            let mut source = io::repeat(b'x').take(8 << 20);
            io::copy(&mut source, &mut File::create(&path)?)?;
            path
        }
    };

    // In: at most a piece of it is in memory, and it is on the device when `insert_from` returns.
    let file = File::open(&path)?;
    let len = file.metadata()?.len();
    let mut tx = db.begin();
    tx.insert_from(&files, "file", len, file)?;
    tx.commit()?;

    // Out: every piece is verified before a byte of it is given.
    let snapshot = db.snapshot();
    let mut value = snapshot.open_value(&files, "file")?.ok_or("it was put just now")?;
    let copied = io::copy(&mut value, &mut io::sink())?;
    value.seek(SeekFrom::Start(len / 2))?;
    let mut some = Vec::new();
    value.take(16).read_to_end(&mut some)?;
    println!("{copied} of {len} bytes read back; 16 in the middle: {}", some.escape_ascii());
    Ok(())
}
