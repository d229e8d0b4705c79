//! A conversation straight over TLS: messages as frames of their own, without HTTP/2 between.
//!
//! ```text
//! whoever sends ─ send() ─► queue ─► records ─► socket      in its own thread, as far as the socket takes it at once
//!                             └── the rest: the task, when there is room
//! socket ─► task ─ take() ─► records ─► frames ─► Ear::hear_all
//! ```
//!
//! Nobody is woken to send, and everything that has come is heard at once. What may be on its way is bounded by the room that
//! a replica has said there is: the queue holds the log's own bytes, which are packed into records when the socket takes them.

use crate::message::Message;
use crate::node::{Ear, Wire};
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use rustls::Connection;
use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

/// What the other side calls it, by ALPN.
pub(super) const PROTOCOL: &[u8] = b"seawall-follow/1";

/// Length of the head, length of the body.
const PREFIX_BYTES: usize = 8;
/// Read from a socket at a time.
const READ_BYTES: usize = 128 << 10;
/// Taken in a row before what it is made of is heard.
const TAKEN_MAX: usize = 1 << 20;
/// Records that wait for the socket: more are not packed ahead.
const PACKED_MAX: usize = 256 << 10;
/// Parts of messages that are packed at a time.
const PARTS_MAX: usize = 64;
/// What was said last is on its way within that, or is given up.
const LINGER: Duration = Duration::from_secs(1);

/// What the side that is called answers before anything is said: 0, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Welcome,
    /// The certificate may not.
    Denied(String),
    /// Nothing is shipped there.
    Away(String),
}

impl Answer {
    //= docs/format/wire.md#on-the-network
    fn encode(&self) -> Vec<u8> {
        let (code, text) = match self {
            Answer::Welcome => (0, ""),
            Answer::Denied(text) => (1, text.as_str()),
            Answer::Away(text) => (2, text.as_str()),
        };
        let text = text.as_bytes().get(..text.len().min(usize::from(u8::MAX))).unwrap_or_default();
        [&[code, text.len() as u8], text].concat()
    }

    pub(super) async fn say(&self, to: &mut (impl tokio::io::AsyncWrite + Unpin)) -> io::Result<()> {
        to.write_all(&self.encode()).await?;
        to.flush().await
    }

    pub(super) async fn hear(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Answer> {
        let mut head = [0; 2];
        from.read_exact(&mut head).await?;
        let [code, length] = head;
        let mut text = vec![0; usize::from(length)];
        from.read_exact(&mut text).await?;
        let text = String::from_utf8_lossy(&text).into_owned();
        match code {
            0 => Ok(Answer::Welcome),
            1 => Ok(Answer::Denied(text)),
            2 => Ok(Answer::Away(text)),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "an answer that there is none of")),
        }
    }
}

/// One end of a connection.
pub(super) struct Pipe {
    out: Mutex<Out>,
    /// Something is left for the task to write, or to close.
    left: Notify,
}

struct Out {
    /// None once it is over: it is closed, whoever else keeps this.
    socket: Option<Arc<TcpStream>>,
    tls: Connection,
    /// Said, and not packed.
    queue: VecDeque<Bytes>,
    /// The answer stands before all that is said.
    is_answered: bool,
    /// Nothing more is said; what was said still goes.
    is_closing: bool,
}

/// A socket as `rustls` wants it. Never waits.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    fn put(&mut self, head: Bytes, body: Bytes) {
        let lengths = [head.len() as u32, body.len() as u32].map(u32::to_le_bytes);
        let mut front = Vec::with_capacity(PREFIX_BYTES + head.len());
        lengths.iter().for_each(|length| front.extend_from_slice(length));
        front.extend_from_slice(&head);
        self.queue.push_back(front.into());
        if !body.is_empty() {
            self.queue.push_back(body);
        }
    }

    /// As much as the socket takes. Whether that is all.
    fn pump(&mut self) -> io::Result<bool> {
        let socket = self.socket.clone().ok_or(ErrorKind::NotConnected)?;
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut Socket(&socket)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if self.queue.is_empty() {
                return Ok(true);
            }
            let parts: Vec<IoSlice<'_>> =
                self.queue.iter().take(PARTS_MAX).map(|part| IoSlice::new(part)).collect();
            let mut packed = self.tls.writer().write_vectored(&parts)?;
            if packed == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            while let Some(first) = self.queue.front_mut() {
                let of_this = packed.min(first.len());
                first.advance(of_this);
                packed -= of_this;
                if !first.is_empty() {
                    break;
                }
                self.queue.pop_front();
            }
        }
    }
}

