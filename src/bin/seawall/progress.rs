//! A progress bar, where somebody looks at it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// On stderr if that is a terminal, and else nowhere. It is gone when the work is done.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of `total` records; nothing is shown when a program reads along.
    pub(crate) fn of_records(total: u64, what: &'static str, json: bool) -> Self {
        Self::new(
            total,
            what,
            json,
            "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}",
        )
    }

    /// Of `total` bytes, 0 if nobody knows.
    pub(crate) fn of_bytes(total: u64, what: &'static str, json: bool) -> Self {
        if total == 0 {
            return Self::new(0, what, json, "{msg} {spinner} {bytes} {bytes_per_sec}");
        }
        Self::new(
            total,
            what,
            json,
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
    }

    fn new(total: u64, what: &'static str, json: bool, template: &str) -> Self {
        let target = if json || !output::is_watched() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    pub(crate) fn add(&self, done: u64) {
        self.0.inc(done);
    }

    pub(crate) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// For whoever else writes on the terminal, to suspend it meanwhile.
    pub(crate) fn bar(&self) -> ProgressBar {
        self.0.clone()
    }
}

/// Whatever is said after it has the line to itself.
impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
