//! An image, part by part.

use super::wire::replication_client::ReplicationClient;
use super::wire::{ImagePart, ImageRequest};
use crate::node::{ImageSource, Stretch};
use bytes::Bytes;
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Bytes of a part.
const PART_BYTES: usize = 1 << 20;
/// A part is taken within that, or the image is over.
const TAKEN: Duration = Duration::from_secs(60);
/// Parts on their way to the connection.
pub(super) const PARTS: usize = 4;

/// Gives an image away, no faster than is allowed, until it is over or nobody takes it.
pub(super) async fn give(
    mut source: Box<dyn ImageSource>,
    request: ImageRequest,
    bytes_per_s: Option<u64>,
    parts: mpsc::Sender<Result<ImagePart, Status>>,
) {
    let about = source.about();
    // Another image than was begun begins at its beginning.
    let mut from = if request.about == about { request.offset } else { 0 };
    let mut about = Some(about);
    let started = Instant::now();
    let mut given = 0_u64;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let read = source.read(from, PART_BYTES);
            (source, read)
        });
        let Ok((back, read)) = read.await else { return };
        source = back;
        let mut part = match read {
            Ok(Some(Stretch { offset, bytes })) => {
                from = offset + bytes.len() as u64;
                given += bytes.len() as u64;
                ImagePart { checksum: checksum(&bytes), offset, bytes, ..ImagePart::default() }
            }
            Ok(None) => ImagePart { offset: from, last: true, ..ImagePart::default() },
            Err(error) => {
                let _ = parts.send(Err(Status::internal(error.to_string()))).await;
                return;
            }
        };
        part.about = about.take().unwrap_or_default();
        let is_last = part.last;
        // Who does not take it in all that time holds log, and room in the data file, for nothing: it can be gone on with.
        let sent = tokio::time::timeout(TAKEN, parts.send(Ok(part))).await;
        if !matches!(sent, Ok(Ok(()))) || is_last {
            return;
        }
        if let Some(rate) = bytes_per_s {
            let due = Duration::from_secs_f64(given as f64 / rate.max(1) as f64);
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        }
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Takes an image, stretch by stretch. Made by [`Remote::image`](super::Remote::image); behind an error a new one goes on where
/// this one stopped.
pub struct Images {
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) stream: Streaming<ImagePart>,
    about: Bytes,
    first: Option<Stretch>,
    is_over: bool,
}

impl Images {
    pub(super) async fn open(
        runtime: tokio::runtime::Handle,
        mut client: ReplicationClient<Channel>,
        request: ImageRequest,
    ) -> io::Result<Images> {
        let stream = client.image(request).await.map_err(status)?.into_inner();
        let mut images = Images { runtime, stream, about: Bytes::new(), first: None, is_over: false };
        let part = images.part().await?;
        images.about = part.about.clone();
        images.first = images.check(part)?;
        Ok(images)
    }

    /// What the image says of itself: for who writes it down, and to resume.
    pub fn about(&self) -> &Bytes {
        &self.about
    }

    /// The next stretch; none behind the last.
    ///
    /// # Errors
    /// `InvalidData` for one that was damaged on its way, what the other side or the network says.
    pub fn next_part(&mut self) -> io::Result<Option<Stretch>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.is_over {
            return Ok(None);
        }
        let runtime = self.runtime.clone();
        let part = runtime.block_on(self.part())?;
        self.check(part)
    }

    async fn part(&mut self) -> io::Result<ImagePart> {
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the image ends before its end");
        self.stream.message().await.map_err(status)?.ok_or_else(cut)
    }

    fn check(&mut self, part: ImagePart) -> io::Result<Option<Stretch>> {
        if part.last {
            self.is_over = true;
            return Ok(None);
        }
        if part.bytes.is_empty() || checksum(&part.bytes) != part.checksum {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a part of the image is damaged"));
        }
        Ok(Some(Stretch { offset: part.offset, bytes: part.bytes }))
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

pub(super) fn status(status: Status) -> io::Error {
    use tonic::Code;
    let kind = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => io::ErrorKind::PermissionDenied,
        Code::Unimplemented => io::ErrorKind::Unsupported,
        Code::Unavailable => io::ErrorKind::NotConnected,
        Code::ResourceExhausted => io::ErrorKind::ResourceBusy,
        _ => io::ErrorKind::Other,
    };
    let what = match super::cause(&status) {
        // Not said by the other side: a transport's own message is that it failed.
        Some(cause) => cause,
        None => format!("{:?}: {}", status.code(), status.message()),
    };
    io::Error::new(kind, what)
}
