//! The same report as Markdown, between two marker comments of a file whose other text is kept.

use crate::Result;
use crate::args::Args;
use crate::condition::Condition;
use crate::contenders::Contender;
use crate::machine::Machine;
use crate::summary::Race;
use crate::table::{self, HEAD};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

const BEGIN: &str =
    "<!-- race: begin. Written by benches/race; what is between these marks is lost at the next run. -->";
const END: &str = "<!-- race: end -->";
/// How the marks are found again, whatever is said after them.
const BEGIN_MARK: &str = "<!-- race: begin";

/// What a file that does not exist yet begins with.
const NEW: &str =
    "# Benchmarks\n\nseawall beside the raw device and its peers, made by the race in `benches/race`.\n\n";

/// Fails now if [`write`] would fail later.
pub(crate) fn check(path: &Path) -> Result<()> {
    let cannot = |why: &str| format!("cannot write {}: {why}", path.display()).into();
    match fs::read_to_string(path) {
        Ok(text) => replaced(&text, "").map(drop).map_err(cannot),
        Err(error) if error.kind() == ErrorKind::NotFound && has_directory(path) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(cannot("there is no such directory")),
        Err(error) => Err(cannot(&error.to_string())),
    }
}

/// True if the directory that is to hold the file exists.
fn has_directory(path: &Path) -> bool {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new(".")).is_dir()
}

pub(crate) fn write(path: &Path, race: &Race, machine: &Machine, args: &Args) -> Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => NEW.to_owned(),
        Err(error) => return Err(error.into()),
    };
    let section = section(race, machine, args)?;
    Ok(fs::write(path, replaced(&text, &section)?)?)
}

/// The text with its marked section replaced, or appended.
fn replaced(text: &str, section: &str) -> std::result::Result<String, &'static str> {
    let marked = format!("{BEGIN}\n\n{section}\n{END}\n");
    match (text.find(BEGIN_MARK), text.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            let after = text[end + END.len()..].trim_start_matches('\n');
            let gap = if after.is_empty() { "" } else { "\n" };
            Ok(format!("{}{marked}{gap}{after}", &text[..begin]))
        }
        (None, None) => Ok(format!("{}\n\n{marked}", text.trim_end())),
        _ => Err(
            "one of the two marks `race: begin` and `race: end` is missing, or they are the wrong way round",
        ),
    }
}

fn section(race: &Race, machine: &Machine, args: &Args) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "| | |\n|---|---|")?;
    for (name, value) in machine.lines() {
        writeln!(text, "| {name} | {} |", escaped(&value))?;
    }
    writeln!(text, "| Command, in `benches/race` | `{}` |", escaped(&table::command()))?;
    writeln!(
        text,
        "| Method | every contender in a process and a directory of its own, interleaved; medians of {} × {} s |",
        args.repetitions(),
        args.window_s()
    )?;
    write_targets(&mut text, race)?;
    write_tables(&mut text, race)?;
    write_modes(&mut text, race)?;
    Ok(text)
}

fn write_targets(text: &mut String, race: &Race) -> Result<()> {
    writeln!(text, "\n## Targets\n\n| asked | found | |\n|---|---|---|")?;
    for [asked, found, verdict] in table::targets_as_rows(race) {
        let verdict = if verdict == "MISSED" { "**missed**".to_owned() } else { verdict };
        writeln!(text, "| {asked} | {found} | {verdict} |")?;
    }
    Ok(())
}

fn write_tables(text: &mut String, race: &Race) -> Result<()> {
    writeln!(
        text,
        "\n## Rows\n\n\
         Keys of 16 bytes in random order. *× device*: of the device's own row in the same table. *× best peer*: of the \
         quickest peer that flushes as it must and whose committers are of the same kind, threads or tasks. *B/B*: bytes written for each byte of the rows, by the device's count \
         and by the kernel's of the process. *flushes/commit*: by the device's count. A contender whose commits cannot \
         all have been covered by the flushes seen is marked DISHONEST and compared with nobody. *disturbed n ×*: in n \
         repetitions other processes used more than a tenth of a processor."
    )?;
    for table in &race.tables {
        let unit = table::unit(table.workload);
        writeln!(text, "\n### {}\n\n{}; rate in {unit}.\n", table::title(table), table.workload.about())?;
        writeln!(text, "| {} |", HEAD.join(" | "))?;
        let rule: Vec<&str> =
            (0..HEAD.len()).map(|i| if i == 0 || i + 1 == HEAD.len() { "---" } else { "--:" }).collect();
        writeln!(text, "|{}|", rule.join("|"))?;
        for row in table::rows(table) {
            let bold = row[0].starts_with("seawall");
            let cells: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(i, cell)| if bold && i < 2 { format!("**{cell}**") } else { escaped(cell) })
                .collect();
            writeln!(text, "| {} |", cells.join(" | "))?;
        }
        if let Some(footer) = table::footer(race, table) {
            writeln!(text, "\n{footer}")?;
        }
    }
    Ok(())
}

fn write_modes(text: &mut String, race: &Race) -> Result<()> {
    let ran: BTreeSet<Contender> =
        race.tables.iter().flat_map(|table| table.rows.iter().map(|row| row.contender)).collect();
    writeln!(text, "\n## How each was asked\n\n| contender | | mode |\n|---|---|---|")?;
    for contender in ran {
        writeln!(
            text,
            "| {} | {} | {} |",
            contender.name(),
            escaped(&contender.about()),
            escaped(contender.mode())
        )?;
    }
    let conditions: BTreeSet<Condition> =
        race.tables.iter().flat_map(|table| table.rows.iter().map(|row| row.condition)).collect();
    for condition in conditions {
        if let Some(about) = condition.about() {
            writeln!(text, "| …{} | | {} |", condition.suffix(), escaped(about))?;
        }
    }
    Ok(())
}

fn escaped(cell: &str) -> String {
    cell.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_around_the_section_is_kept() {
        let first = replaced("# Title\n\nWords.\n", "one").unwrap_or_default();
        assert!(first.starts_with("# Title\n\nWords.\n\n<!-- race: begin"), "{first}");
        let noted = format!("{first}\n## Notes\n\nBy hand.\n");
        let second = replaced(&noted, "two").unwrap_or_default();
        assert!(second.contains("two") && !second.contains("one\n"), "{second}");
        assert!(second.starts_with("# Title\n\nWords.\n\n") && second.ends_with("\n## Notes\n\nBy hand.\n"));
        assert_eq!(replaced(&second, "two").as_deref(), Ok(second.as_str()));
    }

    #[test]
    fn a_lost_mark_is_an_error() {
        assert!(replaced(BEGIN, "x").is_err());
        assert!(replaced(END, "x").is_err());
        assert!(replaced(&format!("{END}\n{BEGIN}"), "x").is_err());
    }
}
