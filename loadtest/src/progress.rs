//! A line that says how the run is going. Only where somebody watches: when stderr is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock::Moment;
use crate::observer::Live;

const STEPS: u64 = 1000;

/// The line.
pub(crate) struct Progress {
    bar: ProgressBar,
    last: Option<(Moment, Live)>,
}

impl Progress {
    /// An empty line.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{prefix:>12} {bar:24.cyan/blue} {percent:>3} %  {wide_msg}");
        bar.set_style(style.expect("the template is well formed"));
        Self { bar, last: None }
    }

    /// Shows `live`, with rates since the last time.
    pub(crate) fn show(&mut self, live: &Live, now: Moment) {
        let last = self.last.replace((now, live.clone()));
        self.bar.set_prefix(live.phase.clone());
        self.bar.set_position((live.progress * STEPS as f64) as u64);
        let (published, delivered) = last.map_or((0.0, 0.0), |(then, last)| {
            let seconds = now.since(then).as_secs_f64();
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            (rate(live.published, last.published), rate(live.delivered, last.delivered))
        });
        self.bar.set_message(format!(
            "{} connections, {published:.0} published/s, {delivered:.0} delivered/s",
            live.up
        ));
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
