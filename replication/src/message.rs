//! What a primary and a replica say to each other, and its bytes. Pure.
//!
//! The bytes are normative in `docs/format/wire.md`. A message is a head of fields and, of a [`Piece`] alone, a body: the log's
//! own bytes, which nothing here copies when they are taken. Decoding is strict, and sizes are limited before anything is
//! allocated.

#![warn(clippy::indexing_slicing)]

use crate::bytes::{Malformed, Reader, Result, Writer};
use crate::timeline::{History, Tail, Turn};
use bytes::Bytes;
use seawall_wal::Lsn;
use std::fmt;

/// The version of the conversation that this program speaks, and the oldest that it still speaks.
pub const VERSION: u16 = 1;
/// See [`VERSION`].
pub const VERSION_MIN: u16 = 1;
/// Features that this program has: bit 0, pieces compressed by LZ4; bit 3, by Zstandard, if it was built with it; bit 4, a
/// primary says what it waits for.
pub const FEATURES: u64 =
    Features::LZ4 | Features::AWAITED | if cfg!(feature = "zstd") { Features::ZSTD } else { 0 };

/// The bits of what a side has beyond its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features;

impl Features {
    /// It takes pieces that are compressed by LZ4.
    pub const LZ4: u64 = 1;
    /// Of a hello: whoever says it asks that the epoch it has promised be promised to nobody else, for it is about to begin it.
    pub const CLAIM: u64 = 2;
    /// Of a hello: whoever says it only wants to know the primary's history, and is told it by [`Why::Diverged`].
    pub const ASK: u64 = 4;
    /// It takes pieces that are compressed by Zstandard.
    pub const ZSTD: u64 = 8;
    /// The primary says which marks commits wait for ([`Awaited`]): others are not said at once.
    pub const AWAITED: u64 = 16;
}

/// Epochs are raised by one. One that is so far above all that were heard of is nobody's, and is not promised: there would be none
/// above it in the end.
pub const EPOCH_LEAP_MAX: u64 = 1 << 32;

/// A store's identity.
pub type StoreId = [u8; 16];

/// The name of a replica or a slot: 1 to 64 of `a` to `z`, `0` to `9`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The longest.
    pub const BYTES_MAX: usize = 64;

    /// A name; none if it is empty, too long, or has other characters.
    ///
    /// ```
    /// use seawall_replication::message::Name;
    /// assert_eq!(Name::new("shore-1").unwrap().as_str(), "shore-1");
    /// assert!(Name::new("Shore 1").is_none());
    /// ```
    pub fn new(name: &str) -> Option<Name> {
        let fits = (1..=Name::BYTES_MAX).contains(&name.len());
        let may =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        (fits && name.bytes().all(may)).then(|| Name(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first word of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The latest version of the conversation that it speaks.
    pub version: u16,
    /// The oldest.
    pub version_min: u16,
    /// What it has beyond that: [`Features`].
    pub features: u64,
    /// Whose log it has.
    pub store_id: StoreId,
    /// What it is called, by policies of acknowledgement.
    pub name: Name,
    /// Where its log ends.
    pub tail: Tail,
    /// The epochs of its log.
    pub history: History,
    /// It follows no primary of a lower epoch than this.
    pub promised: u64,
    /// What keeps the log for it while it is away.
    pub slot: Option<Name>,
}

/// The primary's answer to a replica that may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both will speak.
    pub version: u16,
    /// What both have beyond it.
    pub features: u64,
    /// The epoch that the primary writes in, which is the last of its history.
    pub history: History,
    /// The place of the first piece to come: where the replica's log ends.
    pub resume: Lsn,
    /// What the primary shows.
    pub visible: Lsn,
}

/// Why a side will not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// They share no version, or not this one's features.
    Version,
    /// The log of another store.
    ForeignStore,
    /// The replica has bytes that the primary has not.
    Diverged {
        /// Up to this place they hold the same.
        fork: Lsn,
        /// The primary's epochs: to go back in.
        history: History,
    },
    /// A primary of a higher epoch is known.
    Fenced {
        /// That epoch.
        epoch: u64,
    },
    /// The log from where the replica ends is no longer there.
    LogGone {
        /// What is.
        first: Lsn,
    },
    /// There is no slot of that name, or it has lost its log.
    SlotMissing,
    /// There is another session under that name or slot, or there are as many as may be.
    Busy,
    /// Who was spoken to ships no log: it is closing, or fenced.
    NotServing,
}

