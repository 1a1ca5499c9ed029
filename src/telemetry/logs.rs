//! The logs of the process: installed once by main, reloaded on SIGHUP, flushed last.
//!
//! Job: [`install`] sets the global tracing subscriber (a reloadable filter, then one line per
//! event) and the panic hook; main keeps [`Logs`] to change the level and to flush at the end.
//! Invariant: a thread that logs never waits for the terminal or the disk. Lines go through a
//! bounded queue; when it is full, a line is dropped and counted, see [`LogDrops`].
//! Must never: end the process, read the environment (the configuration passes the level), or
//! install the logs as a side effect of anything but [`install`].

use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::{Context, ensure};
use tracing::level_filters::LevelFilter;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::ecs_layer::{EcsLayer, Style};
use super::sink::{self, Queue};

pub use super::sink::LogDrops;

/// How long the end of the process waits for the last lines to be written. A pipe whose reader has
/// stopped reading must not keep the process from ending.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text if stdout is a terminal and no folder is set, JSON otherwise.
    #[default]
    Auto,
    /// Elastic Common Schema, one JSON object per line.
    Json,
    /// A line for people.
    Text,
}

/// The options of [`install`], already checked by the configuration.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The format of a line.
    pub format: LogFormat,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,sled=warn`.
    pub level: String,
    /// The folder of daily files `odometer.<date>.log` (UTC); stdout if `None`. It is created if
    /// missing and should hold nothing else: any file there named `odometer….log` may be removed.
    pub dir: Option<PathBuf>,
    /// The number of daily files to keep, including today's; 0 keeps all. 1 counts as 2: the
    /// appender removes old files *before* it opens today's, so a restart would remove today's
    /// lines.
    pub keep: usize,
    /// While the folder's file system has fewer bytes free than this, lines are dropped and
    /// counted: the store needs the space more.
    pub reserve_bytes: u64,
}

/// The installed logs. Dropping it flushes them, so main keeps it until the end.
#[must_use = "dropping this stops the logs"]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    drops: LogDrops,
    queue: Queue,
    /// Receives one message once the writer has written everything after the queue was closed.
    finished_rx: Receiver<()>,
}

/// Installs the logs for the whole process, and a panic hook that logs instead of printing.
///
/// # Errors
/// The level is invalid, the folder cannot be written, or the logs are installed already.
pub fn install(options: &LogOptions) -> anyhow::Result<Logs> {
    let (filter, filter_handle) = reload::Layer::new(parse_level(&options.level)?);
    let drops = LogDrops::default();
    let (queue, finished_rx) = open_sink(options, &drops)?;
    tracing_subscriber::registry()
        .with(filter)
        .with(EcsLayer::new(style(options), queue.clone()))
        .try_init()
        .context("logs are installed already")?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logs { filter: filter_handle, drops, queue, finished_rx })
}

impl Logs {
    /// Changes the level from the next event on. An invalid level changes nothing.
    ///
    /// # Errors
    /// The level is invalid; the message names the part that is wrong.
    pub fn set_level(&self, level: &str) -> anyhow::Result<()> {
        self.filter.reload(parse_level(level)?).context("the logs are closed")
    }

    /// A handle to the number of dropped lines, for the metrics.
    pub fn drops(&self) -> LogDrops {
        self.drops.clone()
    }

    /// Writes the queued lines, for up to two seconds. Events after this are counted as dropped.
    pub fn flush(self) {
        drop(self);
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.queue.close();
        if self.finished_rx.recv_timeout(FLUSH_TIMEOUT).is_err() {
            let lost = self.queue.len();
            let _ = writeln!(
                io::stderr(),
                "odometer: the log could not be written in time: \
                 its last {lost} lines or more are lost"
            );
        }
    }
}

/// Checks a level or a list of directives.
///
/// A bare word must be a level: tracing's own parser takes a typo such as `inof` for a module's
/// name and silently disables everything else.
///
/// # Errors
/// The message names the part that is wrong.
fn parse_level(level: &str) -> anyhow::Result<EnvFilter> {
    for part in level.split(',').map(str::trim) {
        let is_directive = part.contains(['=', '[']);
        ensure!(
            is_directive || (!part.is_empty() && part.parse::<LevelFilter>().is_ok()),
            "log level {part:?} must be one of off, error, warn, info, debug, trace or module=level"
        );
    }
    EnvFilter::try_new(level).with_context(|| format!("log level {level:?} cannot be read"))
}

fn style(options: &LogOptions) -> Style {
    let terminal = options.dir.is_none() && io::stdout().is_terminal();
    match options.format {
        LogFormat::Json => Style::Json,
        LogFormat::Auto if !terminal => Style::Json,
        LogFormat::Auto | LogFormat::Text => Style::Text { colour: terminal },
    }
}

fn open_sink(options: &LogOptions, drops: &LogDrops) -> anyhow::Result<(Queue, Receiver<()>)> {
    match &options.dir {
        Some(dir) => {
            let file = daily_file(dir, options.keep)?;
            sink::start(
                DiskReserveWriter { file, dir: dir.clone(), reserve_bytes: options.reserve_bytes },
                drops.clone(),
            )
        }
        None => sink::start(io::stdout(), drops.clone()),
    }
    .context("the log writer's thread could not be started")
}

/// A file writer that fails while the file system has less free space than the reserve: a peer
/// whose requests are all rejected and logged must not be able to fill the disk.
struct DiskReserveWriter<W> {
    file: W,
    dir: PathBuf,
    reserve_bytes: u64,
}

impl<W: Write> Write for DiskReserveWriter<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < self.reserve_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Creates and removes a file, to check that the folder is writable.
fn probe_writable(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".odometer-probe-{}", std::process::id()));
    std::fs::File::create(&path)?;
    std::fs::remove_file(path)
}

fn daily_file(dir: &Path, keep: usize) -> anyhow::Result<RollingFileAppender> {
    let keep = if keep == 0 { 0 } else { keep.max(2) };
    // Checked first: the appender prints its own errors to stderr instead of returning them.
    let probe = || -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        probe_writable(dir)
    };
    probe().with_context(|| format!("cannot write logs to {}", dir.display()))?;
    RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("odometer")
        .filename_suffix("log")
        .max_log_files(keep)
        .build(dir)
        .with_context(|| format!("cannot write logs to {}", dir.display()))
}

/// Logs a panic as one event. Whether the process continues is decided where the panic is caught.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = std::backtrace::Backtrace::capture();
    let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
    let thread = std::thread::current();
    tracing::error!(
        "event.action" = "panic",
        "event.outcome" = "failure",
        "error.type" = "panic",
        "error.message" = panic.payload_as_str().unwrap_or("a panic without a message"),
        "error.stack_trace" = captured.then(|| tracing::field::display(&backtrace)),
        "log.origin.file.name" = panic.location().map(|place| place.file()),
        "log.origin.file.line" = panic.location().map(|place| place.line()),
        "process.thread.name" = thread.name(),
        "a thread panicked"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn options(dir: &Path, level: &str) -> LogOptions {
        LogOptions {
            format: LogFormat::Auto,
            level: level.into(),
            dir: Some(dir.into()),
            keep: 3,
            reserve_bytes: 0,
        }
    }

    #[test]
    fn levels_are_checked_strictly() {
        for good in
            ["info", "OFF", "debug,sled=warn", "warn,odometer::store=trace", "odometer[span]=info"]
        {
            assert!(parse_level(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "info,,warn", "info,sled", "info,sled=loud"] {
            assert!(parse_level(bad).is_err(), "{bad}");
        }
    }

    /// One test, since the subscriber and the panic hook belong to the whole process.
    #[test]
    fn installed_logs_reload_catch_panics_and_flush_to_the_daily_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(install(&options(dir.path(), "inof")).is_err());
        let printing = std::panic::take_hook();
        let logs = install(&options(dir.path(), "info")).unwrap();
        assert!(install(&options(dir.path(), "info")).is_err(), "twice");

        tracing::debug!("hidden before");
        logs.set_level("debug").unwrap();
        tracing::debug!("shown");
        assert!(logs.set_level("dbug").is_err());
        tracing::debug!("shown too");
        logs.set_level("error").unwrap();
        tracing::info!("hidden after");
        let thread = std::thread::Builder::new().name("unlucky".into());
        assert!(thread.spawn(|| panic!("the \"reason\"\nin two lines")).unwrap().join().is_err());
        std::panic::set_hook(printing);
        let metrics = Metrics::new("", "", &[]);
        metrics.watch_log_drops(logs.drops());
        assert!(metrics.render().contains("odometer_log_lines_dropped_total 0\n"));
        logs.flush();

        let files: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        let name = files[0].file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with("odometer.2") && name.ends_with(".log"), "{name}");
        let text = std::fs::read_to_string(&files[0]).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ours: Vec<_> =
            lines.iter().filter(|line| line["log.logger"] == module_path!()).collect();
        assert_eq!(ours.len(), 2, "{text}");
        assert_eq!(
            (&ours[0]["message"], &ours[1]["message"]),
            (&"shown".into(), &"shown too".into())
        );
        let panic =
            lines.iter().find(|line| line["event.action"] == "panic").expect("the panic is logged");
        assert_eq!(panic["error.message"], "the \"reason\"\nin two lines");
        assert_eq!(panic["process.thread.name"], "unlucky");
        assert!(panic["log.origin.file.line"].is_u64());
    }

    #[test]
    fn auto_is_json_in_a_folder() {
        let dir = Path::new("somewhere");
        assert_eq!(style(&options(dir, "info")), Style::Json);
        assert_eq!(
            style(&LogOptions { format: LogFormat::Text, ..options(dir, "info") }),
            Style::Text { colour: false }
        );
    }
}
