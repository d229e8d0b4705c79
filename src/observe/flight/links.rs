//! What happens to links, for the recorder.

use super::{Field, FlightRecorder};
use crate::replication::node::{Direction, LinkEvent, LinkListener};

impl LinkListener for FlightRecorder {
    fn event(&self, name: &str, direction: Direction, event: &LinkEvent) {
        let note = |event: &str, more: &[(&str, Field<'_>)]| {
            let mut fields = vec![("name", Field::Text(name)), ("direction", Field::Text(direction.name()))];
            fields.extend_from_slice(more);
            self.note(event, &fields);
        };
        let or_goodbye = |why: &Option<String>| why.clone().unwrap_or_else(|| "a goodbye".to_owned());
        match event {
            LinkEvent::Connected { from } => note("link_connected", &[("from_lsn", Field::Number(from.0))]),
            LinkEvent::Disconnected { why } => {
                note("link_disconnected", &[("why", Field::Text(&or_goodbye(why)))]);
            }
            LinkEvent::Refused { why } => note("link_refused", &[("why", Field::Text(why))]),
            LinkEvent::NeedsRewind { to, lost_bytes } => {
                let fields = [("to_lsn", Field::Number(to.0)), ("lost_bytes", Field::Number(*lost_bytes))];
                note("needs_rewind", &fields);
            }
            LinkEvent::NeedsImage { first } => {
                note("needs_image", &[("first_lsn", Field::Number(first.0))]);
            }
            LinkEvent::Broken { why } => {
                note("broken", &[("why", Field::Text(why.as_deref().unwrap_or("not known")))]);
            }
            other => note("link", &[("what", Field::Text(&format!("{other:?}")))]),
        }
        // What does not go away by itself: the machine that tells of it has nothing more to do.
        match event {
            LinkEvent::NeedsRewind { lost_bytes: 1.., .. } => self.failed("needs_rewind"),
            LinkEvent::NeedsImage { .. } => self.failed("needs_image"),
            LinkEvent::Broken { .. } => self.failed("broken"),
            _ => {}
        }
    }
}
