//! The command line: what can be typed, and what the commands do.
//!
//! ```text
//! mod.rs  the commands and their arguments: clap types, one flag for each setting
//!   commands.rs  one function for each command        terminal.rs  errors, exit codes, banner
//! ```
//! Job: clap types. [`Flags`] becomes clap arguments here, generated from [`SETTINGS`], so that no
//! setting is listed twice; values stay strings, which [`crate::config`] checks together with the
//! other layers.
//! Invariant: every row of the table is a flag of every command that reads the configuration.
//! Must never: check a setting, or read the environment or a file.

pub mod commands;
pub mod terminal;

use std::path::PathBuf;
use std::time::Duration;

use clap::error::Error;
use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand, value_parser};
use clap_complete::Shell;

use crate::config::{Flags, SETTINGS, Setting};

/// Version and git revision, as `odometer --version` shows them.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("ODOMETER_GIT_REVISION"), ")");

/// Integers that go up by one, as a service: durable, unique, consecutive, over HTTPS
#[derive(Debug, Parser)]
#[command(name = "odometer", version = VERSION, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `odometer`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API until SIGTERM or SIGINT
    Serve(Flags),
    /// Check whether the running server is ready; exits 0 if it is, 1 if not
    ///
    /// Requests /readyz from the ops listener, or from the public listener if ops is off. Takes the
    /// settings of `serve`, so that it finds the server at the same address.
    Healthcheck(Flags),
    /// Check the store of a stopped server; exits 0 if clean, 3 if repairable, 4 if corrupt
    ///
    /// Reads every record in the data directory. Repairable means that the next start rebuilds the
    /// state from a backup and the journal. The other settings of `serve` are accepted, so that
    /// both commands can share flags, environment and file.
    #[command(mut_args(hide_other_settings))]
    Verify(Flags),
    /// Write a backup of the whole store, as of one commit, to a file
    ///
    /// Asks the running server through the admin socket in its data directory; the server keeps
    /// serving. If no server runs, reads the data directory. The file is verified before it gets
    /// its name.
    #[command(mut_args(hide_other_settings))]
    Backup {
        /// File to write; an existing one is replaced when the new one is complete
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// The settings
        #[command(flatten)]
        flags: Flags,
    },
    /// Create a new data directory from a backup
    ///
    /// The data directory must be missing or empty. It becomes a store of its own, which issues the
    /// numbers after the backup again: restore only what is lost.
    #[command(mut_args(hide_other_settings))]
    Restore {
        /// Backup to read
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Only check the backup; exits 0 if it is complete, 4 if it is corrupt
        #[arg(long)]
        verify: bool,
        /// The settings
        #[command(flatten)]
        flags: Flags,
    },
    /// Show what the running server does: rates, latencies, commits, limits
    ///
    /// Asks through the admin socket, so it needs no ops listener. On a terminal it refreshes until
    /// it is interrupted; elsewhere, or with --json, it prints one JSON object per line.
    #[command(mut_args(hide_other_settings))]
    Top {
        /// Print one sample and exit
        #[arg(long)]
        once: bool,
        /// Seconds between two samples, 0.1 to 3600
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
        interval: Duration,
        /// Output format and data directory
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Manage tenants
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Manage a tenant's API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a shell completion script
    Completions {
        /// Shell to print it for
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

/// Output format and data directory.
#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// Print JSON, one object per line; the default where stdout is not a terminal
    #[arg(long)]
    pub json: bool,
    /// The settings
    #[command(flatten)]
    pub flags: Flags,
}

/// The commands of `odometer tenant`.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// List all tenants
    #[command(mut_args(hide_other_settings))]
    List(AdminArgs),
    /// Show a tenant
    #[command(mut_args(hide_other_settings))]
    Show {
        /// Tenant name
        name: String,
        /// Output format and data directory
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Suspend a tenant: all requests get 403 tenant_suspended
    #[command(mut_args(hide_other_settings))]
    Suspend {
        /// Tenant name
        name: String,
        /// Output format and data directory
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Resume a suspended tenant
    #[command(mut_args(hide_other_settings))]
    Resume {
        /// Tenant name
        name: String,
        /// Output format and data directory
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Delete a tenant with its keys and counters, permanently; the name becomes free
    #[command(mut_args(hide_other_settings))]
    Delete {
        /// Tenant name
        name: String,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
        /// Output format and data directory
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Set a tenant's rate limit, from the next request on
    #[command(mut_args(hide_other_settings))]
    Limit {
        /// Tenant name
        name: String,
        /// Rate such as 100/s:200, off for no limit, or default for --tenant-rate-limit
        rate: String,
        /// Output format and data directory
        #[command(flatten)]
        args: AdminArgs,
    },
}

/// The commands of `odometer key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List a tenant's keys, without their secrets
    #[command(mut_args(hide_other_settings))]
    List {
        /// Tenant name
        name: String,
        /// Output format and data directory
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Revoke a key: it is refused from the next request on
    #[command(mut_args(hide_other_settings))]
    Revoke {
        /// Tenant name
        name: String,
        /// Key id, the 16 hexadecimal digits after odo_, or the whole key
        id: String,
        /// Output format and data directory
        #[command(flatten)]
        args: AdminArgs,
    },
}

/// The commands of `odometer config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting and its origin, as a valid odometer.toml
    Print(Flags),
}

const CONFIG_FLAG: &str = "config";

/// Of the settings, the help of most commands shows only the one that matters to them. The others
/// are still accepted, so that all commands can share flags and file.
fn hide_other_settings(argument: Arg) -> Arg {
    let is_setting = SETTINGS.iter().any(|setting| setting.name == argument.get_id().as_str());
    let shown = !is_setting || argument.get_id() == "data-dir";
    argument.hide(!shown)
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    match seconds.filter(|seconds| (0.1..=3600.0).contains(seconds)) {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds)),
        None => Err("expected seconds, from 0.1 to 3600".to_owned()),
    }
}

fn argument(setting: &'static Setting) -> Arg {
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    let help = format!("{} [default: {default}] [env: {}]", setting.help, setting.env_name());
    let argument = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value_name)
        .help_heading(setting.heading)
        .help(help);
    match setting.is_switch() {
        true => argument.num_args(0..=1).default_missing_value("true"),
        false => argument,
    }
}

