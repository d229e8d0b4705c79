//! What a command says about itself is read from its source, above its arguments, and is to be in its help as a whole.

use super::{fresh, succeed};
use std::path::{Path, PathBuf};

/// A command's words, and the paragraphs that are written above its arguments.
struct Documented {
    words: Vec<String>,
    paragraphs: Vec<String>,
}

fn source_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(source_files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn kebab(camel: &str) -> String {
    let letters = camel.chars().enumerate();
    let words = letters.map(|(at, letter)| match letter {
        letter if letter.is_uppercase() && at > 0 => format!("-{}", letter.to_lowercase()),
        letter => letter.to_lowercase().to_string(),
    });
    words.collect()
}

/// The documented `struct …Args` of a file that is one command's, or two commands'.
fn documented(path: &Path) -> Vec<Documented> {
    let is_of_log = path.ends_with("log.rs") || path.parent().unwrap().ends_with("log");
    let text = std::fs::read_to_string(path).unwrap();
    let mut found = Vec::new();
    let (mut paragraphs, mut was_doc) = (vec![String::new()], false);
    for line in text.lines() {
        let is_doc = line.starts_with("///");
        if is_doc && !was_doc {
            paragraphs = vec![String::new()];
        }
        was_doc = is_doc;
        if let Some(words) = line.strip_prefix("///") {
            match words.trim() {
                "" => paragraphs.push(String::new()),
                words => *paragraphs.last_mut().unwrap() += &format!(" {words}"),
            }
        } else if let Some((_, rest)) = line.split_once("struct ").filter(|_| !line.starts_with("//")) {
            let name = rest.split(|letter: char| !letter.is_alphanumeric()).next().unwrap();
            if let Some(name) = name.strip_suffix("Args") {
                let mut words = vec![kebab(name)];
                if is_of_log && name != "Log" {
                    words.insert(0, "log".to_owned());
                }
                found.push(Documented { words, paragraphs: paragraphs.clone() });
            }
            paragraphs = vec![String::new()];
        }
    }
    found
}

/// Line breaks and the blanks around them differ; the words do not.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_says_at_length_what_it_does() {
    let dir = fresh("help-at-length");
    let overview = flat(&succeed(&dir, &["--help"]));
    let commands: Vec<Documented> = source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/command"))
        .iter()
        .flat_map(|path| documented(path))
        // Not commands: arguments that several share, and a process that `demo` starts.
        .filter(|command| !["range", "child"].contains(&command.words[0].as_str()))
        .collect();
    assert!(commands.len() >= 19, "{}", commands.len());
    for Documented { words, paragraphs } in commands {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let asked = succeed(&dir, &[&words[..], &["--help"]].concat());
        assert_eq!(asked, succeed(&dir, &[&["help"], &words[..]].concat()), "{words:?}");
        let long = flat(&asked);
        for paragraph in &paragraphs {
            let paragraph = flat(paragraph);
            assert!(!paragraph.is_empty(), "{words:?} says nothing about itself");
            assert!(long.contains(paragraph.trim_end_matches('.')), "{words:?}: {paragraph}: {asked}");
        }
        // The first one is what a list has room for, and what `-h` says.
        let first = flat(&paragraphs[0]);
        let first = first.trim_end_matches('.');
        assert!(first.len() <= 110, "{words:?}: {first}");
        assert!(flat(&succeed(&dir, &[&words[..], &["-h"]].concat())).starts_with(first), "{words:?}");
        if let [word] = words[..] {
            assert!(overview.contains(&flat(&format!("{word} {first}"))), "{word}: {overview}");
        }
    }
    assert!(overview.starts_with("A crash-safe transactional storage engine"), "{overview}");
}
