//! Parse, install telemetry, run, exit code: a table of contents.
//!
//! Exit codes: 0 fine, 64 bad configuration, 1 failure, 3 and 4 as `verify` says. Must never: exit before the logs are flushed.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use odometer::admin::backup::backup;
use odometer::admin::commands::{Question, TenantAction, ask};
use odometer::admin::table::show;
use odometer::app::App;
use odometer::cli::{AdminArgs, Cli, Command, ConfigCommand, KeyCommand, TenantCommand, VERSION};
use odometer::config::{Config, Flags};
use odometer::healthcheck;
use odometer::http;
use odometer::store::embedded::backup::format::BackupError;
use odometer::store::embedded::random_id;
use odometer::store::embedded::recovery::restore::{RestoreError, restore, verify_backup};
use odometer::store::embedded::recovery::verify::{VerifyResult, verify};
use odometer::store::now_unix_s;
use odometer::telemetry::{LogFormat, Logs, install};
use odometer::top::{self, TopOptions};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The time between two changes of a progress line.
const PROGRESS: Duration = Duration::from_millis(100);
const FAILURE: u8 = 1;
const EXIT_REPAIRABLE: u8 = 3;
const EXIT_CORRUPT: u8 = 4;
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    match cli.command {
        Command::Serve(flags) => with_config(&flags, |config| serve(&flags, config)),
        Command::Healthcheck(flags) => with_config(&flags, |config| match healthcheck::run(&config) {
            Ok(word) => print_line(&word, ExitCode::SUCCESS),
            Err(error) => fail(&error),
        }),
        Command::Verify(flags) => with_config(&flags, |config| match verify(&config.data_dir) {
            Ok(VerifyResult::Clean(report)) => print_line(&format!("clean: {report}"), ExitCode::SUCCESS),
            Ok(VerifyResult::Repairable(problem, base)) => print_line(
                &format!("healable: {problem}; a start rebuilds the state from {base}"),
                ExitCode::from(EXIT_REPAIRABLE),
            ),
            Ok(VerifyResult::Corrupt(problem)) => {
                print_line(&format!("damaged: {problem}"), ExitCode::from(EXIT_CORRUPT))
            }
            Err(error) => fail(&error.into()),
        }),
        Command::Backup { to, flags } => with_config(&flags, |config| {
            let result = with_progress(|progress| backup(&config.data_dir, &to, now_unix_s(), progress));
            match result {
                Ok(summary) => print_line(&format!("{}: {summary}", to.display()), ExitCode::SUCCESS),
                Err(error) => fail(&error),
            }
        }),
        Command::Restore { from, verify: true, .. } => {
            match with_progress(|progress| verify_backup(&from, &mut |count| progress(&format!("{count} records")))) {
                Ok(summary) => print_line(&format!("whole: {summary}"), ExitCode::SUCCESS),
                Err(error @ RestoreError::Backup(_, BackupError::Bad { .. })) => {
                    exit_with_error(&error.to_string(), EXIT_CORRUPT)
                }
                Err(error) => fail(&error.into()),
            }
        }
        Command::Restore { from, flags, .. } => with_config(&flags, |config| restore_into(&from, &config)),
        Command::Top { once, interval, args } => with_config(&args.flags, |config| {
            match top::run(&config.data_dir, TopOptions { once, json: args.json, interval }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }),
        Command::Tenant(command) => ask_about_tenants(command),
        Command::Key(KeyCommand::List { name, args }) => {
            ask_server(&args, &tenant_request(name, TenantAction::ListKeys))
        }
        Command::Key(KeyCommand::Revoke { name, id, args }) => {
            ask_server(&args, &tenant_request(name, TenantAction::RevokeKey(id)))
        }
        Command::Config(ConfigCommand::Print(flags)) => {
            with_config(&flags, |config| print_line(config.print().trim_end(), ExitCode::SUCCESS))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "odometer", &mut script);
            print_line(String::from_utf8_lossy(&script).trim_end(), ExitCode::SUCCESS)
        }
        Command::Man => match clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error.into()),
        },
    }
}

fn tenant_request(name: String, action: TenantAction) -> Question {
    Question::Tenant { name, action }
}

