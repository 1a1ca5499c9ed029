//! The screen of `odometer top`.
//!
//! Job: [`lines`] formats the statistics for a terminal.
//! Invariant: no line is wider than the terminal.
//! Must never: write to the terminal.

use std::collections::VecDeque;

use super::stats::Stats;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The number of samples that the bar chart shows.
pub(super) const HISTORY: usize = 60;
const LABEL: usize = 14;

/// The lines of the screen. `history` holds increments per second, the newest last.
pub(super) fn lines(stats: &Stats, history: &VecDeque<f64>, width: usize) -> Vec<String> {
    let f = stats;
    let mut lines = vec![format!(
        "odometer {} ({})   {}   up {}   {}",
        f.version,
        f.revision,
        f.state,
        format_duration(f.uptime_s),
        f.at
    )];
    // Near the top, so that a small terminal cuts off other lines first.
    lines.extend(warnings(f));
    for group in [requests_section(f, history), store_section(f), limits_section(f)] {
        lines.push(String::new());
        lines.extend(group);
    }
    lines.into_iter().map(|line| line.chars().take(width).collect()).collect()
}

fn row(name: &str, text: String) -> String {
    format!("{name:<LABEL$}{text}")
}

fn used(used: f64, limit: f64) -> String {
    format!("{} of {}", count(used), count(limit))
}

fn quantiles(p50: Option<f64>, p99: Option<f64>) -> String {
    format!("p50 {}   p99 {}", ms(p50), ms(p99))
}

/// Requests of the tenant API and their responses.
fn requests_section(f: &Stats, history: &VecDeque<f64>) -> Vec<String> {
    let (increments, requests) = (
        quantiles(f.increment_p50_ms, f.increment_p99_ms),
        quantiles(f.request_p50_ms, f.request_p99_ms),
    );
    let (refused, failed) = (count(f.refused_per_s), count(f.failed_per_s));
    vec![
        row("increments", format!("{:>9}/s  {increments}", count(f.increments_per_s))),
        row("", bars(history)),
        row("integers", format!("{:>9}/s", count(f.integers_per_s))),
        row(
            "requests",
            format!(
                "{:>9}/s  {requests}   rejected {refused}/s   failed {failed}/s",
                count(f.requests_per_s)
            ),
        ),
    ]
}

/// The store.
fn store_section(f: &Stats) -> Vec<String> {
    let mean = f.requests_per_commit.map_or("-".to_owned(), |mean| format!("{mean:.1}"));
    let commits = quantiles(f.commit_p50_ms, f.commit_p99_ms);
    let checkpoints =
        format!("{} checkpoints, {} each", count(f.checkpoints), ms(f.checkpoint_mean_ms));
    let backup =
        f.backup_age_s.map_or("none".to_owned(), |age| format!("{} ago", format_duration(age)));
    let (free, reserve) = (bytes(f.disk_free_bytes), bytes(f.disk_reserve_bytes));
    vec![
        row(
            "commits",
            format!("{:>9}/s  {commits}   {mean} requests each", count(f.commits_per_s)),
        ),
        row(
            "queue",
            format!("{}   shed {}/s", used(f.queue_depth, f.queue_limit), count(f.shed_per_s)),
        ),
        row("journal", format!("{}   {checkpoints}", bytes(f.journal_bytes))),
        row("disk", format!("{free} free, {reserve} in reserve   last backup {backup}")),
    ]
}

/// Resources in use and their limits.
fn limits_section(f: &Stats) -> Vec<String> {
    let refused = count(f.connections_refused_per_s);
    let (limited, credentials) = (count(f.rate_limited_per_s), count(f.auth_failures_per_s));
    vec![
        row(
            "connections",
            format!("{}   rejected {refused}/s", used(f.connections, f.connections_limit)),
        ),
        row("idempotency", format!("{} keys", used(f.idempotency_keys, f.idempotency_keys_limit))),
        row("limits", format!("rate limited {limited}/s   authentication failed {credentials}/s")),
        row(
            "process",
            format!(
                "{} resident   {} descriptors",
                bytes(f.resident_bytes),
                used(f.open_fds, f.max_fds)
            ),
        ),
    ]
}

/// Conditions that need the operator's attention.
fn warnings(f: &Stats) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |wrong: bool, text: String| {
        if wrong {
            warnings.push(format!("! {text}"));
        }
    };
    warn(
        f.state == "poisoned",
        "poisoned: a write failed, the process is about to exit".to_owned(),
    );
    warn(f.state == "not-ready", "not ready: writes are refused, reads continue".to_owned());
    warn(
        f.previous_shutdown == "poisoned",
        "the previous process stopped after a failed write: check the disk".to_owned(),
    );
    warn(
        f.shed_per_s > 0.0,
        "shedding: requests are rejected because the commit queue is full".to_owned(),
    );
    warn(f.log_lines_dropped > 0.0, format!("log lines dropped: {}", count(f.log_lines_dropped)));
    if let Some(days) = f.certificate_days_left {
        warn(days < 21.0, format!("the certificate expires in {days:.0} days"));
    }
    warnings
}

fn bars(history: &VecDeque<f64>) -> String {
    let most = history.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 7")]
        let height = if most > 0.0 { (value / most * 7.0).round() as usize } else { 0 };
        BARS[height.min(7)]
    };
    history.iter().map(bar).collect()
}

/// Formats a number with thousands separators.
fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut output = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            output.push(',');
        }
        output.push(digit);
    }
    output
}

fn ms(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.2} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    }
}

fn bytes(value: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = value.max(0.0);
    let mut unit = 0;
    while value >= 1024.0 && unit < units.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Formats a duration in its two largest units.
fn format_duration(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a saturating cast"
    )]
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scrape::Scrape;
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [0.0, 999.4, 1000.0, 1_234_567.0].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([0.5, 2048.0, 67_108_864.0].map(bytes), ["0 B", "2.0 KiB", "64.0 MiB"]);
        assert_eq!(
            [59.9, 61.0, 3661.0, 90_000.0].map(format_duration),
            ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!([None, Some(0.1234), Some(12.4)].map(ms), ["-", "0.12 ms", "12 ms"]);
        assert_eq!(bars(&VecDeque::from([0.0, 50.0, 100.0])), "▁▅█");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_warnings_are_shown() {
        let scrape = Scrape::of(&[
            ("odometer_store_ready", &[], 0.0),
            ("odometer_log_lines_dropped_total", &[], 3.0),
        ]);
        let stats = Stats::between(
            &Scrape::default(),
            &scrape,
            1.0,
            0.0,
            "2026-11-24T09:00:00Z".to_owned(),
        );
        let shown = lines(&stats, &VecDeque::from([1.0; HISTORY]), 40);
        assert!(shown.iter().all(|line| line.chars().count() <= 40), "{shown:?}");
        let screen = shown.join("\n");
        assert!(
            screen.contains("! not ready") && screen.contains("! log lines dropped: 3"),
            "{screen}"
        );
    }
}
