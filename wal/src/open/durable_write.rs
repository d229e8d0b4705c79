//! By which way durable writes are made: asked for, or measured when the log was created and kept in its anchor. Each file
//! tries it anew when it is opened, and falls to the next way where it is refused.

use super::{Found, Opener};
use crate::disk::{Choice, DurableWrite};

/// A log of smaller segments is not worth measuring its device for.
const PROBE_SEGMENT_BYTES_MIN: u64 = 4 << 20;

impl Opener<'_> {
    /// What a new log's anchor says.
    pub(super) fn choose_durable_write(&self) -> Option<Choice> {
        if let Some(way) = self.options.durable_write {
            return Some(Choice { way: Some(way), reason: as_asked(way) });
        }
        let is_measured = self.options.probe && self.options.segment_bytes >= PROBE_SEGMENT_BYTES_MIN;
        is_measured.then(|| self.disk.choose_durable_write(self.dir)).flatten()
    }

    /// Tells the files that are open, and the report. `chosen` was chosen just now.
    pub(super) fn settle_durable_write(&self, found: &mut Found, chosen: Option<&Choice>) {
        let kept = u8::try_from(found.anchor.write_method).ok().and_then(DurableWrite::from_number);
        let (way, reason) = match (self.options.durable_write, chosen, kept) {
            (Some(way), ..) => (Some(way), as_asked(way)),
            (None, Some(choice), _) => (choice.way, choice.reason.clone()),
            (None, None, Some(way)) => (Some(way), format!("{way} was chosen when the log was created")),
            (None, None, None) => return,
        };
        if let Some(way) = way {
            found.files.values().chain(&found.anchor_file).for_each(|file| file.prefer_durable_write(way));
        }
        found.durable_write = way;
        found.report.backend_reason.push_str("; ");
        found.report.backend_reason.push_str(&reason);
    }
}

fn as_asked(way: DurableWrite) -> String {
    format!("{way} was asked for")
}
