//! The image that a replica begins with.

use super::super::ui::Unit;
use super::super::{Failure, Outcome, Ui};
use super::LOOK;
use seawall::replication::message::{Features, Hello, Message, Name, VERSION, VERSION_MIN, Why};
use seawall::replication::net::Remote;
use seawall::replication::node::greet;
use seawall::replication::timeline::{History, Tail};
use seawall::wal::OsRuntime;
use seawall::{Db, DbBuilder, ImageInfo, ImagePiece, ImageWriter, Lsn};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Before another attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// Copies an image into a directory that holds no store, or goes on with one that was begun there.
pub(super) fn image(ui: &Ui, dir: &Path, remote: &Remote, name: &Name) -> Outcome {
    let builder = Db::builder(dir);
    let mut told = String::new();
    loop {
        ui.check_interrupt()?;
        let error = match attempt(ui, &builder, remote, name) {
            Ok(()) => return Ok(()),
            Err(Trouble::Here(failure)) => return Err(failure),
            Err(Trouble::There(error)) if is_final(&error) => {
                return Err(Failure::error(format!("copying the store: {error}")));
            }
            Err(Trouble::There(error)) => error.to_string(),
        };
        if error != told {
            ui.say(format!("copying the store: {error}; tries again"));
            told = error;
        }
        let until = Instant::now() + PAUSE;
        while Instant::now() < until && !ui.is_interrupted() {
            std::thread::sleep(LOOK);
        }
    }
}

enum Trouble {
    Here(Failure),
    There(io::Error),
}

impl From<seawall::Error> for Trouble {
    fn from(error: seawall::Error) -> Trouble {
        Trouble::Here(error.into())
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Here(failure)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::There(error)
    }
}

/// What another attempt would meet again.
fn is_final(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported)
}

fn attempt(ui: &Ui, builder: &DbBuilder, remote: &Remote, name: &Name) -> Result<(), Trouble> {
    let begun = ImageWriter::begun(builder)?;
    // First the slot, then the image: that of an image that was begun is there.
    let mut images = match &begun {
        Some(info) => {
            let done = ImageWriter::begin(builder, info)?.offset();
            remote.image(bytes::Bytes::copy_from_slice(info.superblock()), done, 0)?
        }
        None => remote.first_image(name.as_str())?,
    };
    let mut info = ImageInfo::from_superblock(images.about())?;
    if begun.is_some_and(|begun| begun != info) {
        ui.say("the image that was begun is no longer to be had; begins with another");
        images = remote.first_image(name.as_str())?;
        info = ImageInfo::from_superblock(images.about())?;
    }
    let mut writer = ImageWriter::begin(builder, &info)?;
    if writer.offset() > 0 {
        ui.say(format!("goes on with the image from byte {}", writer.offset()));
    }
    let bar = ui.progress(Some(info.file_bytes), Unit::Bytes);
    while let Some(stretch) = images.next_part()? {
        ui.check_interrupt()?;
        writer.write(&ImagePiece { offset: stretch.offset, bytes: stretch.bytes.to_vec() })?;
        bar.set_position(writer.offset());
    }
    let history = history(remote, &info, name)?;
    writer.finish(history.epoch(), &(&history).into())?;
    bar.finish_and_clear();
    ui.say(format!("copied an image of the store, as of LSN {}", info.checkpoint_lsn));
    Ok(())
}

/// The epochs of the log that the image is to be followed with. They come with the answer to whoever wants to follow from the image
/// on, be it that its log is older than it thinks.
fn history(remote: &Remote, info: &ImageInfo, name: &Name) -> Result<History, Trouble> {
    let segment = info.segment_bytes.max(1);
    let place = Lsn(info.checkpoint_lsn.0 / segment * segment);
    let hello = Hello {
        version: VERSION,
        version_min: VERSION_MIN,
        features: Features::ASK,
        store_id: info.store_id,
        name: name.clone(),
        tail: Tail { epoch: 0, place, whole_end: place, checksum: 0 },
        history: History::default(),
        promised: 0,
        slot: None,
    };
    match greet(remote, hello, ANSWER, &(OsRuntime::new() as _))? {
        Message::Welcome(welcome) => Ok(welcome.history),
        Message::Refuse(Why::Diverged { history, .. }) => Ok(history),
        Message::Refuse(why) => {
            Err(Failure::error(format!("the store that was copied cannot be followed: {why:?}")).into())
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is none").into()),
    }
}