fn ask_about_tenants(command: TenantCommand) -> ExitCode {
    let (name, action, args) = match command {
        TenantCommand::List(args) => return ask_server(&args, &Question::Tenants),
        TenantCommand::Show { name, args } => (name, TenantAction::Show, args),
        TenantCommand::Suspend { name, args } => (name, TenantAction::Suspend, args),
        TenantCommand::Resume { name, args } => (name, TenantAction::Resume, args),
        TenantCommand::Limit { name, rate, args } => (name, TenantAction::Limit(rate), args),
        TenantCommand::Delete { name, yes, args } => {
            if !yes && !confirm_delete(&name) {
                return exit_with_error("nothing was deleted; type the name to confirm, or use --yes", FAILURE);
            }
            (name, TenantAction::Delete, args)
        }
    };
    ask_server(&args, &tenant_request(name, action))
}

/// Asks on the terminal whether a tenant is to go; without one, nobody confirms.
fn confirm_delete(name: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    let question = format!("This deletes {name} with all its counters and keys. Type the name to go on: ");
    let mut typed = String::new();
    let asked = std::io::stderr().write_all(question.as_bytes());
    asked.is_ok() && std::io::stdin().read_line(&mut typed).is_ok() && typed.trim_end() == name
}

fn ask_server(args: &AdminArgs, question: &Question) -> ExitCode {
    with_config(&args.flags, |config| {
        let json = args.json || !std::io::stdout().is_terminal();
        match ask(&config.data_dir, question).and_then(|rows| show(&rows, json)) {
            // What has no rows is done, and that says it all.
            Ok(text) if text.is_empty() => ExitCode::SUCCESS,
            Ok(text) => print_line(text.trim_end(), ExitCode::SUCCESS),
            Err(error) => fail(&error),
        }
    })
}

fn restore_into(from: &Path, config: &Config) -> ExitCode {
    let (data_dir, segment_bytes) = (&config.data_dir, config.journal_segment_bytes);
    let fresh = match random_id() {
        Ok(fresh) => fresh,
        Err(error) => return fail(&error.into()),
    };
    let result = with_progress(|progress| {
        restore(from, data_dir, fresh, segment_bytes, &mut |count| progress(&format!("{count} records")))
    });
    match result {
        Ok(summary) => {
            let text = format!(
                "{} restored: {summary}. Numbers issued after that are not in it and will be issued again.",
                data_dir.display()
            );
            print_line(&text, ExitCode::SUCCESS)
        }
        Err(error) => fail(&error.into()),
    }
}

/// Shows on a terminal how far something is.
fn with_progress<T>(run: impl FnOnce(&mut dyn FnMut(&str)) -> T) -> T {
    let mut stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return run(&mut |_| {});
    }
    let mut shown: Option<Instant> = None;
    let result = run(&mut |text| {
        if shown.is_none_or(|at| at.elapsed() >= PROGRESS) {
            shown = Some(Instant::now());
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    });
    let _ = stderr.write_all(b"\r\x1b[K");
    result
}