/// Bytes of the log.
#[derive(Clone, PartialEq, Eq)]
pub struct Piece {
    /// The place where the piece before this one ended: `at`, unless that piece was the last of its segment.
    pub after: Lsn,
    /// Where the first byte stands.
    pub at: Lsn,
    /// Length of the bytes, not compressed.
    pub length: u32,
    /// How `bytes` are kept.
    pub compression: Compression,
    /// The bytes, perhaps compressed.
    pub bytes: Bytes,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Piece { after, at, length, compression, bytes } = self;
        write!(f, "Piece {{ {after} > {at}+{length}, {compression:?}, {} bytes }}", bytes.len())
    }
}

/// How a piece's bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// As they are.
    None,
    /// As one LZ4 block.
    Lz4,
    /// As one Zstandard frame. Packing and unpacking take the feature `zstd`.
    Zstd,
}

impl Compression {
    /// This one, or the next best, of what the other side takes.
    pub(crate) fn taken_by(self, features: u64) -> Compression {
        let takes = |bit| features & FEATURES & bit != 0;
        match self {
            Compression::Zstd if takes(Features::ZSTD) => Compression::Zstd,
            Compression::Zstd | Compression::Lz4 if takes(Features::LZ4) => Compression::Lz4,
            _ => Compression::None,
        }
    }
}

/// Between the quickest and the default: a piece is packed while commits may wait for it.
#[cfg(feature = "zstd")]
const ZSTD_LEVEL: i32 = 1;

impl Piece {
    /// Bytes of the longest, not compressed: the largest frame is half of it.
    pub const BYTES_MAX: usize = 8 << 20;

    /// A piece of bytes as they are.
    pub fn plain(after: Lsn, at: Lsn, bytes: Bytes) -> Piece {
        Piece { after, at, length: bytes.len() as u32, compression: Compression::None, bytes }
    }

    /// The place where the next one begins, or a later segment.
    pub fn end(&self) -> Lsn {
        self.at.plus(u64::from(self.length))
    }

    /// Compressed, if that makes it smaller by an eighth.
    #[must_use]
    pub fn compressed(self, by: Compression) -> Piece {
        if self.compression != Compression::None {
            return self;
        }
        let packed = match by {
            Compression::None => None,
            Compression::Lz4 => Some(lz4_flex::block::compress(&self.bytes)),
            #[cfg(feature = "zstd")]
            Compression::Zstd => zstd::bulk::compress(&self.bytes, ZSTD_LEVEL).ok(),
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => None,
        };
        match packed.filter(|packed| packed.len() <= self.bytes.len() - self.bytes.len() / 8) {
            Some(packed) => Piece { compression: by, bytes: Bytes::from(packed), ..self },
            None => self,
        }
    }

    /// The log's bytes.
    ///
    /// # Errors
    /// If they do not unpack to their length.
    pub fn unpacked(&self) -> Result<Bytes> {
        self.clone().into_unpacked()
    }

    /// The log's bytes. Those that are not compressed are not copied.
    ///
    /// # Errors
    /// If they do not unpack to their length.
    pub fn into_unpacked(self) -> Result<Bytes> {
        let bad = Malformed { at: 0, what: "a piece that does not unpack to its length" };
        let length = self.length as usize;
        match self.compression {
            Compression::None if self.bytes.len() == length => Ok(self.bytes),
            Compression::None => Err(bad),
            Compression::Lz4 => {
                // What one byte of LZ4 can stand for: no more is allocated for less.
                if length > Piece::BYTES_MAX || length > self.bytes.len().saturating_mul(255) {
                    return Err(bad);
                }
                let mut bytes = vec![0; length];
                match lz4_flex::block::decompress_into(&self.bytes, &mut bytes) {
                    Ok(found) if found == length => Ok(Bytes::from(bytes)),
                    _ => Err(bad),
                }
            }
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                if length > Piece::BYTES_MAX {
                    return Err(bad);
                }
                let mut bytes = vec![0; length];
                match zstd::bulk::decompress_to_buffer(&self.bytes, &mut bytes) {
                    Ok(found) if found == length => Ok(Bytes::from(bytes)),
                    _ => Err(bad),
                }
            }
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => {
                Err(Malformed { at: 0, what: "a piece packed by Zstandard, which was not agreed upon" })
            }
        }
    }
}

/// How far a replica is. All but `taken` are ends of whole records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marks {
    /// In its memory or its files.
    pub received: Lsn,
    /// On its device.
    pub durable: Lsn,
    /// In its store.
    pub applied: Lsn,
    /// To its readers.
    pub visible: Lsn,
    /// The place up to which it has taken pieces.
    pub taken: Lsn,
    /// So many bytes behind `taken` may be on their way.
    pub credit: u32,
}

