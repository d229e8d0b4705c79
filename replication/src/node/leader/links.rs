//! What is known of the links to replicas.

use super::super::link::book::{Ages, Book, Source};
use super::super::link::{self, Direction, Link, LinkEvent, Retained};
use super::Shared;
use crate::ack::Table;
use crate::invariants::PrimaryView;
use crate::message::Name;
use seawall_wal::Lsn;
use std::collections::BTreeMap;

/// Replicas that are remembered, those that are away included.
const NAMES_MAX: usize = 256;

/// By name.
#[derive(Default)]
pub(super) struct Links {
    books: BTreeMap<Name, Book>,
    ages: Ages,
    /// Which session a book is written by.
    sessions: BTreeMap<Name, u64>,
}

impl Links {
    pub(super) fn note(&mut self, durable: Lsn, at: u64) {
        self.ages.note(durable, at);
    }

    /// The book of this name; a new one takes the place of who has been away for longest where there are as many as may be.
    fn book(&mut self, name: &Name) -> &mut Book {
        if self.books.len() >= NAMES_MAX && !self.books.contains_key(name) {
            let away = self.books.iter().filter(|(_, book)| !book.is_connected());
            let oldest = away.min_by_key(|(_, book)| book.heard_at()).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                self.books.remove(&oldest);
            }
        }
        self.books.entry(name.clone()).or_default()
    }
}

impl Shared {
    pub(super) fn now(&self) -> u64 {
        super::super::micros(self.runtime().now())
    }

    /// So much is durable here, as of now.
    pub(super) fn note_durable(&self, durable: Lsn) {
        let now = self.now();
        self.links.lock().note(durable, now);
    }

    pub(super) fn link_begins(&self, session: u64, name: &Name, from: Lsn) {
        let now = self.now();
        {
            let mut links = self.links.lock();
            links.sessions.insert(name.clone(), session);
            links.book(name).begin(now);
        }
        self.tell(name, &LinkEvent::Connected { from });
    }

    pub(super) fn link_moves(
        &self,
        session: u64,
        name: &Name,
        view: &PrimaryView,
        heard_at: u64,
        bytes: u64,
    ) {
        let now = self.now();
        let mut links = self.links.lock();
        // One that took its name may have begun meanwhile.
        if links.sessions.get(name) == Some(&session) {
            let book = links.book(name);
            book.moved(view.sent, view.marks, Some(heard_at));
            book.passed(now, bytes);
        }
    }

    pub(super) fn link_ends(&self, session: u64, name: &Name, why: Option<String>) {
        {
            let mut links = self.links.lock();
            if links.sessions.get(name) == Some(&session) {
                links.sessions.remove(name);
                links.book(name).end(why.as_ref());
            }
        }
        self.tell(name, &LinkEvent::Disconnected { why });
    }

    /// An attempt came to nothing. What is no replica of this store, as far as is known, leaves no trace.
    pub(super) fn link_refused(&self, name: &Name, has_slot: bool, why: Option<String>) {
        let Some(why) = why else { return };
        {
            let mut links = self.links.lock();
            if !has_slot && !links.books.contains_key(name) {
                return;
            }
            links.book(name).failed(&why);
        }
        self.tell(name, &LinkEvent::Refused { why });
    }

    pub(super) fn forget_link(&self, name: &str) {
        let mut links = self.links.lock();
        links.books.retain(|known, book| known.as_str() != name || book.is_connected());
    }

    fn tell(&self, name: &Name, event: &LinkEvent) {
        link::tell(&self.options.listener, name.as_str(), Direction::Out, event);
    }

    pub(super) fn links(&self) -> Vec<Link> {
        let (now, wal) = (self.now(), self.shipping.wal());
        let source = Source { durable: wal.durable_lsn(), visible: self.shipping.visible() };
        let retained = wal.retained();
        let mut links = {
            let mut links = self.links.lock();
            links.note(source.durable, now);
            let book = |(name, book): (&Name, &Book)| {
                book.link((name.as_str(), Direction::Out), now, source, &links.ages)
            };
            links.books.iter().map(book).collect::<Vec<Link>>()
        };
        let table = self.table.lock();
        for link in &mut links {
            let slot = format!("slot {}", link.name);
            let holder = retained.iter().find(|retainer| retainer.who == slot);
            link.retained = holder.map(|holder| Retained { holder: slot, bytes: holder.bytes });
            link.part =
                Some(table.as_ref().map_or(crate::ack::Part::Async, |table: &Table| table.part(&link.name)));
        }
        links
    }
}
