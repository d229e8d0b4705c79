//! Large values, in and out of a transaction as streams.

use super::{Transaction, contains};
use crate::commit::own::OwnRow;
use crate::delta::Version;
use crate::key::{VALUE_BYTES_MAX as INLINE_BYTES_MAX, check_key};
use crate::read::value::ValueReader;
use crate::tree::{Located, VALUE_BYTES_MAX};
use crate::{Error, Keyspace, Result};
use std::io::Read;

impl Transaction {
    /// The key gets a value of exactly `len` bytes, up to 1 GiB, which are read from `value`: about 1 MiB of it is in
    /// memory at a time. [`open_value`](crate::Readable::open_value) reads it as a stream again.
    ///
    /// From 256 KiB on the bytes are written to the data file at once, and are on the device when this returns; the
    /// log record then only names them, and a checkpoint does not write them again. If the transaction does not commit,
    /// their space is free again. Shorter values are kept in memory and go through the log, as with
    /// [`insert`](Transaction::insert). So do all values while the store has [slots](crate::Db::create_slot), which then
    /// must not be longer than 16 MiB: whoever follows the log has nothing but the log.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let db = seawall_engine::Db::open("store")?;
    /// # let films = db.keyspace("films")?;
    /// let file = std::fs::File::open("nosferatu.mkv")?;
    /// let mut tx = db.begin();
    /// tx.insert_from(&films, "nosferatu", file.metadata()?.len(), file)?;
    /// tx.commit()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `BadInput` if `value` ends early, or goes on after `len` bytes ([`Read::take`] cuts it off); `Io` if it fails,
    /// or the data file does; `NoSpace`; `TooLarge` beyond 16 MiB while there are slots; as [`insert`](Transaction::insert). The transaction is as it was before.
    pub fn insert_from(
        &mut self,
        ks: &Keyspace,
        key: impl AsRef<[u8]>,
        len: u64,
        mut value: impl Read,
    ) -> Result<()> {
        let (life, key) = (ks.life(), key.as_ref());
        self.check_writable()?;
        check_key(key)?;
        self.check_keyspace(life)?;
        if len > VALUE_BYTES_MAX as u64 {
            return Err(Error::TooLarge { what: "value", len, max: VALUE_BYTES_MAX as u64 });
        }
        self.core().sequencer.check()?;
        let is_followed = self.core().slots.is_any();
        if is_followed && len > INLINE_BYTES_MAX as u64 {
            let what = "a value streamed into a store with slots, whose log has to hold all of it,";
            return Err(Error::TooLarge { what, len, max: INLINE_BYTES_MAX as u64 });
        }
        let version = if !is_followed && self.bypasses_log(len) {
            let core = self.core();
            let streamed = core.store.stream(len, core.options.piece_bytes, &mut value);
            Version::Large(streamed.inspect_err(|error| core.data_failed(error))?)
        } else {
            Version::Value(self.core().store.read_source(len, &mut value)?)
        };
        self.set(life, key, version)
    }

    /// Whether a value's bytes go around the log, into the data file.
    ///
    /// Not while there is a slot: whoever lives on the log alone, as a replica does, never sees what went around it. A reader
    /// or a pin of this process is none, for it has the data file too. The first slot may come while the value is on its way:
    /// then the commit finds that out.
    fn bypasses_log(&self, len: u64) -> bool {
        len > 0 && len >= self.core().options.stream_bytes_min as u64
    }

    /// What [`Readable::open_value`](crate::Readable::open_value) does.
    pub(super) fn open(&self, ks: &Keyspace, key: &[u8]) -> Result<Option<ValueReader>> {
        let life = ks.life();
        self.check_keyspace(life)?;
        let reads = self.snapshot.reads();
        if let OwnRow::Written(Version::Large(value)) = self.own.row(life.id(), key) {
            // The reader outlives the transaction: from the commit on this snapshot keeps what it reads, whoever replaces it.
            let now = reads.snapshot(self.core().catalogue.instance(), false);
            return Ok(Some(ValueReader::new(Located::Apart(value), reads, Some(&now))));
        }
        if matches!(self.own.row(life.id(), key), OwnRow::Unwritten) && !contains(&self.created, life) {
            self.mind_row(life, key)?;
            self.note(life, key);
            return self.snapshot.open_row(life, key);
        }
        let value = crate::Readable::get(self, ks, key)?;
        Ok(value.map(|value| ValueReader::new(Located::Here(value), reads, None)))
    }
}