/// How far the primary is; and that it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Heartbeat {
    /// What it shows: a replica shows no more.
    pub visible: Lsn,
    /// What its own device has.
    pub durable: Lsn,
    /// The place up to which pieces were sent to this replica.
    pub sent: Lsn,
    /// When the last record below `durable` was committed, in microseconds since 1970 by the primary's clock.
    pub time_us: u64,
    /// What that clock says now.
    pub now_us: u64,
}

/// Which marks, beside those of what is durable, commits of the primary wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    /// Of what is received.
    pub received: bool,
    /// Of what is applied.
    pub applied: bool,
}

impl Awaited {
    /// As long as nothing is known.
    pub const ALL: Awaited = Awaited { received: true, applied: true };
}

/// A chain of replicas is no longer than this: so much further than its primary is the last of them at most.
pub const HOPS_MAX: u8 = 8;

/// A message.
///
/// ```
/// use seawall_replication::message::{Heartbeat, Message};
/// let message = Message::Heartbeat(Heartbeat::default());
/// assert_eq!(Message::decode(&message.encode())?, message);
/// assert!(Message::decode(&[0; 64]).is_err());
/// # Ok::<(), seawall_replication::Malformed>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The first, of a replica.
    Hello(Hello),
    /// Of a primary.
    Welcome(Welcome),
    /// The last: of a primary that does not welcome, or of a replica that does not follow.
    Refuse(Why),
    /// Of a primary.
    Piece(Piece),
    /// Of a replica.
    Marks(Marks),
    /// Of a primary.
    Heartbeat(Heartbeat),
    /// The last: the sender goes.
    Bye,
    /// Of a replica that ships its log on: so many hops away is the primary, at most [`HOPS_MAX`]; none: no way leads to one.
    /// Who says nothing of it is the primary.
    Distance(Option<u8>),
    /// Of a primary, where both have [`Features::AWAITED`]; before it says so, none are waited for.
    Awaited(Awaited),
}

const NO_WAY: u8 = u8::MAX;

const FORMAT: u8 = 1;

impl Message {
    /// The most bytes of a head.
    pub const HEAD_BYTES_MAX: usize = 4 << 10;
    /// The most bytes of a message: a piece that does not compress.
    pub const BYTES_MAX: usize = Message::HEAD_BYTES_MAX + Piece::BYTES_MAX;

    /// Head and body.
    //= docs/format/wire.md#messages
    pub fn parts(&self) -> (Bytes, Bytes) {
        let mut out = Writer::default();
        out.u8(FORMAT);
        self.encode_head(&mut out);
        let body = match self {
            Message::Piece(piece) => piece.bytes.clone(),
            _ => Bytes::new(),
        };
        (Bytes::from(out.finish()), body)
    }

    /// Its bytes: the head, and behind it the body.
    pub fn encode(&self) -> Bytes {
        let (head, body) = self.parts();
        if body.is_empty() { head } else { [head, body].concat().into() }
    }

