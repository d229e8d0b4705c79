//! The durable idioms over [`Disk`], in one place: what must follow what, so that a power cut at any call leaves
//! either the state before or the state after.
//!
//! | idiom | calls, in order | without the last one |
//! |---|---|---|
//! | [`rename`] | rename · sync_dir(target's parent) · sync_dir(source's parent) | the old name comes back (RocksDB #10573, etcd #22340) |
//! | [`remove`] | remove · sync_dir(parent) | the file comes back; or, unsynced, the removal overtakes a rename (LevelDB #195) |
//! | [`create_dir`] | create_dir · sync_dir(parent) | all that was synced *inside* is lost with the name (RocksDB #5287) |
//! | [`write_new`] | write · sync_data · rename · sync_dir | a name that leads to bytes that never arrived (LevelDB #189) |
//!
//! An error from any of them leaves it open which of the two states a power cut would show. A failed sync is never
//! tried again here; a caller that runs the whole idiom again starts from a new file.

use super::{Disk, Open};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The directory that holds the path's name: `"."` for a bare name, the path itself for a root.
///
/// ```
/// use seawall_wal::disk::crashsafe::parent_of;
/// assert_eq!(parent_of("store/data".as_ref()), std::path::Path::new("store"));
/// assert_eq!(parent_of("store".as_ref()), std::path::Path::new("."));
/// ```
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Renames durably, replacing `target` in one step. The contents of `source` must have been synced before.
///
/// The target's directory goes first: between the two syncs a power cut may leave both names, never neither.
///
/// # Errors
/// What the system says.
pub fn rename(disk: &dyn Disk, source: &Path, target: &Path) -> io::Result<()> {
    disk.rename(source, target)?;
    disk.sync_dir(parent_of(target))?;
    if parent_of(source) != parent_of(target) {
        disk.sync_dir(parent_of(source))?;
    }
    Ok(())
}

/// Removes durably: whatever is done after it finds the file gone, after a power cut too.
///
/// # Errors
/// `NotFound` and what the system says.
pub fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.remove(path)?;
    disk.sync_dir(parent_of(path))
}

/// Creates a directory durably, whose parent must exist; it may exist already. An existing one is synced too: the
/// process that made it may have ended between its two calls.
///
/// # Errors
/// What the system says.
pub fn create_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if disk.exists(dir)? {
        return sync_existing(disk, dir);
    }
    disk.create_dir(dir)?;
    disk.sync_dir(parent_of(dir))
}

/// Creates a directory and whatever is missing above it, each durable before the next.
///
/// # Errors
/// What the system says.
pub fn create_dir_all(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut deepest = dir;
    while deepest != parent_of(deepest) && !deepest.as_os_str().is_empty() && !disk.exists(deepest)? {
        missing.push(deepest);
        deepest = parent_of(deepest);
    }
    // Made in this order, only the deepest that is there can have been left unsynced.
    sync_existing(disk, deepest)?;
    missing.iter().rev().try_for_each(|dir| create_dir(disk, dir))
}

