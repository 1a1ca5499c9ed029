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

use clap::error::Error;
use clap::{Arg, ArgMatches, Args, FromArgMatches, Parser, Subcommand, value_parser};
use clap_complete::Shell;

use crate::config::{Flags, SETTINGS, Setting};

/// Version and git revision, as `odometer --version` shows them.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ODOMETER_GIT_REVISION"), ")");

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
    /// Serve the API until SIGTERM
    Serve(Flags),
    /// Ask the running server whether it is ready: /readyz on the ops listener, or on the public one if that is off
    ///
    /// Takes the same settings as `serve`, so that it finds the server in the same place. Exits 0 if ready, 1 if not.
    Healthcheck(Flags),
    /// Check the store of a stopped server: exits 0 if clean, 3 if a start rebuilds it, 4 if not
    ///
    /// Only the data folder matters; the other settings of `serve` are accepted so that both take the same file,
    /// environment and flags.
    #[command(mut_args(hide_other_settings))]
    Verify(Flags),
    /// Write a backup of everything, as of one commit, to a file
    ///
    /// Asks the running server, which goes on meanwhile, through the admin socket in its data folder; where none runs, reads the folder
    /// itself. The file is verified before it gets its name.
    #[command(mut_args(hide_other_settings))]
    Backup {
        /// The file to write; one that is there is replaced when the new one is complete
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// The settings
        #[command(flatten)]
        flags: Flags,
    },
    /// Make a new data folder from a backup
    ///
    /// The folder must be new or empty. It becomes a store of its own: numbers that were issued after the backup are issued again by it, so
    /// restore only what is lost.
    #[command(mut_args(hide_other_settings))]
    Restore {
        /// The backup
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Only check that the backup is whole: exits 0 if it is, 4 if not
        #[arg(long)]
        verify: bool,
        /// The settings
        #[command(flatten)]
        flags: Flags,
    },
    /// Show what the running server does: rates, latencies, commits, limits
    ///
    /// Asks through the admin socket, so it needs no ops listener. On a terminal it refreshes until it is interrupted; elsewhere, or with --json, it prints one
    /// JSON object a line.
    #[command(mut_args(hide_other_settings))]
    Top {
        /// One look, over one interval
        #[arg(long)]
        once: bool,
        /// Seconds between two looks, 0.1 to 3600
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
        interval: std::time::Duration,
        /// How and where
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Look after the tenants of the running server
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Look after a tenant's API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write a completion script to stdout
    Completions {
        /// The shell that it is for
        shell: Shell,
    },
    /// Write the manual page to stdout
    Man,
}

/// How rows are shown, and which server is asked.
#[derive(Debug, clap::Args)]
pub struct AdminArgs {
    /// JSON, one object a line, also on a terminal; where stdout is no terminal it is always JSON
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
    /// Show one
    #[command(mut_args(hide_other_settings))]
    Show {
        /// Its name
        name: String,
        /// How and where
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Refuse everything that it asks, with 403 tenant_suspended, until it is resumed
    #[command(mut_args(hide_other_settings))]
    Suspend {
        /// Its name
        name: String,
        /// How and where
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Take its requests again
    #[command(mut_args(hide_other_settings))]
    Resume {
        /// Its name
        name: String,
        /// How and where
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Delete it with its keys and counters, for good; its name is free again
    #[command(mut_args(hide_other_settings))]
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// How and where
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Set how many requests it may make, from the next one on
    #[command(mut_args(hide_other_settings))]
    Limit {
        /// Its name
        name: String,
        /// Such as 100/s:200, or off, or default for --tenant-rate-limit
        rate: String,
        /// How and where
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
        /// The tenant's name
        name: String,
        /// How and where
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Revoke a key: it is refused from the next request on
    #[command(mut_args(hide_other_settings))]
    Revoke {
        /// The tenant's name
        name: String,
        /// The key's id, the 16 digits behind odo_, or the whole key
        id: String,
        /// How and where
        #[command(flatten)]
        args: AdminArgs,
    },
}

/// The commands of `odometer config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting and where it comes from, as a valid odometer.toml
    Print(Flags),
}

const CONFIG_FLAG: &str = "config";

fn hide_other_settings(argument: Arg) -> Arg {
    let is_setting = SETTINGS.iter().any(|setting| setting.name == argument.get_id().as_str());
    let shown = !is_setting || argument.get_id() == "data-dir";
    argument.hide(!shown)
}

fn interval(text: &str) -> Result<std::time::Duration, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(std::time::Duration::from_secs_f64).ok_or_else(|| "expected seconds, from 0.1 to 3600".to_owned())
}

fn argument(setting: &'static Setting) -> Arg {
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    let help = format!("{} [default: {default}] [env: {}]", setting.help, setting.env_name());
    let argument = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.value_name)
        .help_heading(setting.heading)
        .help(help);
    if setting.is_switch() { argument.num_args(0..=1).default_missing_value("true") } else { argument }
}

impl Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file = Arg::new(CONFIG_FLAG)
            .long(CONFIG_FLAG)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("File of settings [default: ./odometer.toml if it exists] [env: ODOMETER_CONFIG]");
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
            assert_eq!(flags(arguments).values["allow-common-passwords"], expected, "{arguments:?}");
        }
    }

    #[test]
    fn the_help_shows_every_setting_under_its_heading() {
        let serve = help("serve");
        for setting in SETTINGS {
            assert!(serve.contains(&format!("--{} ", setting.name)) || setting.is_switch(), "{}", setting.name);
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
