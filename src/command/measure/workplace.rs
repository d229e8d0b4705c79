//! A directory to work in, and what in it is ours to remove: nothing of the user's is ever overwritten.

use crate::command::{Failure, Outcome};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A new or empty directory. What was named with [`path`](Workplace::path) is removed with
/// [`remove`](Workplace::remove), and the directory itself if it was created here.
#[derive(Debug)]
pub(crate) struct Workplace {
    pub(crate) dir: PathBuf,
    /// The user's own empty directory stays.
    created: bool,
    ours: RefCell<Vec<PathBuf>>,
}

impl Workplace {
    /// Takes the directory given, which must be empty if it exists; without one a fresh directory below the current
    /// one, named after the command.
    pub(crate) fn create(dir: Option<&Path>, command: &str) -> Outcome<Workplace> {
        let dir = match dir {
            Some(dir) => dir.to_owned(),
            None => PathBuf::from(format!("seawall-{command}-{}", std::process::id())),
        };
        match std::fs::read_dir(&dir).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(Workplace::new(dir, false)),
            Ok(false) => {
                let what = format!("{} is not empty", dir.display());
                let hint = format!(
                    "give a new or an empty directory: `seawall {command}` creates and removes its files there"
                );
                Err(Failure::usage(what).hint(hint))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(&dir).map_err(|error| Failure::file("creating", &dir, &error))?;
                Ok(Workplace::new(dir, true))
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                Err(Failure::usage(format!("{} is a file; give a directory", dir.display())))
            }
            Err(error) => Err(Failure::file("reading", &dir, &error)),
        }
    }

    /// Makes a directory of its own inside one that exists, whatever else is in there.
    pub(crate) fn create_inside(parent: &Path, command: &str) -> Outcome<Workplace> {
        let dir = parent.join(format!("seawall-{command}-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(|error| Failure::file("creating", &dir, &error))?;
        Ok(Workplace::new(dir, true))
    }

    fn new(dir: PathBuf, created: bool) -> Workplace {
        Workplace { dir, created, ours: RefCell::default() }
    }

    /// A file or directory of ours.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        let mut ours = self.ours.borrow_mut();
        if !ours.contains(&path) {
            ours.push(path.clone());
        }
        path
    }

    /// Removes one file or directory of ours, if it is there.
    pub(crate) fn clear(&self, path: &Path) -> Outcome {
        let removed = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
            _ => std::fs::remove_file(path),
        };
        removed.map_err(|error| Failure::file("removing", path, &error))
    }

    /// Removes all of it.
    pub(crate) fn remove(&self) -> Outcome {
        for path in self.ours.borrow().iter() {
            self.clear(path)?;
        }
        if self.created {
            std::fs::remove_dir(&self.dir).map_err(|error| Failure::file("removing", &self.dir, &error))?;
        }
        Ok(())
    }
}