impl Wire for Pipe {
    fn send(&self, message: Message) {
        let (head, body) = message.parts();
        let mut out = self.out.lock();
        if out.is_closing {
            return;
        }
        let had_left = !out.is_answered || out.tls.wants_write() || !out.queue.is_empty();
        out.put(head, body);
        // What stands before it waits for room in the socket: the task looks for that.
        if !had_left && !matches!(out.pump(), Ok(true)) {
            self.left.notify_one();
        }
    }

    fn close(&self) {
        self.out.lock().is_closing = true;
        self.left.notify_one();
    }
}

/// What has come.
enum Came {
    /// There may be more.
    More,
    Nothing,
    /// The end: the other side's, or of what makes sense.
    End,
}

/// What is read, and what of it is no message yet.
struct Frames {
    buf: Vec<u8>,
    prefix: Vec<u8>,
    lengths: Option<(usize, usize)>,
    head: Vec<u8>,
    body: Vec<u8>,
    body_max: usize,
}

impl Frames {
    fn new(body_max: usize) -> Frames {
        Frames {
            buf: vec![0; READ_BYTES],
            prefix: Vec::with_capacity(PREFIX_BYTES),
            lengths: None,
            head: Vec::new(),
            body: Vec::new(),
            body_max,
        }
    }

    /// Whole messages among what came before and this. None: it makes no sense.
    //= docs/format/wire.md#on-the-network
    fn feed(&mut self, mut bytes: &[u8], messages: &mut Vec<Message>) -> Option<()> {
        loop {
            let (head, body) = match self.lengths {
                Some(lengths) => lengths,
                None => {
                    fill(&mut self.prefix, &mut bytes, PREFIX_BYTES);
                    let Some((head, body)) = self.prefix.split_first_chunk::<4>() else { return Some(()) };
                    let Ok(body) = <[u8; 4]>::try_from(body) else { return Some(()) };
                    let lengths = (u32::from_le_bytes(*head) as usize, u32::from_le_bytes(body) as usize);
                    if lengths.0 > Message::HEAD_BYTES_MAX || lengths.1 > self.body_max {
                        return None;
                    }
                    self.body.reserve_exact(lengths.1);
                    *self.lengths.insert(lengths)
                }
            };
            fill(&mut self.head, &mut bytes, head);
            fill(&mut self.body, &mut bytes, body);
            if self.head.len() < head || self.body.len() < body {
                return Some(());
            }
            let body = std::mem::take(&mut self.body);
            messages.push(Message::from_parts(&self.head, body.into()).ok()?);
            self.lengths = None;
            self.prefix.clear();
            self.head.clear();
        }
    }
}

/// Up to so many, from the front of these.
fn fill(to: &mut Vec<u8>, from: &mut &[u8], bytes: usize) {
    let (taken, rest) = from.split_at(bytes.saturating_sub(to.len()).min(from.len()));
    to.extend_from_slice(taken);
    *from = rest;
}

impl Pipe {
    /// Of the side that has called, and was answered that it may.
    pub(super) fn calling(socket: TcpStream, tls: Connection) -> Arc<Pipe> {
        Pipe::new(socket, tls, true)
    }

    /// Of the side that was called: what is said goes behind the answer.
    pub(super) fn called(socket: TcpStream, tls: Connection) -> Arc<Pipe> {
        Pipe::new(socket, tls, false)
    }

    fn new(socket: TcpStream, mut tls: Connection, is_answered: bool) -> Arc<Pipe> {
        tls.set_buffer_limit(Some(PACKED_MAX));
        let (socket, queue) = (Some(Arc::new(socket)), VecDeque::new());
        let out = Mutex::new(Out { socket, tls, queue, is_answered, is_closing: false });
        Arc::new(Pipe { out, left: Notify::new() })
    }