    /// The message of these bytes.
    ///
    /// # Errors
    /// If they are not exactly what [`Message::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Message> {
        let (mut message, head) = Message::decode_head(bytes)?;
        let body = bytes.get(head..).unwrap_or_default();
        message.set_body(Bytes::copy_from_slice(body), head)?;
        Ok(message)
    }

    /// The message of a head and a body, which is not copied.
    ///
    /// # Errors
    /// If they are not exactly what [`Message::parts`] makes.
    //= docs/format/wire.md#messages
    pub fn from_parts(head: &[u8], body: Bytes) -> Result<Message> {
        let (mut message, length) = Message::decode_head(head)?;
        if length != head.len() {
            return Err(Malformed { at: length, what: "more bytes than belong here" });
        }
        message.set_body(body, length)?;
        Ok(message)
    }

    fn set_body(&mut self, body: Bytes, at: usize) -> Result<()> {
        let Message::Piece(piece) = self else {
            let what = "more bytes than belong here";
            return if body.is_empty() { Ok(()) } else { Err(Malformed { at, what }) };
        };
        let fits = match piece.compression {
            Compression::None => body.len() == piece.length as usize,
            Compression::Lz4 | Compression::Zstd => !body.is_empty() && body.len() < piece.length as usize,
        };
        if !fits {
            return Err(Malformed { at, what: "a piece of another length" });
        }
        piece.bytes = body;
        Ok(())
    }

    fn encode_head(&self, out: &mut Writer) {
        match self {
            Message::Hello(hello) => {
                out.u8(1);
                encode_hello(out, hello);
            }
            Message::Welcome(welcome) => {
                out.u8(2);
                out.u16(welcome.version);
                out.u64(welcome.features);
                encode_history(out, &welcome.history);
                out.lsn(welcome.resume);
                out.lsn(welcome.visible);
            }
            Message::Refuse(why) => {
                out.u8(3);
                encode_why(out, why);
            }
            Message::Piece(piece) => {
                out.u8(4);
                out.lsn(piece.after);
                out.lsn(piece.at);
                out.u32(piece.length);
                out.u8(match piece.compression {
                    Compression::None => 1,
                    Compression::Lz4 => 2,
                    Compression::Zstd => 3,
                });
            }
            Message::Marks(marks) => {
                out.u8(5);
                let Marks { received, durable, applied, visible, taken, credit } = *marks;
                [received, durable, applied, visible, taken].into_iter().for_each(|lsn| out.lsn(lsn));
                out.u32(credit);
            }
            Message::Heartbeat(beat) => {
                out.u8(6);
                let Heartbeat { visible, durable, sent, time_us, now_us } = *beat;
                [visible, durable, sent].into_iter().for_each(|lsn| out.lsn(lsn));
                out.u64(time_us);
                out.u64(now_us);
            }
            Message::Bye => out.u8(7),
            Message::Distance(hops) => {
                out.u8(8);
                out.u8(hops.unwrap_or(NO_WAY));
            }
            Message::Awaited(Awaited { received, applied }) => {
                out.u8(9);
                out.u8(u8::from(*received) | (u8::from(*applied) << 1));
            }
        }
    }

    /// The message without its body, and the head's length.
    fn decode_head(bytes: &[u8]) -> Result<(Message, usize)> {
        if bytes.len() > Message::BYTES_MAX {
            return Err(Malformed { at: Message::BYTES_MAX, what: "longer than a message may be" });
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FORMAT {
            return Err(Malformed { at: 0, what: "not a version that this program knows" });
        }
        let message = match reader.u8()? {
            1 => Message::Hello(decode_hello(&mut reader)?),
            2 => Message::Welcome(Welcome {
                version: reader.u16()?,
                features: reader.u64()?,
                history: decode_history(&mut reader)?,
                resume: reader.lsn()?,
                visible: reader.lsn()?,
            }),
            3 => Message::Refuse(decode_why(&mut reader)?),
            4 => Message::Piece(decode_piece(&mut reader)?),
            5 => Message::Marks(decode_marks(&mut reader)?),
            6 => Message::Heartbeat(Heartbeat {
                visible: reader.lsn()?,
                durable: reader.lsn()?,
                sent: reader.lsn()?,
                time_us: reader.u64()?,
                now_us: reader.u64()?,
            }),
            7 => Message::Bye,
            8 => match reader.u8()? {
                NO_WAY => Message::Distance(None),
                hops if hops <= HOPS_MAX => Message::Distance(Some(hops)),
                _ => return Err(reader.bad("further than a chain is long")),
            },
            9 => match reader.u8()? {
                bits if bits < 4 => {
                    Message::Awaited(Awaited { received: bits & 1 != 0, applied: bits & 2 != 0 })
                }
                _ => return Err(reader.bad("marks that there are none of")),
            },
            _ => return Err(reader.bad("no kind of message")),
        };
        Ok((message, reader.at()))
    }
}

fn decode_piece(reader: &mut Reader<'_>) -> Result<Piece> {
    let (after, at, length) = (reader.lsn()?, reader.lsn()?, reader.u32()?);
    let compression = match reader.u8()? {
        1 => Compression::None,
        2 => Compression::Lz4,
        3 => Compression::Zstd,
        _ => return Err(reader.bad("no compression")),
    };
    if length == 0 || length as usize > Piece::BYTES_MAX || after > at {
        return Err(reader.bad("no piece of a log"));
    }
    if at.0.checked_add(u64::from(length)).is_none() {
        return Err(reader.bad("a piece beyond the log's end"));
    }
    Ok(Piece { after, at, length, compression, bytes: Bytes::new() })
}

/// Whatever a replica says of itself holds among its own marks.
fn decode_marks(reader: &mut Reader<'_>) -> Result<Marks> {
    let marks = Marks {
        received: reader.lsn()?,
        durable: reader.lsn()?,
        applied: reader.lsn()?,
        visible: reader.lsn()?,
        taken: reader.lsn()?,
        credit: reader.u32()?,
    };
    if !marks.are_ordered() {
        return Err(reader.bad("marks out of order"));
    }
    Ok(marks)
}

