//! `seawall doctor`.

use super::measure::units;
use super::output::Format;
use super::{Exit, Failure, Outcome, Ui};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

mod files;
mod inside;
#[cfg(feature = "serve")]
mod network;

/// What is wrong with a store, in plain words, and what helps.
///
/// Reads and checks everything, as `seawall verify` does, and says who keeps the log and how much, slots that are lost or near their
/// limits, prepared transactions and their age, whether another store has taken this one's place, how old the last checkpoint
/// is, which way goes to the disk, and how much room it has. Where another process has the store open, it says what the files say.
///
/// With --of a node that runs is asked how its links stand; with both, also what that node's log is to this store's: whether it can
/// follow, or needs a rewind or a new image first. Nothing is changed anywhere. Exits with 5 if anything is damaged, else with 0.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  seawall doctor db\n  seawall doctor db --quick -o json\n  seawall doctor db --of 10.0.0.1:7410 --plain-text"
)]
pub(crate) struct DoctorArgs {
    /// The store's directory
    #[cfg_attr(feature = "serve", arg(value_name = "DB", required_unless_present = "of"))]
    #[cfg_attr(not(feature = "serve"), arg(value_name = "DB", required = true))]
    db: Option<PathBuf>,
    /// Without reading every block
    #[arg(long)]
    quick: bool,
    /// A prepared transaction is old from this age on
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::duration)]
    prepared_age: Duration,
    /// A slot, or a replica, that was not heard of for so long is worth a word
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = units::duration)]
    silence: Duration,
    #[cfg(feature = "serve")]
    #[command(flatten)]
    elsewhere: super::elsewhere::Elsewhere,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// Bytes are not what was written.
    Damage,
    /// Something does not work, or will not.
    Problem,
    /// Something may become one.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Damage => "damage",
            Severity::Problem => "problem",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// What was found.
struct Finding {
    severity: Severity,
    about: String,
    says: String,
    helps: Option<String>,
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, about: impl Into<String>, says: impl Into<String>) -> &mut Finding {
        let at = self.0.len();
        self.0.push(Finding { severity, about: about.into(), says: says.into(), helps: None });
        &mut self.0[at]
    }

    fn damage(&mut self, about: impl Into<String>, says: impl Into<String>) -> &mut Finding {
        self.add(Severity::Damage, about, says)
    }

    fn problem(&mut self, about: impl Into<String>, says: impl Into<String>) -> &mut Finding {
        self.add(Severity::Problem, about, says)
    }

    fn warning(&mut self, about: impl Into<String>, says: impl Into<String>) -> &mut Finding {
        self.add(Severity::Warning, about, says)
    }

    fn note(&mut self, about: impl Into<String>, says: impl Into<String>) -> &mut Finding {
        self.add(Severity::Note, about, says)
    }

    fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|finding| finding.severity == severity).count()
    }
}

impl Finding {
    fn helps(&mut self, what: impl Into<String>) {
        self.helps = Some(what.into());
    }
}

pub(crate) fn run(ui: &Ui, args: DoctorArgs) -> Outcome {
    let mut found = Findings::default();
    #[cfg(feature = "serve")]
    let asked = args.elsewhere.asked()?;
    if let Some(dir) = &args.db {
        super::store::require(dir)?;
        let is_replica = files::examine(dir, &mut found)?;
        let db = inside::examine(ui, &args, dir, is_replica, &mut found)?;
        #[cfg(feature = "serve")]
        if let (Some(asked), Some(db)) = (&asked, &db) {
            network::compare(asked, dir, db, &mut found)?;
        }
        drop(db);
    }
    #[cfg(feature = "serve")]
    if let Some(asked) = &asked {
        network::examine(&args, asked, &mut found)?;
    }
    found.0.sort_by_key(|finding| finding.severity);
    print(ui, &args, &found)?;
    match found.count(Severity::Damage) {
        0 => Ok(()),
        _ => Err(Failure::new(Exit::Corruption, "the store is damaged")
            .hint("keep it as it is, and a copy of it; a replica, or a backup, may hold what it has lost")),
    }
}

fn print(ui: &Ui, args: &DoctorArgs, found: &Findings) -> Outcome {
    let [damaged, problems, warnings] =
        [Severity::Damage, Severity::Problem, Severity::Warning].map(|severity| found.count(severity));
    let mut out = ui.out();
    if ui.format != Format::Table {
        let findings = found.0.iter().map(|finding| {
            json!({
                "severity": finding.severity.name(),
                "about": finding.about,
                "says": finding.says,
                "helps": finding.helps,
            })
        });
        out.object(&[
            ("store", json!(args.db.as_ref().map(|db| db.display().to_string()))),
            ("damage", json!(damaged)),
            ("problems", json!(problems)),
            ("warnings", json!(warnings)),
            ("findings", Value::Array(findings.collect())),
        ])?;
        return out.finish();
    }
    for finding in &found.0 {
        let (severity, about, says) = (finding.severity.name(), &finding.about, &finding.says);
        out.raw(format!("{severity:<8} {about}: {says}\n").as_bytes())?;
        if let Some(helps) = &finding.helps {
            out.raw(format!("{:8} -> {helps}\n", "").as_bytes())?;
        }
    }
    out.finish()?;
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    match (damaged, problems + warnings) {
        (0, 0) => ui.say("nothing is wrong"),
        (0, _) => ui.say(format!("{}, {}", count(problems, "problem"), count(warnings, "warning"))),
        // The exit code's message says it.
        _ => {}
    }
    Ok(())
}

/// Time as people say it: the two largest units.
fn ago(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let Some(largest) = units.iter().position(|(unit, _)| seconds >= *unit) else {
        return format!("{} ms", time.as_millis());
    };
    let mut left = seconds;
    let mut words = Vec::new();
    for (unit, name) in units.iter().skip(largest).take(2) {
        if left / unit > 0 {
            words.push(format!("{} {name}", left / unit));
        }
        left %= unit;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_their_two_largest_units() {
        let said = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!(
            [said(1), said(60), said(3_720), said(7_199)],
            ["1 s", "1 min", "1 h 2 min", "1 h 59 min"]
        );
        assert_eq!([said(86_400 * 3 + 30), said(90_061)], ["3 d", "1 d 1 h"]);
        assert_eq!(ago(Duration::from_millis(20)), "20 ms");
    }
}