    /// Before it runs, or ends.
    pub(super) fn answer(&self, answer: &Answer) {
        let mut out = self.out.lock();
        out.queue.push_front(answer.encode().into());
        out.is_answered = true;
    }

    /// What is there already.
    fn take(&self, socket: &TcpStream, frames: &mut Frames, messages: &mut Vec<Message>) -> Came {
        let mut taken = 0;
        // What came together with the answer is there without another look at the socket.
        if self.unpack(&[], frames, messages).is_none() {
            return Came::End;
        }
        loop {
            let read = match socket.try_read(&mut frames.buf) {
                Ok(0) => return Came::End,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Came::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Came::End,
            };
            let buf = std::mem::take(&mut frames.buf);
            let unpacked = self.unpack(buf.get(..read).unwrap_or_default(), frames, messages);
            frames.buf = buf;
            taken += read;
            match unpacked {
                None => return Came::End,
                // There was no more; if there is by now, the socket says so.
                Some(()) if read < READ_BYTES => return Came::Nothing,
                Some(()) if taken >= TAKEN_MAX => return Came::More,
                Some(()) => {}
            }
        }
    }

    fn unpack(&self, mut bytes: &[u8], frames: &mut Frames, messages: &mut Vec<Message>) -> Option<()> {
        let mut out = self.out.lock();
        loop {
            if !bytes.is_empty() {
                out.tls.read_tls(&mut bytes as &mut dyn Read).ok()?;
            }
            let is_sane = out.tls.process_new_packets().is_ok();
            loop {
                let mut reader = out.tls.reader();
                // At its end, by the other side's word, it is empty; and where there is nothing now it would block.
                let chunk = match reader.fill_buf() {
                    Ok([]) => return None,
                    Ok(chunk) => chunk,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return None,
                };
                frames.feed(chunk, messages)?;
                let length = chunk.len();
                reader.consume(length);
            }
            if !is_sane {
                // It is told why, if it still hears.
                let _ = out.pump();
                return None;
            }
            if bytes.is_empty() {
                break;
            }
        }
        // What that asks to be written, new keys say, goes with the rest.
        Some(())
    }

    /// The rest is written. Whether that is all, and whether nothing follows.
    fn rest(&self) -> io::Result<(bool, bool)> {
        let mut out = self.out.lock();
        let is_all = out.pump()?;
        Ok((is_all, out.is_closing))
    }

    /// Until the connection ends, or `stop` does; messages that come go to the ear. No body is longer than `body_max`.
    pub(super) async fn run(&self, ear: &dyn Ear, body_max: usize, stop: impl Future<Output = ()>) {
        let life = Life(self, ear);
        tokio::pin!(stop);
        let mut frames = Frames::new(body_max);
        let Some(socket) = self.out.lock().socket.clone() else { return };
        loop {
            let mut messages = Vec::new();
            let came = self.take(&socket, &mut frames, &mut messages);
            if !messages.is_empty() {
                ear.hear_all(messages);
            }
            let interest = match (came, self.rest()) {
                (Came::End, _) | (_, Err(_) | Ok((_, true))) => break,
                (Came::More, Ok(_)) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                (Came::Nothing, Ok((true, _))) => Interest::READABLE,
                (Came::Nothing, Ok((false, _))) => Interest::READABLE | Interest::WRITABLE,
            };
            tokio::select! {
                _ = socket.ready(interest) => {}
                () = self.left.notified() => {}
                () = &mut stop => break,
            }
        }
        ear.lost();
        self.end().await;
        drop(life);
    }

    /// What was said goes, and that nothing follows; then the connection is over.
    pub(super) async fn end(&self) {
        let Some(socket) = self.out.lock().socket.clone() else { return };
        self.out.lock().is_closing = true;
        let rest = async {
            while let Ok((false, _)) = self.rest() {
                let _ = socket.ready(Interest::WRITABLE).await;
            }
            self.out.lock().tls.send_close_notify();
            let _ = self.rest();
        };
        let _ = timeout(LINGER, rest).await;
        self.hang();
    }

