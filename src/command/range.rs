//! `--from`, `--to`, `--prefix`: which keys.

use super::{Outcome, Ui};
use clap::Args;
use std::ops::Bound;

/// Bounds of a scan, as the library takes them.
pub(crate) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Which keys: all of those asked for at once.
#[derive(Debug, Args)]
pub(crate) struct RangeArgs {
    /// Begin at this key, itself included
    #[arg(long, value_name = "KEY")]
    from: Option<String>,
    /// End before this key
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    /// Only keys that begin so
    #[arg(long, value_name = "KEY")]
    prefix: Option<String>,
}

impl RangeArgs {
    /// The bounds; `None` if no key can lie between them.
    pub(crate) fn bounds(&self, ui: &Ui) -> Outcome<Option<Bounds>> {
        let decode =
            |what, text: &Option<String>| text.as_ref().map(|text| ui.decode(what, text)).transpose();
        let (mut from, mut to) = (decode("--from", &self.from)?, decode("--to", &self.to)?);
        if let Some(prefix) = decode("--prefix", &self.prefix)? {
            let end = after_prefix(&prefix);
            // `None` is the smallest start, and the greatest end.
            from = from.max(Some(prefix));
            to = match (to, end) {
                (Some(to), Some(end)) => Some(to.min(end)),
                (to, end) => to.or(end),
            };
        }
        let empty = matches!((&from, &to), (Some(from), Some(to)) if from >= to);
        let bounds =
            (from.map_or(Bound::Unbounded, Bound::Included), to.map_or(Bound::Unbounded, Bound::Excluded));
        Ok(if empty { None } else { Some(bounds) })
    }
}

/// The first key after all that begin with `prefix`; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
