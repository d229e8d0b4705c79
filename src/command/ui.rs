//! What goes where: the shared face of all commands towards the terminal.

use super::escape::Codec;
use super::output::{Format, Out};
use super::{Common, Exit, Failure, Outcome};
use clap::ColorChoice;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The options that every command takes, settled.
#[derive(Debug)]
pub(crate) struct Ui {
    pub(crate) format: Format,
    pub(crate) codec: Codec,
    quiet: bool,
    verbose: bool,
    color: ColorChoice,
    interrupted: Arc<AtomicBool>,
}

impl Ui {
    pub(crate) fn new(common: &Common) -> Ui {
        Ui {
            format: common.output,
            codec: if common.hex { Codec::Hex } else { Codec::Escaped },
            quiet: common.quiet,
            verbose: common.verbose > 0,
            color: common.color,
            interrupted: Arc::default(),
        }
    }

    /// Standard output, in the format asked for.
    pub(crate) fn out(&self) -> Out {
        Out::new(self.format)
    }

    /// A key or value as typed on the command line.
    pub(crate) fn decode(&self, what: &str, text: &str) -> Outcome<Vec<u8>> {
        self.codec.decode(text.as_bytes()).map_err(|why| Failure::usage(format!("{what} `{text}`: {why}")))
    }

    /// A line of progress or summary for people.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        if !self.quiet {
            write_line(line.as_ref());
        }
    }

    /// A line for people who asked for more.
    pub(crate) fn detail(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            write_line(&line());
        }
    }

    /// A warning: said even when `--quiet`.
    pub(crate) fn warn(&self, line: impl AsRef<str>) {
        write_line(&format!("{} {}", self.paint("33;1", "warning:"), line.as_ref()));
    }

    /// Reports a failure and gives its exit code.
    pub(crate) fn report(&self, failure: &Failure) -> ExitCode {
        if failure.exit != Exit::OutputClosed {
            write_line(&format!("{} {}", self.paint("31;1", "error:"), failure.message));
            if let Some(hint) = &failure.hint {
                write_line(&format!("  {} {hint}", self.paint("36;1", "hint:")));
            }
        }
        ExitCode::from(failure.exit as u8)
    }

    /// A progress bar over `total` bytes or items, `None` where the total is not known. Drawn on a terminal only.
    pub(crate) fn progress(&self, total: Option<u64>, unit: Unit) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = match (unit, total) {
            (Unit::Bytes, Some(_)) => "{bar:30} {bytes}/{total_bytes}  {msg}  eta {eta}",
            (Unit::Bytes, None) => "{spinner} {bytes}  {msg}  {elapsed}",
            (Unit::Seeds, _) => "{bar:30} {human_pos}/{human_len} seeds  {per_sec}  eta {eta}",
            (Unit::Rows, _) => "{bar:30} {human_pos}/{human_len} rows  {per_sec}  eta {eta}",
            (Unit::Measurements, _) => "{bar:30} {pos}/{len}  {msg}  eta {eta}",
            (Unit::Blocks, _) => "{bar:30} {human_pos}/{human_len} blocks  {per_sec}  {msg}",
        };
        // The templates are constants: a mistake in one shows as indicatif's default bar.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }

    /// From here on Ctrl-C sets a flag instead of ending the process; a second one ends it at once.
    pub(crate) fn catch_interrupts(&self) -> Outcome {
        use signal_hook::{consts, flag};
        for signal in [consts::SIGINT, consts::SIGTERM] {
            let status = i32::from(Exit::Interrupted as u8);
            flag::register_conditional_shutdown(signal, status, Arc::clone(&self.interrupted))
                .and_then(|_| flag::register(signal, Arc::clone(&self.interrupted)))
                .map_err(|error| Failure::error(format!("catching Ctrl-C: {error}")))?;
        }
        Ok(())
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Fails with exit code 130 once Ctrl-C was pressed.
    pub(crate) fn check_interrupt(&self) -> Outcome {
        if self.is_interrupted() { Err(Failure::new(Exit::Interrupted, "interrupted")) } else { Ok(()) }
    }

    fn paint(&self, style: &str, text: &str) -> String {
        let colored = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::io::stderr().is_terminal()
            }
        };
        if colored { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What a progress bar counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Bytes,
    Blocks,
    Seeds,
    Rows,
    Measurements,
}

/// Nobody can be told when standard error itself is gone, so its errors are ignored.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// One that says nothing.
#[cfg(test)]
pub(crate) fn test_ui() -> Ui {
    Ui::new(&Common { output: Format::Json, color: ColorChoice::Never, quiet: true, verbose: 0, hex: false })
}
