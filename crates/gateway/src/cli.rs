//! What each subcommand does. The library does the work; here it is put into words for a terminal.

pub(crate) mod admin_client;
pub(crate) mod check;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod publish;
pub(crate) mod revoke;
pub(crate) mod serve;
pub(crate) mod token;

/// Why a command failed, in one line.
pub(crate) type CliError = Box<dyn std::error::Error>;

/// Prints one line of what the command is for to stdout.
pub(crate) fn print(line: impl std::fmt::Display) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}")
}

/// Says something beside what the command is for, on stderr.
pub(crate) fn note(line: impl std::fmt::Display) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stderr(), "causeway: note: {line}")
}

/// Runs `future` on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    actix_rt::System::new().block_on(future)
}
