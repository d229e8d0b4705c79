//! What is known of the link to the primary.

use super::super::link::book::{Ages, Book, Source};
use super::super::link::{self, Direction, Link, LinkEvent};
use super::super::micros;
use super::Shared;
use crate::message::{Heartbeat, Marks, Message};
use crate::ship::Replica;
use crate::ship::replica::{Effect, Input, State};
use seawall_wal::Lsn;

/// The link, as its machine has shown it.
#[derive(Default)]
pub(super) struct Line {
    book: Book,
    ages: Ages,
    beat: Heartbeat,
    state: Option<State>,
}

/// When a machine's state changes, and what there is then.
struct Turn<'a> {
    now: u64,
    taken: Lsn,
    received: Lsn,
    /// What the log, the store or the network said last.
    error: Option<&'a str>,
}

/// What an end of the session that comes of an input is put down to; none for a goodbye.
pub(super) fn ending(input: &Input) -> Option<String> {
    match input {
        Input::Lost { .. } => Some("the connection was lost".to_owned()),
        Input::Message { message: Message::Refuse(why), .. } => Some(format!("refused: {why}")),
        Input::Message { .. } | Input::Close => None,
        Input::Fenced { epoch } => Some(format!("another primary was promised, in epoch {epoch}")),
        Input::Failed | Input::Rejected(_) => Some("the log took no more".to_owned()),
        _ => Some("nothing was heard of it for too long".to_owned()),
    }
}

impl Shared {
    /// The machine has taken a step: what that means for the link.
    pub(super) fn follow_line(
        &self,
        machine: &Replica,
        effects: &[Effect],
        ending: Option<String>,
        now: u64,
    ) {
        let accepted = effects.iter().map(|effect| match effect {
            Effect::Accept(piece) => u64::from(piece.length),
            _ => 0,
        });
        let bytes = accepted.sum();
        let violation = effects.iter().find_map(|effect| match effect {
            Effect::Violation(what) => Some((*what).to_owned()),
            _ => None,
        });
        let events = {
            let mut line = self.line.lock();
            if let Some(beat) = machine.beat().filter(|beat| *beat != line.beat) {
                line.beat = beat;
                line.ages.note(beat.durable, now.saturating_sub(beat.now_us.saturating_sub(beat.time_us)));
            }
            let events = match line.state.as_ref() == Some(machine.state()) {
                true => Vec::new(),
                false => {
                    let old = line.state.replace(machine.state().clone());
                    let error = self.error.lock().clone();
                    let Marks { taken, received, .. } = machine.marks();
                    let turn = Turn { now, taken, received, error: error.as_deref() };
                    line.turn(old.as_ref(), machine.state(), violation.or(ending), turn)
                }
            };
            let heard_at = machine.beat().map(|_| machine.heard_at());
            let sent = line.beat.sent;
            line.book.moved(sent, machine.marks(), heard_at);
            line.book.passed(now, bytes);
            events
        };
        for event in events {
            link::tell(&self.listener, &self.name, Direction::In, &event);
        }
    }

    pub(super) fn link(&self) -> Link {
        let now = micros(self.runtime.now());
        let line = self.line.lock();
        let source = Source { durable: line.beat.durable, visible: line.beat.visible };
        line.book.link((&self.name, Direction::In), now, source, &line.ages)
    }
}

impl Line {
    /// From one state to another.
    fn turn(
        &mut self,
        old: Option<&State>,
        new: &State,
        why: Option<String>,
        at: Turn<'_>,
    ) -> Vec<LinkEvent> {
        let mut events = Vec::new();
        let was_following = old == Some(&State::Following);
        if was_following {
            self.book.end(why.as_ref());
            events.push(LinkEvent::Disconnected { why });
        }
        match new {
            State::Following => {
                self.book.begin(at.now);
                events.push(LinkEvent::Connected { from: at.taken });
            }
            State::Waiting { why: Some(why), .. } if !was_following => {
                let why = why.to_string();
                self.book.failed(&why);
                events.push(LinkEvent::Refused { why });
            }
            // Nobody answers: tried again and again, it is counted and not told.
            State::Waiting { why: None, .. } if matches!(old, Some(State::Dialling | State::Greeting)) => {
                self.book.failed(at.error.unwrap_or("no answer came"));
            }
            State::NeedsRewind { to, .. } => {
                let lost_bytes = at.received.0.saturating_sub(to.0);
                events.push(LinkEvent::NeedsRewind { to: *to, lost_bytes });
            }
            State::NeedsImage { first } => events.push(LinkEvent::NeedsImage { first: *first }),
            State::Broken => events.push(LinkEvent::Broken { why: at.error.map(str::to_owned) }),
            _ => {}
        }
        events
    }
}
