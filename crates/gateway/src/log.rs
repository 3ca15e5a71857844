//! The log: lines on stderr, for people or for machines, as many as the level says.
//!
//! Nobody who logs waits for stderr: see `log/lines`. A process has one stderr and so one log, begun once. What clients
//! can make happen as often as they like is told a few times and then counted: see `log/repeats`.

use std::io;
use std::iter;
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::Duration;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use self::lines::{Line, Lines, Writer};
use crate::config::{LogFormat, LogGiven};
use crate::traces::{self, Traces};

pub(crate) mod repeats;

mod lines;

/// The lines of this process.
static LINES: Lines = Lines::new();

/// How long the end of the process waits for its last lines to be written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// How long whoever panicked waits for that, because the process may be about to end.
const PANIC_PATIENCE: Duration = Duration::from_millis(100);

/// A log that has begun. Dropped at the end of the process, it waits up to a second for the last lines to be written.
#[derive(Debug)]
pub struct Log {
    level: LogLevel,
    traces: Option<Traces>,
}

/// The level of a log that has begun. It can be changed.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is none.
    #[error(transparent)]
    Level(#[from] ParseError),
    /// There is no thread for it.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Begins to log, panics too, and to take in spans where there are `traces`.
///
/// # Errors
/// [`LogError`]
///
/// # Panics
/// When something in this process logs already.
pub fn begin(log: &LogGiven, traces: Option<Traces>) -> Result<Log, LogError> {
    let (layers, level) = layers(log, traces.as_ref())?;
    thread::Builder::new().name("log".to_owned()).spawn(write_out)?;
    Registry::default().with(layers).init();
    panic::set_hook(Box::new(tell_of_panic));
    Ok(Log { level, traces })
}

/// What takes in lines, and spans. Each has a filter of its own: the log's level is not that of the traces.
fn layers(log: &LogGiven, traces: Option<&Traces>) -> Result<(Vec<AnyLayer>, LogLevel), ParseError> {
    let (filter, level) = reload::Layer::new(filter(&log.level)?);
    let lines = fmt::layer().with_writer(Line::of(&LINES));
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let layers = iter::once(lines.with_filter(filter).boxed()).chain(traces.map(Traces::layer));
    Ok((layers.collect(), LogLevel(level)))
}

/// Lines that were lost since the start, because stderr took no more.
pub(crate) fn lines_lost() -> u64 {
    LINES.lost()
}

/// Waits up to a second for what was logged to be written: for whoever is about to end the process.
pub(crate) fn flush() {
    LINES.flush(FLUSH_PATIENCE);
}

/// What a level lets through.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    // A malformed request is its sender's fault and would be an error line each; what matters is counted.
    EnvFilter::try_new(format!("actix_http=off,actix_server=warn,{}=off,{level}", traces::TARGET))
}

/// The log's thread.
fn write_out() {
    let mut writer = Writer::new(io::stderr());
    loop {
        if let Some(lost) = writer.pass_on(&LINES) {
            tracing::warn!(lost, "the log has a hole: stderr took no more lines");
        }
    }
}

/// A panic is a line like any other. What Rust would write by itself waits for stderr, and is many lines.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let cause = panic.payload_as_str().unwrap_or_default();
    tracing::error!(thread = thread::current().name(), place, cause, "panicked");
    LINES.flush(PANIC_PATIENCE);
}

impl Log {
    /// Its level, to be changed.
    pub fn level(&self) -> LogLevel {
        self.level.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // First, because it may have something to say.
        self.traces.take();
        flush();
    }
}

impl LogLevel {
    pub(crate) fn set(&self, filter: EnvFilter) {
        // Fails only where the log has ended, and then there is nothing to be filtered.
        let _ = self.0.reload(filter);
    }
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::*;
    use crate::traces::TracesConfig;

    #[test]
    fn what_nobody_logs_costs_a_glance_at_the_level() {
        let highest = |level: &str, traces: Option<&Traces>| {
            let log = LogGiven { format: LogFormat::Text, level: level.to_owned() };
            layers(&log, traces).unwrap().0.max_level_hint()
        };
        assert_eq!(highest("info", None), Some(LevelFilter::INFO));
        assert_eq!(highest("warn", None), Some(LevelFilter::WARN));
        let endpoint = "http://127.0.0.1:9/v1/traces".to_owned();
        let traces = Traces::begin(&TracesConfig { endpoint, sample_ratio: 1.0 }, "a-node");
        assert_eq!(highest("warn", Some(&traces)), Some(LevelFilter::INFO), "spans are of this level");
    }
}
