//! What recovery decides, as one table. Pure: what was found on the disk in, a verdict out.
//!
//! Recovery reads frames in order until one is bad. `X` is the position of that frame, or, if the frames before it
//! are the beginning of a record that does not end, the position of that record's first frame. What then stands
//! around X decides whether X is where the log ends, or a hole in what was promised:
//!
//! | place | what was found | verdict |
//! |---|---|---|
//! | segment with a successor | frames up to the end that the successor names | go on with the successor |
//! | segment with a successor | anything else | corruption: a successor begins only when its predecessor is durable |
//! | last segment | its file, or a later one, is shorter than a segment | corruption: files are whole before they begin |
//! | last segment | a durable LSN above X in any frame, header, anchor or superblock | corruption: promised bytes are gone |
//! | last segment | frames of a later segment whose header is broken | corruption: its header was durable before them |
//! | last segment | X is where the anchor says that the log was closed, and nothing was written since | clean end |
//! | last segment | X is the segment's end | clean end |
//! | last segment | zeros, or bytes of an earlier use, and no frame behind | clean end |
//! | last segment | a frame of this use whose payload does not match | torn tail, whatever is behind it |
//! | last segment | a record that begins and does not end | torn tail |
//! | last segment | zeros or old bytes, and frames of this use behind them | torn tail: unacknowledged writes out of order |
//!
//! A log that was cut on purpose needs no row of its own: what is above the cut was durable, and still says so, but all of
//! it is at or below the beginning of the segment that cuts it, and no X below that is found for as long as its header is
//! whole. Should it be damaged, the anchor's durable LSN, which is above all that was dropped, makes that the second
//! corruption row.
//!
//! The same table stands below as data, and a test shows that exactly one row matches each case. *A watermark that
//! never advances would silently disable the second corruption row*: a test damages what was promised and looks.

/// Where the bad frame was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A segment whose successor has begun; true if its frames end exactly where the successor says.
    Inner {
        /// Whether the frames end there.
        complete: bool,
    },
    /// The segment that has no successor.
    Last,
}

/// What stands at X.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Here {
    /// Nothing: X is the segment's end.
    End,
    /// Zeros.
    Blank,
    /// Bytes that are not of this use of the segment, as recycled files hold them.
    Foreign,
    /// A frame header of this use and place, whose payload does not match.
    Torn,
    /// The beginning of a record that does not end.
    Unfinished,
}

/// What stands behind X.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beyond {
    /// No frame.
    Nothing,
    /// Frames of this use in the same segment.
    Frames,
    /// Frames in a later file that fit it, under a header that does not parse.
    BrokenSuccessor,
}

/// Everything that the decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where.
    pub place: Place,
    /// Whether the segment's file, or a later one, is shorter than a segment.
    pub short: bool,
    /// Whether anything claims a durable LSN above X.
    pub promised_beyond: bool,
    /// Whether the anchor says that the log was closed with this end, the last frame before X is the one that it says,
    /// and no frame stands behind. Only then has nobody looked at all that is behind X.
    pub closed: bool,
    /// What stands at X.
    pub here: Here,
    /// What stands behind X.
    pub beyond: Beyond,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the next segment.
    Continue,
    /// The log ends at X, and nothing stood behind.
    CleanEnd,
    /// The log ends at X; what stood behind was never acknowledged, and is dropped.
    TornTail,
    /// Promised bytes are damaged or gone from X on.
    Corruption,
}

/// One row: the facts that it matches, and its verdict. `None` and an empty list match anything.
#[derive(Debug)]
pub struct Row {
    /// Its name, for reports and counters.
    pub name: &'static str,
    place: &'static [Place],
    short: Option<bool>,
    promised_beyond: Option<bool>,
    closed: Option<bool>,
    here: &'static [Here],
    beyond: &'static [Beyond],
    /// What follows.
    pub verdict: Verdict,
}

const INNER_COMPLETE: &[Place] = &[Place::Inner { complete: true }];
const INNER_HOLE: &[Place] = &[Place::Inner { complete: false }];
const LAST: &[Place] = &[Place::Last];

