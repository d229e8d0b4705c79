//! `seawall man`.

use super::{Failure, Outcome, Ui};
use clap::Args;

/// Prints the manual page.
///
/// Of the whole, or of one command, in roff.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  seawall man | man -l -\n  seawall man load > seawall-load.1")]
pub(crate) struct ManArgs {
    /// The command; the whole without it
    command: Option<String>,
}

pub(crate) fn run(ui: &Ui, args: ManArgs) -> Outcome {
    let mut grammar = super::grammar();
    grammar.build();
    let subject = match &args.command {
        None => grammar,
        Some(name) => {
            let found = grammar.get_subcommands().find(|command| command.get_name() == name);
            found.cloned().ok_or_else(|| Failure::usage(format!("there is no command `{name}`")))?
        }
    };
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(subject).render(&mut page);
    rendered.map_err(|error| Failure::error(format!("writing the page: {error}")))?;
    let mut out = ui.out();
    out.raw(&page)?;
    out.finish()
}
