//! What each subcommand does. The library does the work; here it is put into words for a terminal.

use std::process::ExitCode;

use causeway_gateway::app::Stopped;

pub(crate) mod admin_client;
pub(crate) mod check;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod publish;
pub(crate) mod revoke;
pub(crate) mod serve;
pub(crate) mod token;

/// The exit status of a node whose drain was ended by a second signal.
const CUT_SHORT: u8 = 3;

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

/// What a node's process exits with.
pub(crate) fn exit_code(stopped: Stopped) -> ExitCode {
    match stopped {
        Stopped::Drained => ExitCode::SUCCESS,
        Stopped::CutShort => ExitCode::from(CUT_SHORT),
    }
}
