//! Opening a store for a command: what is missing is said before the engine is asked, and nothing is created by
//! mistake.

use super::escape::Codec;
use super::{Exit, Failure, Outcome, Ui};
use clap::Args;
use seawall::wal::anchor::{self, Anchor, Slot};
use seawall::{Db, DbBuilder, Keyspace};
use std::path::{Path, PathBuf};

/// The keyspace that commands use unless they are told another.
pub(crate) const KEYSPACE: &str = "default";

/// A store and a keyspace in it.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The store's directory
    #[arg(value_name = "DB")]
    pub(crate) db: PathBuf,
    /// The keyspace
    #[arg(short, long, default_value = KEYSPACE, value_name = "NAME")]
    pub(crate) keyspace: String,
}

/// Opens a store that exists, without any write to it. Fails while another process has it open for writing.
pub(crate) fn open_to_read(ui: &Ui, dir: &Path) -> Outcome<Db> {
    let db = open_as(ui, dir, |builder| builder.read_only(true))?;
    let (shown, end) = (db.snapshot().lsn(), db.shipping().wal().tail().whole_end);
    if is_replicas(dir) && end > shown {
        ui.say(format!(
            "a replica, as of its last checkpoint, at LSN {shown}: its primary may not have shown what is in the log behind that"
        ));
    }
    Ok(db)
}

fn is_replicas(dir: &Path) -> bool {
    // What cannot be read is said by opening.
    let anchor = std::fs::read(dir.join("log").join(anchor::FILE_NAME)).unwrap_or_default();
    matches!(Anchor::choose(&anchor), Slot::Valid(anchor) if anchor.is_replica)
}

/// Opens a store that exists.
pub(crate) fn open_to_write(ui: &Ui, dir: &Path) -> Outcome<Db> {
    open_as(ui, dir, |builder| builder)
}

/// Opens a store that exists, a primary's or a replica's: for what both have.
pub(crate) fn open_either(ui: &Ui, dir: &Path) -> Outcome<Db> {
    require(dir)?;
    open_as(ui, dir, |builder| builder.replica(is_replicas(dir)))
}

/// Like [`keyspace_to_read`], but in a store without any keyspace the one that nobody named is there, and empty.
pub(crate) fn rows_to_read(db: &Db, name: &str) -> Outcome<Option<Keyspace>> {
    if name == KEYSPACE && db.keyspace_names()?.is_empty() {
        return Ok(None);
    }
    keyspace_to_read(db, name).map(Some)
}

/// The store's keyspace, which must exist.
pub(crate) fn keyspace_to_read(db: &Db, name: &str) -> Outcome<Keyspace> {
    db.open_keyspace(name)?.ok_or_else(|| {
        let shown: Vec<String> =
            db.keyspaces().iter().map(|name| Codec::Escaped.encode(name.as_bytes())).collect();
        let hint = if shown.is_empty() {
            "the store has none yet; `seawall put` and `seawall load` create them".to_owned()
        } else {
            format!("-k NAME chooses one of: {}", shown.join(", "))
        };
        Failure::not_found(format!("no keyspace `{name}` in this store")).hint(hint)
    })
}

/// Fails unless the directory holds a store, or the remains of one.
pub(crate) fn require(dir: &Path) -> Outcome {
    let shown = dir.display();
    let failure = match std::fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("no store at {shown}"),
        Err(error) => return Err(Failure::file("looking at", dir, &error)),
        Ok(found) if !found.is_dir() => format!("{shown} is a file; a store is a directory"),
        Ok(_) if dir.join("data").exists() => return Ok(()),
        Ok(_) if dir.join("log").join(anchor::FILE_NAME).exists() => {
            let message = format!("{shown} holds a store's log, and the store's file `data` is missing");
            let hint = "`seawall init` completes a creation that was cut short; it changes nothing where the log \
                        holds commits";
            return Err(Failure::new(Exit::Corruption, message).hint(hint));
        }
        Ok(_) if dir.join(anchor::FILE_NAME).exists() => {
            let message = format!("{shown} is a log; a store is the directory that holds one");
            return Err(Failure::not_found(message).hint("`seawall log` reads logs, those of their own too"));
        }
        Ok(_) => format!("{shown} is a directory, but holds no store"),
    };
    Err(Failure::not_found(failure).hint("`seawall init DIR` creates a store"))
}

/// Opens a store that exists, in a way of its own.
pub(crate) fn open_as(ui: &Ui, dir: &Path, options: impl FnOnce(DbBuilder) -> DbBuilder) -> Outcome<Db> {
    require(dir)?;
    let db = options(Db::builder(dir).create(false)).open()?;
    ui.detail(|| {
        let recovery = db.recovery();
        let tail = match &recovery.dropped_tail {
            Some((file, offset)) => format!("; dropped a torn tail at byte {offset} of {}", file.display()),
            None => String::new(),
        };
        format!(
            "opened {}: {} records ({} bytes) of log replayed in {:.1} ms{tail}; I/O by {}: {}",
            dir.display(),
            recovery.records,
            recovery.bytes,
            recovery.took.as_secs_f64() * 1e3,
            recovery.backend,
            recovery.backend_reason,
        )
    });
    Ok(db)
}