/// The decision table.
pub const TABLE: &[Row] = &[
    Row {
        name: "segment complete",
        place: INNER_COMPLETE,
        short: None,
        promised_beyond: None,
        closed: None,
        here: &[],
        beyond: &[],
        verdict: Verdict::Continue,
    },
    Row {
        name: "hole before a successor",
        place: INNER_HOLE,
        short: None,
        promised_beyond: None,
        closed: None,
        here: &[],
        beyond: &[],
        verdict: Verdict::Corruption,
    },
    Row {
        name: "segment file cut short",
        place: LAST,
        short: Some(true),
        promised_beyond: None,
        closed: None,
        here: &[],
        beyond: &[],
        verdict: Verdict::Corruption,
    },
    Row {
        name: "promised bytes missing",
        place: LAST,
        short: Some(false),
        promised_beyond: Some(true),
        closed: None,
        here: &[],
        beyond: &[],
        verdict: Verdict::Corruption,
    },
    Row {
        name: "successor's header broken",
        place: LAST,
        short: Some(false),
        promised_beyond: Some(false),
        closed: None,
        here: &[],
        beyond: &[Beyond::BrokenSuccessor],
        verdict: Verdict::Corruption,
    },
    Row {
        name: "closed here",
        place: LAST,
        short: Some(false),
        promised_beyond: Some(false),
        closed: Some(true),
        here: &[Here::Blank, Here::Foreign],
        beyond: &[Beyond::Nothing],
        verdict: Verdict::CleanEnd,
    },
    Row {
        name: "segment full",
        place: LAST,
        short: Some(false),
        promised_beyond: Some(false),
        closed: None,
        here: &[Here::End],
        beyond: &[Beyond::Nothing, Beyond::Frames],
        verdict: Verdict::CleanEnd,
    },
    Row {
        name: "blank behind the end",
        place: LAST,
        short: Some(false),
        promised_beyond: Some(false),
        closed: Some(false),
        here: &[Here::Blank],
        beyond: &[Beyond::Nothing],
        verdict: Verdict::CleanEnd,
    },
    Row {
        name: "old bytes behind the end",
        place: LAST,
        short: Some(false),
        promised_beyond: Some(false),
        closed: Some(false),
        here: &[Here::Foreign],
        beyond: &[Beyond::Nothing],
        verdict: Verdict::CleanEnd,
    },
    Row {
        name: "torn frame",
        place: LAST,
        short: Some(false),
        promised_beyond: Some(false),
        closed: None,
        here: &[Here::Torn],
        beyond: &[Beyond::Nothing, Beyond::Frames],
        verdict: Verdict::TornTail,
    },
    Row {
        name: "unfinished record",
        place: LAST,
        short: Some(false),
        promised_beyond: Some(false),
        closed: None,
        here: &[Here::Unfinished],
        beyond: &[Beyond::Nothing, Beyond::Frames],
        verdict: Verdict::TornTail,
    },
    Row {
        name: "gap before unacknowledged frames",
        place: LAST,
        short: Some(false),
        promised_beyond: Some(false),
        closed: None,
        here: &[Here::Blank, Here::Foreign],
        beyond: &[Beyond::Frames],
        verdict: Verdict::TornTail,
    },
];

impl Row {
    fn matches(&self, facts: &Facts) -> bool {
        self.place.contains(&facts.place)
            && self.short.is_none_or(|short| short == facts.short)
            && self.promised_beyond.is_none_or(|promised| promised == facts.promised_beyond)
            && self.closed.is_none_or(|closed| closed == facts.closed)
            && (self.here.is_empty() || self.here.contains(&facts.here))
            && (self.beyond.is_empty() || self.beyond.contains(&facts.beyond))
    }
}

/// The row that `facts` fall under. Every case has one; should a later case be forgotten in the table, it is taken
/// for corruption, which loses nothing.
pub fn decide(facts: &Facts) -> &'static Row {
    const FORGOTTEN: &Row = &Row {
        name: "unforeseen",
        place: &[],
        short: None,
        promised_beyond: None,
        closed: None,
        here: &[],
        beyond: &[],
        verdict: Verdict::Corruption,
    };
    TABLE.iter().find(|row| row.matches(facts)).unwrap_or(FORGOTTEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_case() -> Vec<Facts> {
        let mut cases = Vec::new();
        for place in [Place::Inner { complete: true }, Place::Inner { complete: false }, Place::Last] {
            for short in [false, true] {
                for promised_beyond in [false, true] {
                    for here in [Here::End, Here::Blank, Here::Foreign, Here::Torn, Here::Unfinished] {
                        for beyond in [Beyond::Nothing, Beyond::Frames, Beyond::BrokenSuccessor] {
                            for closed in [false, true] {
                                cases.push(Facts { place, short, promised_beyond, closed, here, beyond });
                            }
                        }
                    }
                }
            }
        }
        cases
    }

    #[test]
    fn exactly_one_row_matches_each_case() {
        for facts in every_case() {
            let rows: Vec<_> = TABLE.iter().filter(|row| row.matches(&facts)).map(|row| row.name).collect();
            assert_eq!(rows.len(), 1, "{facts:?} matches {rows:?}");
        }
    }

    #[test]
    fn every_row_is_reachable_and_named_once() {
        for row in TABLE {
            assert!(every_case().iter().any(|facts| row.matches(facts)), "{} matches nothing", row.name);
            assert_eq!(TABLE.iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
        }
    }

    #[test]
    fn promised_bytes_are_never_dropped() {
        for facts in every_case().iter().filter(|facts| facts.place == Place::Last) {
            if facts.promised_beyond || facts.short || facts.beyond == Beyond::BrokenSuccessor {
                assert_eq!(decide(facts).verdict, Verdict::Corruption, "{facts:?}");
            } else {
                assert_ne!(decide(facts).verdict, Verdict::Corruption, "{facts:?}");
            }
        }
    }
}