    fn hang(&self) {
        let mut out = self.out.lock();
        out.is_closing = true;
        out.queue.clear();
        out.socket = None;
    }
}

/// Where its task is dropped, with everything else there, the connection goes with it.
struct Life<'a>(&'a Pipe, &'a dyn Ear);

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.0.hang();
        // Told twice, it is heard once.
        self.1.lost();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may")]

    use super::*;
    use crate::message::{Heartbeat, Marks, Piece};
    use seawall_wal::Lsn;
    use seawall_wal::runtime::Rng;

    fn frame(head: &[u8], body: &[u8]) -> Vec<u8> {
        let lengths = [head.len() as u32, body.len() as u32].map(u32::to_le_bytes);
        [lengths.as_flattened(), head, body].concat()
    }

    fn piece(at: u64, length: usize) -> Message {
        Message::Piece(Piece::plain(Lsn(at), Lsn(at), (0..length).map(|byte| byte as u8).collect()))
    }

    #[test]
    fn messages_come_through_however_they_are_cut() {
        let said = [
            piece(4096, 70_000),
            Message::Bye,
            Message::Heartbeat(Heartbeat::default()),
            piece(1 << 40, 1),
            Message::Marks(Marks::default()),
            piece(0, 300_000),
        ];
        let bytes: Vec<u8> = said
            .iter()
            .flat_map(|message| {
                let (head, body) = message.parts();
                frame(&head, &body)
            })
            .collect();
        let mut rng = Rng::new(7);
        for longest in [1, 3, 9, 4096, 100_000, bytes.len() as u64] {
            let (mut frames, mut heard, mut rest) = (Frames::new(Message::BYTES_MAX), Vec::new(), &bytes[..]);
            while !rest.is_empty() {
                let cut = (1 + rng.below(longest) as usize).min(rest.len());
                frames.feed(&rest[..cut], &mut heard).unwrap();
                rest = &rest[cut..];
            }
            assert_eq!(heard, said);
        }
    }

    #[test]
    fn what_is_no_frame_is_the_end_before_anything_is_kept_for_it() {
        let (bye, _) = Message::Bye.parts();
        let (head, body) = piece(0, 4096).parts();
        let long = |head: u32, body: u32| [head.to_le_bytes(), body.to_le_bytes()].concat();
        let from_replica = Frames::new(0);
        let from_primary = Frames::new(Message::BYTES_MAX);
        for (mut frames, bad) in [
            (Frames::new(0), frame(&head, &body)),
            (Frames::new(0), frame(&[], &[])),
            (Frames::new(0), frame(&[1, 200], &[])),
            (Frames::new(0), long(1 + Message::HEAD_BYTES_MAX as u32, 0)),
            (from_replica, long(8, 1)),
            (Frames::new(Message::BYTES_MAX), frame(&bye, &[1])),
            (Frames::new(Message::BYTES_MAX), frame(&head, &body[..4095])),
            (from_primary, long(8, 1 + Message::BYTES_MAX as u32)),
            (Frames::new(Message::BYTES_MAX), long(u32::MAX, u32::MAX)),
        ] {
            let mut heard = Vec::new();
            assert!(frames.feed(&bad, &mut heard).is_none() && heard.is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn answers_come_through_and_long_ones_are_cut() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let long = "a".repeat(300);
        for (said, heard) in [
            (Answer::Welcome, Answer::Welcome),
            (Answer::Denied("no".into()), Answer::Denied("no".into())),
            (Answer::Away(long.clone()), Answer::Away(long[..255].into())),
        ] {
            let mut bytes = Vec::new();
            runtime.block_on(said.say(&mut bytes)).unwrap();
            assert_eq!(runtime.block_on(Answer::hear(&mut &bytes[..])).unwrap(), heard);
        }
        assert!(runtime.block_on(Answer::hear(&mut &[3, 0][..])).is_err());
        assert!(runtime.block_on(Answer::hear(&mut &[1, 9, b'x'][..])).is_err());
    }
}
