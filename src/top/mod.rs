//! `odometer top`: what a running server does, without anything but this binary.
//!
//! ```text
//! mod.rs   ask, wait, ask again       page.rs    values, sums and buckets of one look
//! figures.rs  the difference of two   screen.rs  for people
//! ```
//! Job: [`run`] asks the server through its admin socket for the metrics that Prometheus reads, as
//! JSON, and shows the difference of two looks. So every figure is one that a dashboard has too,
//! under the same name. Invariant: two pages of different processes are never compared.
//! Must never: ask more often than told, or change anything.

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

/// How it is shown.
#[derive(Clone, Copy, Debug)]
pub struct TopOptions {
    /// One look, and not one after another.
    pub once: bool,
    /// One object a line.
    pub json: bool,
    /// The time between two looks at the server.
    pub interval: Duration,
}

/// Shows the server that runs on `data_dir`, until the process is ended, or once. Where stdout is
/// no terminal, or with `json`, it is one JSON object a line.
///
/// # Errors
/// One sentence: with `once`, no server runs there; stdout is closed.
pub fn run(data_dir: &Path, view: TopOptions) -> Result<()> {
    let mut out = std::io::stdout();
    let json = view.json || !out.is_terminal();
    let mut before: Option<(Scrape, Instant)> = None;
    let mut history = VecDeque::new();
    let mut told = None;
    loop {
        let asked = Instant::now();
        let page = match metrics_of(data_dir) {
            Ok(Some(snapshot)) => Scrape(snapshot),
            Ok(None) if view.once => return Err(no_server(data_dir)),
            Err(error) if view.once => return Err(error),
            // Whoever watches wants to see it come back.
            missing => {
                let why = missing.err().map_or_else(
                    || "no server runs there".to_owned(),
                    |error| format!("{error:#}"),
                );
                before = None;
                told = report_unavailable(
                    &mut out,
                    json,
                    told,
                    &format!("{}: {why}; waiting for it", data_dir.display()),
                )?;
                sleep(view.interval);
                continue;
            }
        };
        told = None;
        let earlier = before.take().filter(|(earlier, _)| is_same_process(earlier, &page));
        if let Some((earlier, at)) = earlier {
            let figures = difference(&earlier, &page, asked.duration_since(at));
            history.push_back(figures.increments_per_s);
            history.drain(..history.len().saturating_sub(render::HISTORY));
            if json {
                writeln!(out, "{}", serde_json::to_string(&figures)?)?;
            } else if view.once {
                render::lines(&figures, &history, size().0)
                    .iter()
                    .try_for_each(|line| writeln!(out, "{line}"))?;
            } else {
                let (width, height) = size();
                let lines = render::lines(&figures, &history, width);
                show(&mut out, &lines[..lines.len().min(height)])?;
            }
            if view.once {
                return Ok(());
            }
        }
        before = Some((page, asked));
        sleep(view.interval.saturating_sub(asked.elapsed()));
    }
}

/// Says what keeps it from showing anything: on the screen, or for programs once on stderr. Returns
/// what was said.
fn report_unavailable(
    out: &mut impl Write,
    json: bool,
    told: Option<String>,
    why: &str,
) -> std::io::Result<Option<String>> {
    if !json {
        show(out, &[why.to_owned()])?;
    } else if told.as_deref() != Some(why) {
        writeln!(std::io::stderr(), "odometer: {why}")?;
    }
    Ok(Some(why.to_owned()))
}

fn difference(before: &Scrape, after: &Scrape, interval: Duration) -> Stats {
    let unix_s = now_unix_s();
    #[expect(clippy::cast_precision_loss, reason = "seconds of this millennium are exact")]
    Stats::between(before, after, interval.as_secs_f64(), unix_s as f64, rfc3339(unix_s))
}

#[expect(clippy::disallowed_methods, reason = "to look again after a while is what was asked for")]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

fn is_same_process(one: &Scrape, other: &Scrape) -> bool {
    let started = |page: &Scrape| page.value("process_start_time_seconds");
    let commits = |page: &Scrape| page.value("odometer_commits_total");
    started(one) == started(other) && commits(one) <= commits(other)
}

/// Draws over what was there, line by line, so that nothing flickers and an interrupt leaves the
/// last figures on the screen.
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

/// How many characters and lines the terminal has; the last line is the cursor's.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .filter(|size| size.ws_col > 0 && size.ws_row > 1);
    size.map_or((80, 23), |size| (usize::from(size.ws_col), usize::from(size.ws_row - 1)))
}