impl Marks {
    /// R1: `visible ≤ applied ≤ durable ≤ received ≤ taken`.
    pub fn are_ordered(&self) -> bool {
        let Marks { received, durable, applied, visible, taken, .. } = *self;
        visible <= applied && applied <= durable && durable <= received && received <= taken
    }
}

fn encode_name(out: &mut Writer, name: &str) {
    out.u8(name.len() as u8);
    out.slice(name.as_bytes());
}

fn decode_optional_name(reader: &mut Reader<'_>) -> Result<Option<Name>> {
    let length = usize::from(reader.u8()?);
    if length == 0 {
        return Ok(None);
    }
    let name = std::str::from_utf8(reader.take(length)?).ok().and_then(Name::new);
    name.map(Some).ok_or(reader.bad("no name"))
}

fn encode_hello(out: &mut Writer, hello: &Hello) {
    out.u16(hello.version);
    out.u16(hello.version_min);
    out.u64(hello.features);
    out.slice(&hello.store_id);
    encode_name(out, hello.name.as_str());
    out.u64(hello.tail.epoch);
    out.lsn(hello.tail.place);
    out.lsn(hello.tail.whole_end);
    out.u32(hello.tail.checksum);
    encode_history(out, &hello.history);
    out.u64(hello.promised);
    encode_name(out, hello.slot.as_ref().map_or("", Name::as_str));
}

fn decode_hello(reader: &mut Reader<'_>) -> Result<Hello> {
    let (version, version_min, features) = (reader.u16()?, reader.u16()?, reader.u64()?);
    let store_id = reader.array()?;
    let name = decode_optional_name(reader)?.ok_or(reader.bad("no name"))?;
    let tail = Tail {
        epoch: reader.u64()?,
        place: reader.lsn()?,
        whole_end: reader.lsn()?,
        checksum: reader.u32()?,
    };
    if tail.whole_end > tail.place {
        return Err(reader.bad("no end of a log"));
    }
    let history = decode_history(reader)?;
    let promised = reader.u64()?;
    let slot = decode_optional_name(reader)?;
    Ok(Hello { version, version_min, features, store_id, name, tail, history, promised, slot })
}

fn encode_history(out: &mut Writer, history: &History) {
    out.u16(history.turns().len() as u16);
    for turn in history.turns() {
        out.u64(turn.epoch);
        out.lsn(turn.start);
    }
}

fn decode_history(reader: &mut Reader<'_>) -> Result<History> {
    let count = usize::from(reader.u16()?);
    if count > History::TURNS_MAX {
        return Err(reader.bad("more than are allowed"));
    }
    let one = |_| Ok(Turn { epoch: reader.u64()?, start: reader.lsn()? });
    let turns: Vec<Turn> = (0..count).map(one).collect::<Result<_>>()?;
    History::new(turns).map_err(|_| reader.bad("no history"))
}

fn encode_why(out: &mut Writer, why: &Why) {
    match why {
        Why::Version => out.u8(1),
        Why::ForeignStore => out.u8(2),
        Why::Diverged { fork, history } => {
            out.u8(3);
            out.lsn(*fork);
            encode_history(out, history);
        }
        Why::Fenced { epoch } => {
            out.u8(4);
            out.u64(*epoch);
        }
        Why::LogGone { first } => {
            out.u8(5);
            out.lsn(*first);
        }
        Why::SlotMissing => out.u8(6),
        Why::Busy => out.u8(7),
        Why::NotServing => out.u8(8),
    }
}

fn decode_why(reader: &mut Reader<'_>) -> Result<Why> {
    Ok(match reader.u8()? {
        1 => Why::Version,
        2 => Why::ForeignStore,
        3 => Why::Diverged { fork: reader.lsn()?, history: decode_history(reader)? },
        4 => Why::Fenced { epoch: reader.u64()? },
        5 => Why::LogGone { first: reader.lsn()? },
        6 => Why::SlotMissing,
        7 => Why::Busy,
        8 => Why::NotServing,
        _ => return Err(reader.bad("no reason")),
    })
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Version => f.write_str("they speak no version in common"),
            Why::ForeignStore => f.write_str("it is the log of another store"),
            Why::Diverged { fork, .. } => write!(f, "the logs hold the same up to {fork} only"),
            Why::Fenced { epoch } => write!(f, "there is a primary of epoch {epoch}"),
            Why::LogGone { first } => write!(f, "the log begins at {first}: what is needed is gone"),
            Why::SlotMissing => f.write_str("there is no such slot, or it has lost its log"),
            Why::Busy => f.write_str("another session has this name or slot, or there are too many"),
            Why::NotServing => f.write_str("no log is shipped here"),
        }
    }
}