/// Syncs the name of a directory that somebody made earlier. One whose parent may not even be opened was not made
/// by us: to make it durable was its maker's task.
fn sync_existing(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if dir == parent_of(dir) || dir.as_os_str().is_empty() {
        return Ok(());
    }
    match disk.sync_dir(parent_of(dir)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// Puts a file with these bytes at `path`, replacing what is there: after a power cut it holds the old bytes or the
/// new, whole. The bytes wait under [`temporary_name`]; what an earlier crash left there is replaced.
///
/// # Errors
/// `StorageFull` and what the system says; `path` is then untouched, unless it was the last call that failed.
pub fn write_new(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    if disk.exists(&temporary)? {
        disk.remove(&temporary)?;
    }
    let file = disk.open(&temporary, Open::CreateNew)?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    drop(file);
    rename(disk, &temporary, path)
}

/// Where [`write_new`] keeps the bytes until they are durable: `path` with `.tmp` after it.
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".tmp");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;
    use crate::disk::{Backend, DiskFile, Lock};
    use parking_lot::Mutex;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    /// Notes every call and knows which names there are; the last call of `fails` answers with that error.
    #[derive(Debug, Default)]
    struct Recorder {
        calls: Arc<Mutex<Vec<String>>>,
        names: Mutex<BTreeSet<PathBuf>>,
        fails: Option<(&'static str, io::ErrorKind)>,
    }

    impl Recorder {
        fn with(names: &[&str]) -> Recorder {
            Recorder { names: Mutex::new(names.iter().map(PathBuf::from).collect()), ..Recorder::default() }
        }
        fn note(&self, call: String) -> io::Result<()> {
            let fails = self.fails.filter(|(name, _)| call.starts_with(name));
            self.calls.lock().push(call);
            fails.map_or(Ok(()), |(_, kind)| Err(kind.into()))
        }
        fn calls(&self) -> Vec<String> {
            std::mem::take(&mut *self.calls.lock())
        }
    }

    impl Disk for Recorder {
        fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
            self.note(format!("open {how:?} {}", path.display()))?;
            assert!(self.names.lock().insert(path.to_owned()), "{} is there", path.display());
            Ok(Arc::new(File(Arc::clone(&self.calls))))
        }
        fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
            self.names.lock().remove(source);
            self.names.lock().insert(target.to_owned());
            self.note(format!("rename {} {}", source.display(), target.display()))
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.names.lock().remove(path);
            self.note(format!("remove {}", path.display()))
        }
        fn list(&self, _: &Path) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            self.names.lock().insert(dir.to_owned());
            self.note(format!("create_dir {}", dir.display()))
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            self.note(format!("sync_dir {}", dir.display()))
        }
        fn exists(&self, path: &Path) -> io::Result<bool> {
            Ok(self.names.lock().contains(path))
        }
        fn free_bytes(&self, _: &Path) -> io::Result<u64> {
            Ok(0)
        }
        fn lock_holder(&self, _: &Path) -> Option<u32> {
            None
        }
        fn describe(&self, _: &Path) -> Backend {
            Backend {
                name: "recorder",
                reason: String::new(),
                file_system: String::new(),
                is_network: false,
                is_copy_on_write: false,
            }
        }
    }

    #[derive(Debug)]
    struct File(Arc<Mutex<Vec<String>>>);

    impl DiskFile for File {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }
        fn read_device_at(&self, _: &mut [u8], _: u64) -> io::Result<(usize, bool)> {
            Ok((0, false))
        }
        fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
            self.0.lock().push(format!("write {} at {offset}", buf.len()));
            Ok(())
        }
        fn write_durable_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
            self.write_at(buf, offset)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.lock().push("sync_data".to_owned());
            Ok(())
        }
        fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn punch(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn try_lock(&self, _: Lock) -> io::Result<bool> {
            Ok(true)
        }
    }

    #[test]
    fn rename_syncs_both_directories_the_target_first() {
        let disk = Recorder::with(&["a/x"]);
        rename(&disk, "a/x".as_ref(), "a/y".as_ref()).unwrap();
        assert_eq!(disk.calls(), ["rename a/x a/y", "sync_dir a"]);
        rename(&disk, "a/y".as_ref(), "z".as_ref()).unwrap();
        assert_eq!(disk.calls(), ["rename a/y z", "sync_dir .", "sync_dir a"]);
    }

    #[test]
    fn remove_is_durable_before_it_returns() {
        let disk = Recorder::with(&["a/x"]);
        remove(&disk, "a/x".as_ref()).unwrap();
        assert_eq!(disk.calls(), ["remove a/x", "sync_dir a"]);
    }

    #[test]
    fn directories_are_durable_from_the_top() {
        let disk = Recorder::with(&["/", "/top"]);
        create_dir_all(&disk, "/top/a/b".as_ref()).unwrap();
        let calls =
            ["sync_dir /", "create_dir /top/a", "sync_dir /top", "create_dir /top/a/b", "sync_dir /top/a"];
        assert_eq!(disk.calls(), calls);
        create_dir_all(&disk, "/top/a/b".as_ref()).unwrap();
        assert_eq!(disk.calls(), ["sync_dir /top/a"], "an existing name may not be durable yet");
        create_dir_all(&disk, "bare".as_ref()).unwrap();
        assert_eq!(disk.calls(), ["create_dir bare", "sync_dir ."]);
        create_dir_all(&disk, ".".as_ref()).unwrap();
        create_dir_all(&disk, "/".as_ref()).unwrap();
        assert!(disk.calls().is_empty());
    }

    #[test]
    fn only_the_name_of_an_existing_directory_may_be_out_of_reach() {
        let fails = Some(("sync_dir", io::ErrorKind::PermissionDenied));
        let disk = Recorder { fails, ..Recorder::with(&["/home/ann"]) };
        create_dir(&disk, "/home/ann".as_ref()).unwrap();
        assert!(create_dir(&disk, "/home/ann/store".as_ref()).is_err());
        let disk =
            Recorder { fails: Some(("sync_dir", io::ErrorKind::Other)), ..Recorder::with(&["/home/ann"]) };
        assert!(create_dir(&disk, "/home/ann".as_ref()).is_err(), "a sync that failed is never passed over");
    }

    #[test]
    fn bytes_are_durable_before_their_name() {
        let disk = Recorder::with(&["s/x", "s/x.tmp"]);
        write_new(&disk, "s/x".as_ref(), b"seven b").unwrap();
        let calls = [
            "remove s/x.tmp",
            "open CreateNew s/x.tmp",
            "write 7 at 0",
            "sync_data",
            "rename s/x.tmp s/x",
            "sync_dir s",
        ];
        assert_eq!(disk.calls(), calls);
    }
}
