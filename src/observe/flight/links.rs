//! What happens to links, for the recorder.

use super::{Field, FlightRecorder};
use crate::replication::node::{Direction, LinkEvent, LinkListener};

impl LinkListener for FlightRecorder {
    fn event(&self, name: &str, direction: Direction, event: &LinkEvent) {
        let note = |event: &str, more: (&str, Field<'_>)| {
            let fields = [("name", Field::Text(name)), ("direction", Field::Text(direction.name())), more];
            self.note(event, &fields);
        };
        let why = |why: &Option<String>| why.clone().unwrap_or_else(|| "a goodbye".to_owned());
        match event {
            LinkEvent::Connected { from } => note("link_connected", ("from_lsn", Field::Number(from.0))),
            LinkEvent::Disconnected { why: cause } => {
                note("link_disconnected", ("why", Field::Text(&why(cause))));
            }
            LinkEvent::Refused { why } => note("link_refused", ("why", Field::Text(why))),
            LinkEvent::NeedsRewind { to } => note("needs_rewind", ("to_lsn", Field::Number(to.0))),
            LinkEvent::NeedsImage { first } => note("needs_image", ("first_lsn", Field::Number(first.0))),
            LinkEvent::Broken { why: cause } => note("broken", ("why", Field::Text(&why(cause)))),
            other => note("link", ("what", Field::Text(&format!("{other:?}")))),
        }
        // None of these goes away by itself: the machine that tells of it has nothing more to do.
        match event {
            LinkEvent::NeedsRewind { .. } => self.failed("needs_rewind"),
            LinkEvent::NeedsImage { .. } => self.failed("needs_image"),
            LinkEvent::Broken { .. } => self.failed("broken"),
            _ => {}
        }
    }
}
