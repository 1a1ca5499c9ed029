//! `odometer top`: live statistics of a running server.
//!
//! ```text
//! mod.rs    the loop: scrape, wait, scrape again    scrape.rs  values, sums, buckets of one scrape
//! stats.rs  the difference of two scrapes           render.rs  the screen
//! ```
//! Job: [`run`] requests the metrics through the admin socket, as JSON, and shows the difference of
//! two scrapes. They are the metrics that Prometheus scrapes, so a dashboard has the same numbers.
//! Invariant: scrapes of different processes are never compared.
//! Must never: scrape more often than once an interval, or change anything.

mod render;
mod scrape;
mod stats;

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::scrape::Scrape;
use self::stats::Stats;
use crate::admin::client::{metrics_of, no_server};
use crate::domain::time_format::rfc3339;
use crate::store::now_unix_s;

/// The options of `top`.
#[derive(Clone, Copy, Debug)]
pub struct TopOptions {
    /// Print one sample and return.
    pub once: bool,
    /// Print JSON, one object per line.
    pub json: bool,
    /// The time between two scrapes.
    pub interval: Duration,
}

/// Shows the statistics of the server that runs on `data_dir`, once or until the process is ended.
/// Prints JSON, one object per line, if stdout is no terminal or `json` is set.
///
/// # Errors
/// With `once`, no server runs there; stdout is closed.
pub fn run(data_dir: &Path, options: TopOptions) -> Result<()> {
    let mut out = std::io::stdout();
    let json = options.json || !out.is_terminal();
    let mut before: Option<(Scrape, Instant)> = None;
    let mut history = VecDeque::new();
    let mut reported = None;
    loop {
        let start = Instant::now();
        let scrape = match metrics_of(data_dir) {
            Ok(Some(snapshot)) => Scrape(snapshot),
            Ok(None) if options.once => return Err(no_server(data_dir)),
            Err(error) if options.once => return Err(error),
            // Keep polling, so that a restart of the server becomes visible.
            missing => {
                let why = missing.err().map_or_else(
                    || "no server runs there".to_owned(),
                    |error| format!("{error:#}"),
                );
                before = None;
                reported = report_unavailable(
                    &mut out,
                    json,
                    reported,
                    &format!("{}: {why}; waiting for it", data_dir.display()),
                )?;
                sleep(options.interval);
                continue;
            }
        };
        reported = None;
        let earlier = before.take().filter(|(earlier, _)| is_same_process(earlier, &scrape));
        if let Some((earlier, at)) = earlier {
            let stats = difference(&earlier, &scrape, start.duration_since(at));
            history.push_back(stats.increments_per_s);
            history.drain(..history.len().saturating_sub(render::HISTORY));
            if json {
                writeln!(out, "{}", serde_json::to_string(&stats)?)?;
            } else if options.once {
                render::lines(&stats, &history, size().0)
                    .iter()
                    .try_for_each(|line| writeln!(out, "{line}"))?;
            } else {
                let (width, height) = size();
                let lines = render::lines(&stats, &history, width);
                show(&mut out, &lines[..lines.len().min(height)])?;
            }
            if options.once {
                return Ok(());
            }
        }
        before = Some((scrape, start));
        sleep(options.interval.saturating_sub(start.elapsed()));
    }
}

/// Reports why there are no statistics: on the screen, or with `json` on stderr, unless it was
/// `reported` before. Returns what was reported.
fn report_unavailable(
    out: &mut impl Write,
    json: bool,
    reported: Option<String>,
    why: &str,
) -> std::io::Result<Option<String>> {
    if !json {
        show(out, &[why.to_owned()])?;
    } else if reported.as_deref() != Some(why) {
        writeln!(std::io::stderr(), "odometer: {why}")?;
    }
    Ok(Some(why.to_owned()))
}

fn difference(before: &Scrape, after: &Scrape, interval: Duration) -> Stats {
    let unix_s = now_unix_s();
    #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact")]
    Stats::between(before, after, interval.as_secs_f64(), unix_s as f64, rfc3339(unix_s))
}

#[expect(clippy::disallowed_methods, reason = "the user asked for this interval")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

fn is_same_process(one: &Scrape, other: &Scrape) -> bool {
    let started = |scrape: &Scrape| scrape.value("process_start_time_seconds");
    let commits = |scrape: &Scrape| scrape.value("odometer_commits_total");
    started(one) == started(other) && commits(one) <= commits(other)
}

/// Overwrites the screen line by line, so that it does not flicker and an interrupt leaves the last
/// statistics on it.
fn show(out: &mut impl Write, lines: &[String]) -> std::io::Result<()> {
    let mut text = String::from("\x1b[H");
    for line in lines {
        text.push_str(line);
        text.push_str("\x1b[K\r\n");
    }
    text.push_str("\x1b[J");
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The size of the terminal in columns and lines, without the cursor's line.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .filter(|size| size.ws_col > 0 && size.ws_row > 1);
    size.map_or((80, 23), |size| (usize::from(size.ws_col), usize::from(size.ws_row - 1)))
}
