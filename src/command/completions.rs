//! `seawall completions`.

use super::{Outcome, Ui};
use clap::Args;
use clap_complete::Shell;

/// Prints a completion script for a shell.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  seawall completions bash > ~/.local/share/bash-completion/completions/seawall"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(ui: &Ui, args: CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::grammar(), "seawall", &mut script);
    let mut out = ui.out();
    out.raw(&script)?;
    out.finish()
}
