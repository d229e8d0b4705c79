//! Single steps of the machines, where the other side does what it must not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bytes::Bytes;
use seawall_replication::message::{
    Awaited, EPOCH_LEAP_MAX, Features, Heartbeat, Message, Name, Piece, VERSION, Welcome,
};
use seawall_replication::ship::Replica;
use seawall_replication::ship::replica::{Effect, Input, Own, Settings, State};
use seawall_replication::timeline::{History, Tail, Turn};
use seawall_wal::Lsn;

const PLACE: Lsn = Lsn(8192);

fn own(applied: Lsn) -> Own {
    let tail = Tail { epoch: 0, place: PLACE, whole_end: PLACE, checksum: 0 };
    Own { tail, history: History::default(), promised: 0, durable: PLACE, applied, visible: Lsn::ZERO }
}

fn history(epoch: u64, start: Lsn) -> History {
    History::new(vec![Turn { epoch, start }]).unwrap()
}

/// One that was greeted by a primary of this history, and what it wants done.
fn welcomed(applied: Lsn, history: History) -> (Replica, Vec<Effect>) {
    let mut replica = Replica::new(Settings::new(Name::new("one").unwrap()), [7; 16], own(applied), 0);
    replica.step(0, Input::Tick);
    replica.step(0, Input::Connected { session: 0, own: own(applied) });
    let welcome = Welcome { version: VERSION, features: 0, history, resume: PLACE, visible: Lsn::ZERO };
    let effects = replica.step(1, Input::Message { session: 0, message: Message::Welcome(welcome) });
    (replica, effects)
}

/// A replica whose image is of a later position than its log has come to: in a history that parts in between, it has rows that
/// the primary has not.
#[test]
fn an_image_beyond_the_fork_is_of_no_use() {
    let image = Lsn(40_000);
    let (replica, _) = welcomed(image, history(1, Lsn(20_000)));
    assert_eq!(*replica.state(), State::NeedsImage { first: Lsn(20_000) });
    let (replica, effects) = welcomed(image, history(1, image));
    assert_eq!(*replica.state(), State::Promising);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Promise { .. })));
    let (replica, _) = welcomed(PLACE, history(1, Lsn(20_000)));
    assert_eq!(*replica.state(), State::Promising, "what it has is all from before");
}

#[test]
fn an_epoch_out_of_reach_is_not_promised() {
    let (replica, effects) = welcomed(PLACE, history(EPOCH_LEAP_MAX + 1, PLACE));
    assert!(matches!(replica.state(), State::Waiting { .. }), "{effects:?}");
    let (replica, _) = welcomed(PLACE, history(EPOCH_LEAP_MAX, PLACE));
    assert_eq!(*replica.state(), State::Promising);
}

/// A primary that sends on and on, whatever is taken: what waits here is bounded.
#[test]
fn more_than_there_is_room_for_is_a_violation() {
    let (mut replica, _) = welcomed(PLACE, History::default());
    assert_eq!(*replica.state(), State::Following);
    let window = u64::from(Settings::new(Name::new("one").unwrap()).window_bytes);
    let (mut at, mut accepting) = (PLACE, 0);
    while *replica.state() == State::Following {
        let piece = Piece::plain(at, at, Bytes::from(vec![0; 1 << 20]));
        at = piece.end();
        let effects = replica.step(2, Input::Message { session: 0, message: Message::Piece(piece) });
        accepting += effects.iter().filter(|effect| matches!(effect, Effect::Accept(_))).count() as u64;
        assert!(accepting << 20 <= window, "{accepting} MiB wait to be taken");
    }
    assert_eq!(accepting << 20, window);
}

/// What nobody waits for goes with what somebody does; without a word of what that is, everything is said at once.
#[test]
fn marks_that_nobody_waits_for_are_said_later() {
    let heard = |replica: &mut Replica, message| replica.step(2, Input::Message { session: 0, message });
    let said = |effects: Vec<Effect>| {
        let marks = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send(Message::Marks(marks)) => Some(marks),
            _ => None,
        });
        marks.last()
    };
    let all = Awaited::ALL;
    for (features, awaited) in [(Features::AWAITED, None), (Features::AWAITED, Some(all)), (0, None)] {
        let mut replica = Replica::new(Settings::new(Name::new("one").unwrap()), [7; 16], own(PLACE), 0);
        replica.step(0, Input::Tick);
        replica.step(0, Input::Connected { session: 0, own: own(PLACE) });
        let history = History::default();
        let welcome = Welcome { version: VERSION, features, history, resume: PLACE, visible: Lsn::ZERO };
        assert!(said(heard(&mut replica, Message::Welcome(welcome))).is_some(), "the first marks");
        if let Some(awaited) = awaited {
            heard(&mut replica, Message::Awaited(awaited));
        }
        let is_awaited = features == 0 || awaited.is_some();
        let piece = Piece::plain(PLACE, PLACE, Bytes::from(vec![0; 4096]));
        let end = piece.end();
        assert_eq!(said(heard(&mut replica, Message::Piece(piece))), None);
        let marks = said(replica.step(3, Input::Accepted { received: end }));
        assert_eq!(marks.map(|marks| marks.received), is_awaited.then_some(end));
        let marks = said(replica.step(4, Input::Synced { durable: end }));
        assert_eq!(marks.map(|marks| (marks.received, marks.durable)), Some((end, end)), "never later");
        let beat = Heartbeat { visible: end, durable: end, sent: end, time_us: 0, now_us: 0 };
        heard(&mut replica, Message::Heartbeat(beat));
        let marks = said(replica.step(5, Input::Applied { applied: end, visible: end }));
        assert_eq!(marks.map(|marks| marks.applied), is_awaited.then_some(end));
        let marks = said(replica.step(20_000, Input::Tick));
        assert_eq!(marks.map(|marks| marks.applied), (!is_awaited).then_some(end), "at last");
    }
}