impl Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file = Arg::new(CONFIG_FLAG)
            .long(CONFIG_FLAG)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Settings file [default: ./odometer.toml if it exists] [env: ODOMETER_CONFIG]");
        command.arg(file).args(SETTINGS.iter().map(argument))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        if let Some(file) = matches.get_one::<PathBuf>(CONFIG_FLAG) {
            self.file = Some(file.clone());
        }
        for setting in SETTINGS {
            if let Some(text) = matches.get_one::<String>(setting.name) {
                self.values.insert(setting.name, text.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn flags(arguments: &[&str]) -> Flags {
        match Cli::try_parse_from([&["odometer", "serve"], arguments].concat()).unwrap().command {
            Command::Serve(flags) => flags,
            other => panic!("{other:?}"),
        }
    }

    fn help(command: &str) -> String {
        Cli::try_parse_from(["odometer", command, "--help"]).unwrap_err().to_string()
    }

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn typed_flags_arrive_and_others_do_not() {
        let flags = flags(&["--config", "f.toml", "--listen", "[::1]:1", "--trusted-proxies", ""]);
        assert_eq!(flags.file, Some("f.toml".into()));
        assert_eq!(
            flags.values.into_iter().collect::<Vec<_>>(),
            [("listen", "[::1]:1".to_owned()), ("trusted-proxies", String::new())]
        );
    }

    #[test]
    fn a_switch_needs_no_value() {
        for (arguments, expected) in [
            (&["--allow-common-passwords"][..], "true"),
            (&["--allow-common-passwords", "false"], "false"),
            (&["--allow-common-passwords=false", "--workers", "2"], "false"),
            (&["--allow-common-passwords", "--workers", "2"], "true"),
        ] {
            let flags = flags(arguments);
            assert_eq!(flags.values["allow-common-passwords"], expected, "{arguments:?}");
        }
    }

    #[test]
    fn the_help_shows_every_setting_under_its_heading() {
        let serve = help("serve");
        for setting in SETTINGS {
            let shown = serve.contains(&format!("--{} ", setting.name));
            assert!(shown || setting.is_switch(), "{}", setting.name);
            assert!(serve.contains(&format!("{}:\n", setting.heading)), "{}", setting.heading);
        }
        let verify = help("verify");
        assert!(verify.contains("--data-dir <DIR>") && !verify.contains("--listen"), "{verify}");
    }

    #[test]
    fn the_version_names_the_revision() {
        let version = Cli::try_parse_from(["odometer", "--version"]).unwrap_err().to_string();
        assert_eq!(version.trim_end(), format!("odometer {VERSION}"));
    }
}
