//! Shows the timeline as it happens: one refreshing screen on a terminal, plain lines elsewhere.

use std::{
    convert::Infallible,
    env,
    io::{self, IsTerminal, Write, stdout},
    time::Duration,
};

use crossterm::{
    cursor, execute,
    style::Stylize,
    terminal::{
        self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate,
        EnterAlternateScreen, LeaveAlternateScreen,
    },
};
use seawall::Seawall;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    chart,
    producers::Tally,
    timeline::{Event, Sample, Timeline, word},
};

pub(crate) struct Screen<'a> {
    title: String,
    timeline: &'a Timeline,
    tally: &'a Tally,
    shown: Shown,
}

enum Shown {
    Live,
    Plain {
        /// How many events have been printed.
        events: usize,
        /// The sample that was printed last.
        last: Option<Sample>,
    },
    Closed,
}

impl<'a> Screen<'a> {
    pub(crate) fn open(
        title: String,
        timeline: &'a Timeline,
        tally: &'a Tally,
    ) -> io::Result<Self> {
        let can_refresh =
            stdout().is_terminal() && env::var_os("TERM").is_some_and(|it| it != "dumb");
        let shown = if can_refresh {
            execute!(stdout(), EnterAlternateScreen, cursor::Hide)?;
            Shown::Live
        } else {
            println!("{title}");
            Shown::Plain {
                events: 0,
                last: None,
            }
        };
        Ok(Self {
            title,
            timeline,
            tally,
            shown,
        })
    }

    /// Goes on until it is dropped.
    ///
    /// # Errors
    ///
    /// The terminal, or what stands for it, is gone.
    pub(crate) async fn follow(
        &mut self,
        seawall: &Seawall,
    ) -> Result<Infallible, Box<dyn std::error::Error>> {
        let mut tick = interval(REFRESH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut breaker = seawall.breaker().subscribe();
        loop {
            let due = tokio::select! {
                _ = tick.tick() => true,
                // Not a quarter of a second late.
                changed = breaker.changed() => changed.is_err(),
            };
            self.timeline.look(seawall);
            if due {
                self.show()?;
            }
        }
    }

    /// Leaves the last picture on the terminal.
    pub(crate) fn close(&mut self, seawall: &Seawall) -> io::Result<()> {
        self.timeline.look(seawall);
        match self.shown {
            Shown::Live => {
                self.leave();
                let (width, _) = terminal::size()?;
                let events = self.timeline.told().events.len();
                for line in self.picture(width.into(), events) {
                    println!("{line}");
                }
                Ok(())
            }
            _ => self.show(),
        }
    }

    fn show(&mut self) -> io::Result<()> {
        match &mut self.shown {
            Shown::Live => self.refresh(),
            Shown::Plain { events, last } => {
                let told = self.timeline.told();
                let mut out = stdout().lock();
                for event in &told.events[*events..] {
                    writeln!(out, "{}", told_plainly(event))?;
                }
                *events = told.events.len();
                if let Some(now) = told.samples.last()
                    && last.is_none_or(|last| now.at - last.at >= PLAIN_EVERY)
                {
                    writeln!(
                        out,
                        "{}",
                        counted_plainly(now, last.as_ref().unwrap_or(now))
                    )?;
                    *last = Some(*now);
                }
                Ok(())
            }
            Shown::Closed => Ok(()),
        }
    }

    fn refresh(&self) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let (width, height) = (usize::from(width), usize::from(height));
        let events = height.saturating_sub(FIXED_LINES);
        let mut out = stdout().lock();
        execute!(out, BeginSynchronizedUpdate, cursor::MoveTo(0, 0))?;
        for (at, line) in self.picture(width, events).iter().take(height).enumerate() {
            let end = if at == 0 { "" } else { "\r\n" };
            write!(out, "{end}{line}")?;
            execute!(out, Clear(ClearType::UntilNewLine))?;
        }
        execute!(out, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        out.flush()
    }

    fn picture(&self, width: usize, events: usize) -> Vec<String> {
        let told = self.timeline.told();
        let mut lines = vec![
            shortened(&self.title, width).bold().to_string(),
            String::new(),
        ];
        lines.extend(chart::draw(&told.samples, width));
        lines.push(String::new());
        if let Some(now) = told.samples.last() {
            lines.push(shortened(&self.progress(now), width));
        }
        lines.push(String::new());
        let skipped = told.events.len().saturating_sub(events);
        let shown = told.events.iter().skip(skipped);
        lines.extend(shown.map(|event| shortened(&told_plainly(event), width)));
        lines
    }

    fn progress(&self, now: &Sample) -> String {
        let counts = now.counts;
        let (done, jobs) = (counts.direct + counts.spooled, self.timeline.jobs());
        let share = (done as f64 / jobs as f64).min(1.0);
        let full = (share * BAR as f64) as usize;
        format!(
            "  accepted {} of {}  [{}{}]  refused {}  slowest enqueue {} ms",
            grouped(done),
            grouped(jobs),
            "=".repeat(full),
            " ".repeat(BAR - full),
            grouped(counts.refused),
            self.tally.slowest().as_millis(),
        )
    }

    fn leave(&mut self) {
        self.shown = Shown::Closed;
        // Nobody is left to tell if that fails.
        let _ = execute!(stdout(), cursor::Show, LeaveAlternateScreen);
    }
}

/// However the run ends, the terminal is as it was.
impl Drop for Screen<'_> {
    fn drop(&mut self) {
        if matches!(self.shown, Shown::Live) {
            self.leave();
        }
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn told_plainly(event: &Event) -> String {
    format!("  {:>5.1} s  {}", event.at.as_secs_f64(), event.what)
}

fn counted_plainly(now: &Sample, before: &Sample) -> String {
    let seconds = (now.at - before.at).as_secs_f64().max(f64::MIN_POSITIVE);
    let rate = |now: u64, then: u64| grouped(((now - then) as f64 / seconds) as u64);
    let (counts, then) = (now.counts, before.counts);
    format!(
        "{:>7.1} s  redis={:<8} breaker={:<9} direct={}/s spooled={}/s replayed={}/s on_disk={}",
        now.at.as_secs_f64(),
        now.redis.as_str(),
        word(now.breaker),
        rate(counts.direct, then.direct),
        rate(counts.spooled, then.spooled),
        rate(counts.replayed, then.replayed),
        grouped(now.depth),
    )
}

fn shortened(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

const REFRESH: Duration = Duration::from_millis(250);
const PLAIN_EVERY: Duration = Duration::from_secs(1);
const BAR: usize = 30;

/// All lines of the picture that are no events.
const FIXED_LINES: usize = 12;
