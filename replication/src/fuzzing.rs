//! What the fuzz targets run: plain functions of bytes, which ordinary tests replay over a committed corpus.

use crate::ack::Policy;
use crate::message::{Message, Name, Piece};
use crate::ship::{Primary, Replica, primary, replica};
use crate::timeline::{History, Tail};
use seawall_wal::Lsn;

/// A message: what decodes encodes to the same bytes, in parts too, and moves no machine to panic.
pub fn wire_message(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    assert_eq!(message.encode(), data, "a message that comes back");
    let (head, body) = message.parts();
    assert!(head.len() <= Message::HEAD_BYTES_MAX, "a head within its limit");
    assert_eq!(Message::from_parts(&head, body).as_ref(), Ok(&message));
    if let Message::Piece(piece) = &message
        && let Ok(bytes) = piece.unpacked()
    {
        assert_eq!(bytes.len(), piece.length as usize);
        assert!(bytes.len() <= Piece::BYTES_MAX);
    }
    primary_hears(&message);
    replica_hears(&message);
}

fn primary_hears(message: &Message) {
    let (store_id, history) = match message {
        Message::Hello(hello) => (hello.store_id, hello.history.clone()),
        _ => ([7; 16], History::default()),
    };
    let own = primary::Own { store_id, promised: history.epoch(), history };
    let mut session = Primary::new(primary::Settings::default(), own, 0);
    session.step(1, primary::Input::Message(message.clone()));
    session.step(2, primary::Input::Opened(primary::Opened::Ready));
    session.step(3, primary::Input::Message(message.clone()));
    session.step(u64::MAX, primary::Input::Tick);
}

fn replica_hears(message: &Message) {
    let Some(name) = Name::new("replica") else { return };
    let place = match message {
        Message::Welcome(welcome) => welcome.resume,
        Message::Piece(piece) => piece.after,
        _ => Lsn(8192),
    };
    let tail = Tail { epoch: 0, place, whole_end: place, checksum: 0 };
    let own = replica::Own {
        tail,
        history: History::default(),
        promised: 0,
        durable: place,
        applied: place,
        visible: Lsn::ZERO,
    };
    let mut machine = Replica::new(replica::Settings::new(name), [7; 16], own.clone(), 0);
    machine.step(0, replica::Input::Tick);
    machine.step(0, replica::Input::Connected { session: 0, own });
    if !matches!(message, Message::Welcome(_)) {
        let welcome = crate::message::Welcome {
            version: crate::message::VERSION,
            features: 0,
            history: History::default(),
            resume: place,
            visible: Lsn::ZERO,
        };
        machine.step(1, replica::Input::Message { session: 0, message: Message::Welcome(welcome) });
    }
    for now in [2, 3] {
        machine.step(now, replica::Input::Message { session: 0, message: message.clone() });
        machine.step(now, replica::Input::Promised);
        machine.step(now, replica::Input::Accepted { received: Lsn::MAX });
        machine.step(now, replica::Input::Synced { durable: place });
    }
    machine.step(u64::MAX, replica::Input::Tick);
}

/// A policy: what parses says itself in text that parses to the same.
pub fn ack_policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(policy) = text.parse::<Policy>() {
        assert_eq!(policy.to_string().parse(), Ok(policy), "a policy that comes back");
    }
}
