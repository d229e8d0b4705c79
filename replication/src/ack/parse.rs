//! Policies from text.

use super::{Member, Method, Policy};
use std::fmt;
use std::iter::Peekable;
use std::str::{CharIndices, FromStr};

/// Why text is no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPolicy {
    /// Where, in bytes from the start.
    pub at: usize,
    /// What was wrong.
    pub what: &'static str,
}

impl fmt::Display for BadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no policy of acknowledgement: at byte {}, {}", self.at, self.what)
    }
}

impl std::error::Error for BadPolicy {}

/// Members of a policy, and bytes of one's name: bounds for what people write.
const MEMBERS_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Name { name: String, is_quoted: bool },
    Star,
    Comma,
    Open,
    Close,
}

struct Words<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

type Found = (usize, Word);

impl Words<'_> {
    fn all(text: &str) -> Result<Vec<Found>, BadPolicy> {
        let mut words = Words { text, chars: text.char_indices().peekable() };
        let mut found = Vec::new();
        while let Some(word) = words.next()? {
            found.push(word);
        }
        Ok(found)
    }

    fn next(&mut self) -> Result<Option<Found>, BadPolicy> {
        while self.chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let Some((at, first)) = self.chars.next() else { return Ok(None) };
        let word = match first {
            ',' => Word::Comma,
            '(' => Word::Open,
            ')' => Word::Close,
            '*' => Word::Star,
            '"' => self.quoted(at)?,
            c if is_of_name(c) => {
                let mut end = at + c.len_utf8();
                while let Some((next, c)) = self.chars.next_if(|(_, c)| is_of_name(*c)) {
                    end = next + c.len_utf8();
                }
                let name = self.text.get(at..end).unwrap_or_default().to_lowercase();
                Word::Name { name, is_quoted: false }
            }
            _ => return Err(BadPolicy { at, what: "a character that belongs in quotes" }),
        };
        Ok(Some((at, word)))
    }

    fn quoted(&mut self, at: usize) -> Result<Word, BadPolicy> {
        let mut name = String::new();
        loop {
            match self.chars.next() {
                Some((_, '"')) if self.chars.next_if(|(_, c)| *c == '"').is_some() => name.push('"'),
                Some((_, '"')) => return Ok(Word::Name { name, is_quoted: true }),
                Some((_, c)) => name.push(c),
                None => return Err(BadPolicy { at, what: "a quote that does not end" }),
            }
        }
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-' || c == '.' || c == '$'
}

/// Whether a name is itself when it is written without quotes.
pub(super) fn is_plain(name: &str) -> bool {
    let is_keyword = ["any", "first"].contains(&name);
    !name.is_empty() && !is_keyword && name.chars().all(is_of_name) && name.to_lowercase() == name
}

impl Policy {
    pub(super) fn new(method: Method, count: usize, members: Vec<Member>) -> Result<Policy, BadPolicy> {
        let bad = |what| Err(BadPolicy { at: 0, what });
        let is_name = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        if count == 0 {
            return bad("nobody is counted");
        }
        if members.is_empty() || members.len() > MEMBERS_MAX {
            return bad("too few members, or too many");
        }
        if members.iter().any(|member| matches!(member, Member::Named(name) if !is_name(name))) {
            return bad("a name that is empty or too long");
        }
        let mut distinct = members.clone();
        distinct.sort();
        distinct.dedup();
        if distinct.len() < members.len() {
            return bad("a member twice");
        }
        if count > members.len() && !members.contains(&Member::Any) {
            return bad("more are counted than there are");
        }
        Ok(Policy { method, count, members })
    }
}

impl FromStr for Policy {
    type Err = BadPolicy;

    fn from_str(text: &str) -> Result<Policy, BadPolicy> {
        let words = Words::all(text)?;
        let keyword = |index: usize| match words.get(index) {
            Some((_, Word::Name { name, is_quoted: false })) => Some(name.as_str()),
            _ => None,
        };
        let (method, at) = match keyword(0) {
            Some("any") => (Method::Any, 1),
            Some("first") => (Method::First, 1),
            _ => (Method::First, 0),
        };
        let opens = |index: usize| matches!(words.get(index), Some((_, Word::Open)));
        if at == 0 && !opens(1) {
            let members = members(words.as_slice(), text.len())?;
            return Policy::new(Method::First, 1, members);
        }
        let here = words.get(at).map_or(text.len(), |(at, _)| *at);
        let count = keyword(at).and_then(|count| count.parse().ok());
        let count = count.ok_or(BadPolicy { at: here, what: "a number is needed" })?;
        if !opens(at + 1) {
            return Err(BadPolicy { at: here, what: "`(` is needed behind the number" });
        }
        let Some(((_, Word::Close), inside)) = words.get(at + 2..).and_then(<[Found]>::split_last) else {
            return Err(BadPolicy { at: text.len(), what: "`)` is needed at the end" });
        };
        Policy::new(method, count, members(inside, text.len())?)
    }
}

/// Names with commas between them, and nothing else.
fn members(words: &[Found], end: usize) -> Result<Vec<Member>, BadPolicy> {
    let mut members = Vec::new();
    for (index, (at, word)) in words.iter().enumerate() {
        match (index % 2, word) {
            (0, Word::Star) => members.push(Member::Any),
            (0, Word::Name { name, .. }) => members.push(Member::Named(name.clone())),
            (1, Word::Comma) => {}
            (0, _) => return Err(BadPolicy { at: *at, what: "a name is needed" }),
            _ => return Err(BadPolicy { at: *at, what: "a comma is needed" }),
        }
    }
    if words.len().is_multiple_of(2) {
        return Err(BadPolicy { at: end, what: "a name is needed" });
    }
    Ok(members)
}
