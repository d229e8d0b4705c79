//! The `seawall` command: see [`command`].

mod command;

fn main() -> std::process::ExitCode {
    command::main()
}
