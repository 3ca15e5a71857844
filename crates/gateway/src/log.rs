//! The log: lines on stderr, for people or for machines, as many as the level says.

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::config::{LogFormat, LogGiven};

/// The level of a log that has begun. It can be changed.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// Begins to log.
///
/// # Errors
/// When the level is none.
///
/// # Panics
/// When something in this process logs already.
pub fn begin(log: &LogGiven) -> Result<LogLevel, ParseError> {
    let (filter, level) = reload::Layer::new(filter(&log.level)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    Registry::default().with(filter).with(lines).init();
    Ok(LogLevel(level))
}

/// What a level lets through.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    // A malformed request is its sender's fault and would be an error line each; what matters is counted.
    EnvFilter::try_new(format!("actix_http=off,actix_server=warn,{level}"))
}

impl LogLevel {
    pub(crate) fn set(&self, filter: EnvFilter) {
        // Fails only where the log has ended, and then there is nothing to be filtered.
        let _ = self.0.reload(filter);
    }
}
