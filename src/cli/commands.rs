//! The commands, one function each. `serve` is the caller's.
//!
//! Job: [`run`] loads the configuration, calls the module that does the work, and prints its
//! result. Invariant: a command that failed says so in one line on stderr; the exit codes are those
//! of [`terminal`](super::terminal).
//! Must never: do the work itself, or install logs: what these commands say goes to the terminal.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::CommandFactory;
use clap_complete::Shell;

use super::terminal::{EXIT_CORRUPT, EXIT_REPAIRABLE};
use super::terminal::{confirm_delete, exit_code, exit_with_error, print_line, with_progress};
use super::{AdminArgs, Cli, Command, ConfigCommand, KeyCommand, TenantCommand};
use crate::admin::commands::{AdminRequest, TenantAction, send_request};
use crate::admin::table::render;
use crate::config::{Config, Flags};
use crate::store::embedded::backup::format::BackupError;
use crate::store::embedded::random_id;
use crate::store::embedded::recovery::restore::{self, RestoreError};
use crate::store::embedded::recovery::verify::{self, VerifyResult};
use crate::store::now_unix_s;
use crate::top::{self, TopOptions};
use crate::{admin, healthcheck};

/// Runs a command to its end. `serve` runs the server until it stops.
pub fn run(command: Command, serve: impl FnOnce(&Flags) -> Result<()>) -> ExitCode {
    exit_code(match command {
        Command::Serve(flags) => serve(&flags).map(|()| ExitCode::SUCCESS),
        Command::Healthcheck(flags) => healthcheck(&flags),
        Command::Verify(flags) => verify(&flags),
        Command::Backup { to, flags } => backup(&to, &flags),
        Command::Restore { from, verify: true, .. } => verify_backup(&from),
        Command::Restore { from, flags, .. } => restore(&from, &flags),
        Command::Top { once, interval, args } => {
            let options = TopOptions { once, json: args.json, interval };
            top(&args.flags, options)
        }
        Command::Tenant(command) => tenant(command),
        Command::Key(command) => key(command),
        Command::Config(ConfigCommand::Print(flags)) => print_config(&flags),
        Command::Completions { shell } => completions(shell),
        Command::Man => man(),
    })
}

fn healthcheck(flags: &Flags) -> Result<ExitCode> {
    let config = Config::load(flags)?;
    let state = healthcheck::run(&config)?;
    Ok(print_line(&state, ExitCode::SUCCESS))
}

fn verify(flags: &Flags) -> Result<ExitCode> {
    let config = Config::load(flags)?;
    let (text, code) = match verify::verify(&config.store.data_dir)? {
        VerifyResult::Clean(report) => (format!("clean: {report}"), ExitCode::SUCCESS),
        VerifyResult::Repairable(problem, source) => {
            let text = format!("repairable: {problem}; a start rebuilds the state from {source}");
            (text, ExitCode::from(EXIT_REPAIRABLE))
        }
        VerifyResult::Corrupt(problem) => {
            (format!("corrupt: {problem}"), ExitCode::from(EXIT_CORRUPT))
        }
    };
    Ok(print_line(&text, code))
}

fn backup(to: &Path, flags: &Flags) -> Result<ExitCode> {
    let config = Config::load(flags)?;
    let data_dir = &config.store.data_dir;
    let now_s = now_unix_s();
    let summary = with_progress(|progress| admin::backup::backup(data_dir, to, now_s, progress))?;
    Ok(print_line(&format!("{}: {summary}", to.display()), ExitCode::SUCCESS))
}

fn verify_backup(from: &Path) -> Result<ExitCode> {
    let result = with_progress(|progress| {
        let progress = &mut |count| progress(&format!("{count} records"));
        restore::verify_backup(from, progress)
    });
    match result {
        Ok(summary) => Ok(print_line(&format!("whole: {summary}"), ExitCode::SUCCESS)),
        Err(error @ RestoreError::Backup(_, BackupError::Bad { .. })) => {
            Ok(exit_with_error(&error.to_string(), EXIT_CORRUPT))
        }
        Err(error) => Err(error.into()),
    }
}

fn restore(from: &Path, flags: &Flags) -> Result<ExitCode> {
    let config = Config::load(flags)?;
    let (data_dir, segment_bytes) = (&config.store.data_dir, config.store.journal_segment_bytes);
    let new_store_id = random_id()?;
    let summary = with_progress(|progress| {
        let progress = &mut |count| progress(&format!("{count} records"));
        restore::restore(from, data_dir, new_store_id, segment_bytes, progress)
    })?;
    let text = format!(
        "{} restored: {summary}. Numbers issued after that are not in it and will be issued again.",
        data_dir.display()
    );
    Ok(print_line(&text, ExitCode::SUCCESS))
}

fn top(flags: &Flags, options: TopOptions) -> Result<ExitCode> {
    let config = Config::load(flags)?;
    top::run(&config.store.data_dir, options)?;
    Ok(ExitCode::SUCCESS)
}

fn tenant(command: TenantCommand) -> Result<ExitCode> {
    let (name, action, args) = match command {
        TenantCommand::List(args) => return admin_request(&args, &AdminRequest::ListTenants),
        TenantCommand::Show { name, args } => (name, TenantAction::Show, args),
        TenantCommand::Suspend { name, args } => (name, TenantAction::Suspend, args),
        TenantCommand::Resume { name, args } => (name, TenantAction::Resume, args),
        TenantCommand::Limit { name, rate, args } => (name, TenantAction::Limit(rate), args),
        TenantCommand::Delete { name, yes, args } => {
            if !yes && !confirm_delete(&name) {
                bail!("nothing was deleted; type the name to confirm, or use --yes");
            }
            (name, TenantAction::Delete, args)
        }
    };
    admin_request(&args, &AdminRequest::Tenant { name, action })
}

fn key(command: KeyCommand) -> Result<ExitCode> {
    let (name, action, args) = match command {
        KeyCommand::List { name, args } => (name, TenantAction::ListKeys, args),
        KeyCommand::Revoke { name, id, args } => (name, TenantAction::RevokeKey(id), args),
    };
    admin_request(&args, &AdminRequest::Tenant { name, action })
}

/// Sends an admin request to the running server and prints the rows of its response: a table on a
/// terminal, JSON elsewhere.
fn admin_request(args: &AdminArgs, request: &AdminRequest) -> Result<ExitCode> {
    let config = Config::load(&args.flags)?;
    let json = args.json || !std::io::stdout().is_terminal();
    let text = render(&send_request(&config.store.data_dir, request)?, json)?;
    if text.is_empty() {
        // A deletion has no rows; like `rm` it prints nothing.
        return Ok(ExitCode::SUCCESS);
    }
    Ok(print_line(text.trim_end(), ExitCode::SUCCESS))
}

fn print_config(flags: &Flags) -> Result<ExitCode> {
    let config = Config::load(flags)?;
    Ok(print_line(config.print().trim_end(), ExitCode::SUCCESS))
}

fn completions(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "odometer", &mut script);
    Ok(print_line(String::from_utf8_lossy(&script).trim_end(), ExitCode::SUCCESS))
}

fn man() -> Result<ExitCode> {
    clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}
