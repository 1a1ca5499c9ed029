//! The binary: parse arguments, install telemetry, run, exit code.
//!
//! Job: the command `serve` with its runtime, logs and signals; every other command is a function
//! of [`commands`]. Invariant: the logs are flushed before the process ends.
//! Must never: call `exit`; the exit code is what `main` returns (see [`odometer::cli::terminal`]).

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Result, bail};
use odometer::app::App;
use odometer::cli::{commands, terminal};
use odometer::config::{Config, Flags};
use odometer::http;
use odometer::telemetry::{LogFormat, Logs, install};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match terminal::parse_arguments() {
        Ok(cli) => commands::run(cli.command, serve),
        Err(exit_code) => exit_code,
    }
}

fn serve(flags: &Flags) -> Result<()> {
    let config = Config::load(flags)?;
    let logs = install(&config.log)?;
    // This thread serves the listeners without TLS; the workers have runtimes of their own.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    // On a terminal the same error is printed to stderr at the end.
    let log_failure = config.log.dir.is_some() || !std::io::stdout().is_terminal();
    tracing::info!(
        event.action = "starting",
        process.pid = std::process::id(),
        odometer.revision = env!("ODOMETER_GIT_REVISION"),
        "starting"
    );
    let result = runtime.block_on(run(flags, config, &logs));
    if let Err(error) = &result
        && log_failure
    {
        let message = format!("{error:#}");
        tracing::error!(
            event.action = "failed",
            event.outcome = "failure",
            error.message = %message,
            "the server stops because of a failure"
        );
    }
    // A thread that hangs in the kernel must not hold up the exit: acknowledged commits are on
    // disk.
    runtime.shutdown_background();
    logs.flush();
    result
}

async fn run(flags: &Flags, config: Config, logs: &Logs) -> Result<()> {
    let mut termination = Termination::listen()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let metrics = http::routes::metrics();
    metrics.watch_log_drops(logs.drops());
    let show_banner = config.log.format != LogFormat::Json;
    let app = App::open(config, metrics)?;
    if show_banner {
        terminal::print_banner(&app);
    }
    let (reload, reloads) = watch::channel(0);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = app.run_until(async { drop(stopped.await) }, reloads);
    tokio::pin!(serving);
    let mut stop = Some(stop);
    loop {
        tokio::select! {
            result = &mut serving => return result,
            () = termination.recv() => match stop.take() {
                Some(stop) => drop(stop.send(())),
                None => bail!("a second signal came: stopped without finishing"),
            },
            _ = hangup.recv() => {
                reload.send_modify(|times| *times += 1);
                reload_log_level(flags, logs);
            }
        }
    }
}

/// The signals that ask the process to stop.
struct Termination {
    term: Signal,
    int: Signal,
}

impl Termination {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// SIGHUP: reads the configuration again for the log level alone; other settings need a restart.
fn reload_log_level(flags: &Flags, logs: &Logs) {
    let config = Config::load(flags).map_err(anyhow::Error::from);
    match config.and_then(|config| logs.set_level(&config.log.level)) {
        Ok(()) => {
            tracing::info!(
                event.action = "log-level-reload",
                event.outcome = "success",
                "the log level was reloaded"
            )
        }
        Err(error) => tracing::error!(
            event.action = "log-level-reload",
            event.outcome = "failure",
            error.message = %error,
            "the log level could not be reloaded; it is unchanged"
        ),
    }
}