/// Help and version are no errors; a command alone gets the help; everything else is one line.
fn usage_error(error: &clap::Error) -> ExitCode {
    let asked_for_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let nothing_typed = asked_for_help && std::env::args().len() == 1;
    if !error.use_stderr() || nothing_typed {
        // A pipe that was closed is not ours to report.
        let _ = error.print();
        return if nothing_typed { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
    }
    let text = error.to_string();
    let what = match text.split("\n\n").next() {
        _ if asked_for_help => "a command is missing",
        Some(first) => first.trim_start_matches("error: "),
        None => "the command line can not be read",
    };
    exit_with_error(&format!("{what} (see odometer --help)"), EXIT_USAGE)
}

fn with_config(flags: &Flags, run: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::load(flags) {
        Ok(config) => run(config),
        Err(error) => exit_with_error(&error.to_string(), EXIT_USAGE),
    }
}

fn serve(flags: &Flags, config: Config) -> ExitCode {
    let logs = match install(&config.log) {
        Ok(logs) => logs,
        Err(error) => return fail(&error),
    };
    // The Apps of the plain listeners are served on this thread.
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    // People on a terminal read the same on stderr.
    let to_programs = config.log.dir.is_some() || !std::io::stdout().is_terminal();
    tracing::info!(
        event.action = "starting",
        process.pid = std::process::id(),
        odometer.revision = env!("ODOMETER_GIT_REVISION"),
        "starting"
    );
    let result = runtime.block_on(run(flags, config, &logs));
    if let Err(error) = &result
        && to_programs
    {
        tracing::error!(event.action = "failed", event.outcome = "failure", error.message = %format!("{error:#}"),
            "the server ends with a failure");
    }
    // A thread that hangs in the kernel must not keep the process; everything that was answered is on disk.
    runtime.shutdown_background();
    logs.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(flags: &Flags, config: Config, logs: &Logs) -> anyhow::Result<()> {
    let mut terminate = Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? };
    let mut hangup = signal(SignalKind::hangup())?;
    let metrics = http::routes::metrics();
    metrics.watch_log_drops(logs.drops());
    let show_banner = config.log.format != LogFormat::Json;
    let app = App::open(config, metrics)?;
    if show_banner {
        print_banner(&app);
    }
    let (reload, reloads) = watch::channel(0);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = app.run_until(async { drop(stopped.await) }, reloads);
    tokio::pin!(serving);
    let mut stop = Some(stop);
    loop {
        tokio::select! {
            result = &mut serving => return result,
            () = terminate.wait() => match stop.take() {
                Some(stop) => drop(stop.send(())),
                None => anyhow::bail!("a second signal came: stopped without finishing"),
            },
            _ = hangup.recv() => {
                reload.send_modify(|times| *times += 1);
                reload_log_level(flags, logs);
            }
        }
    }
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

fn reload_log_level(flags: &Flags, logs: &Logs) {
    let result = Config::load(flags).map_err(anyhow::Error::from).and_then(|config| logs.set_level(&config.log.level));
    if result.is_ok() {
        tracing::info!(event.action = "log-level-reload", event.outcome = "success", "the log level was read again");
    }
    if let Err(error) = result {
        tracing::error!(event.action = "log-level-reload", event.outcome = "failure", error.message = %error,
            "the log level stays as it was");
    }
}

fn print_banner(app: &App) {
    let (addresses, tls) = (app.addresses(), app.tls());
    let (ip, port) = (addresses.public.ip(), app.public_port());
    let is_local = ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST;
    let url = if is_local {
        if port == 443 { "https://localhost".to_owned() } else { format!("https://localhost:{port}") }
    } else {
        format!("https://{}", SocketAddr::new(ip.to_canonical(), port))
    };
    let (kind, trust) = if tls.is_self_signed() {
        (" (self-signed)", format!("--cacert {} ", shell_word(&tls.cert_file().display().to_string())))
    } else {
        ("", String::new())
    };
    let ops = addresses.ops.map_or_else(|| "off".to_owned(), |ops| format!("http://{ops}/metrics"));
    let text = format!(
        "\n  odometer {VERSION}\n\n  API          {url}\n  metrics      {ops}\n  certificate  {}{kind}\n  SHA-256      {}\n\n  \
         Try it: register, then ask for the next integer.\n\n  \
         KEY=$(curl -sS {trust}-d username=me-$RANDOM -d password=correct-horse-battery {url}/users/create | grep -o 'odo_[0-9a-f_]*')\n  \
         curl -sS {trust}-X PUT -H \"Authorization: Bearer $KEY\" {url}/api/v1/integer/increment\n\n",
        tls.cert_file().display(),
        tls.fingerprint(),
    );
    let mut stderr = std::io::stderr();
    let bold = stderr.is_terminal();
    let text = if bold { text.replacen("odometer", "\x1b[1modometer\x1b[0m", 1) } else { text };
    let _ = stderr.write_all(text.as_bytes());
}

/// Quotes what a shell would split.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=@%:,".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn print_line(text: &str, code: ExitCode) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::from(FAILURE),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    exit_with_error(&format!("{error:#}"), FAILURE)
}

fn exit_with_error(text: &str, code: u8) -> ExitCode {
    let one_line = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let _ = writeln!(std::io::stderr(), "odometer: {one_line}");
    ExitCode::from(code)
}
