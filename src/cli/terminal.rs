//! What the binary shows and asks on a terminal, and its exit codes.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | success |
//! | 1 | failure |
//! | 3 | `verify`: not as it was written, and a start rebuilds it |
//! | 4 | `verify`, `restore --verify`: corrupt |
//! | 64 | command line or configuration (`EX_USAGE`) |
//!
//! Job: usage errors, error lines, confirmation, progress line and banner.
//! Invariant: an error is one line on stderr that starts with `odometer: `.
//! Must never: end the process, or panic because stdout is closed.

use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use clap::error::ErrorKind;

use super::{Cli, VERSION};
use crate::app::App;
use crate::config::ConfigError;

/// Shortest time between two updates of a progress line.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Any failure that has no code of its own.
pub const EXIT_FAILURE: u8 = 1;
/// The store is not as it was written, and a start rebuilds it.
pub const EXIT_REPAIRABLE: u8 = 3;
/// The store or the backup is not as it was written, and nothing rebuilds it.
pub const EXIT_CORRUPT: u8 = 4;
/// The command line or the configuration is wrong: `EX_USAGE` of sysexits.h.
pub const EXIT_USAGE: u8 = 64;

/// The command line of this process.
///
/// # Errors
/// The exit code after help, version or a usage error was printed.
pub fn parse_arguments() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| usage_error(&error))
}

/// Help and version are no errors; the program's name alone gets the help; the rest is one line.
fn usage_error(error: &clap::Error) -> ExitCode {
    let asked_for_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let nothing_typed = asked_for_help && std::env::args().len() == 1;
    if !error.use_stderr() || nothing_typed {
        // A reader that closed the pipe has seen enough.
        let _ = error.print();
        return if nothing_typed { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
    }
    let text = error.to_string();
    let what = match text.split("\n\n").next() {
        _ if asked_for_help => "a command is missing",
        Some(first) => first.trim_start_matches("error: "),
        None => "the command line cannot be read",
    };
    exit_with_error(&format!("{what} (see odometer --help)"), EXIT_USAGE)
}

/// The exit code of a command; an error is printed first.
#[must_use]
pub fn exit_code(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        let code = if error.is::<ConfigError>() { EXIT_USAGE } else { EXIT_FAILURE };
        exit_with_error(&format!("{error:#}"), code)
    })
}

/// Prints an error as one line to stderr; the exit code.
pub(super) fn exit_with_error(text: &str, code: u8) -> ExitCode {
    let one_line = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let _ = writeln!(std::io::stderr(), "odometer: {one_line}");
    ExitCode::from(code)
}

/// Prints a line to stdout; `code`, or a failure if stdout is closed.
pub(super) fn print_line(text: &str, code: ExitCode) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::from(EXIT_FAILURE),
    }
}

/// Asks for the tenant's name before it is deleted. Where stdin is no terminal, the answer is no.
pub(super) fn confirm_delete(name: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    let question =
        format!("This deletes {name} with all its counters and keys. Type the name to confirm: ");
    let mut typed = String::new();
    let asked = std::io::stderr().write_all(question.as_bytes());
    asked.is_ok() && std::io::stdin().read_line(&mut typed).is_ok() && typed.trim_end() == name
}

/// Runs a long task, and shows its progress as one changing line on stderr, if that is a terminal.
pub(super) fn with_progress<T>(run: impl FnOnce(&mut dyn FnMut(&str)) -> T) -> T {
    const CLEAR_LINE: &str = "\r\x1b[K";
    let mut stderr = std::io::stderr();
    if !stderr.is_terminal() {
        return run(&mut |_| {});
    }
    let mut last_shown: Option<Instant> = None;
    let result = run(&mut |text| {
        if last_shown.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
            last_shown = Some(Instant::now());
            let _ = write!(std::io::stderr(), "{CLEAR_LINE}{text}");
        }
    });
    let _ = stderr.write_all(CLEAR_LINE.as_bytes());
    result
}

/// Prints addresses, certificate and two commands to try to stderr.
pub fn print_banner(app: &App) {
    let (addresses, tls) = (app.addresses(), app.tls());
    let url = base_url(addresses.public, addresses.public_port);
    let certificate = tls.cert_file().display().to_string();
    let (kind, trust) = if tls.is_self_signed() {
        (" (self-signed)", format!("--cacert {} ", shell_word(&certificate)))
    } else {
        ("", String::new())
    };
    let metrics = match addresses.ops {
        Some(ops) => format!("http://{ops}/metrics"),
        None => "off".to_owned(),
    };
    let fingerprint = tls.fingerprint();
    let account = "-d username=me-$RANDOM -d password=correct-horse-battery";
    let text = format!(
        r#"
  odometer {VERSION}

  API          {url}
  metrics      {metrics}
  certificate  {certificate}{kind}
  SHA-256      {fingerprint}

  Try it: register, then ask for the next integer.

  KEY=$(curl -sS {trust}{account} {url}/users/create | grep -o 'odo_[0-9a-f_]*')
  curl -sS {trust}-X PUT -H "Authorization: Bearer $KEY" {url}/api/v1/integer/increment

"#
    );
    let mut stderr = std::io::stderr();
    let bold = stderr.is_terminal();
    let text = if bold { text.replacen("odometer", "\x1b[1modometer\x1b[0m", 1) } else { text };
    let _ = stderr.write_all(text.as_bytes());
}

/// The URL at which a client on this machine reaches the public listener.
fn base_url(address: SocketAddr, port: u16) -> String {
    let ip = address.ip();
    // The self-signed certificate names localhost, whichever address of these two it listens on.
    if ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST {
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        return format!("https://localhost{port}");
    }
    format!("https://{}", SocketAddr::new(ip.to_canonical(), port))
}

/// Quotes what a shell would split or expand.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=@%:,".contains(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_only_if_a_shell_would_change_it() {
        assert_eq!(shell_word("/srv/data/tls/cert.pem"), "/srv/data/tls/cert.pem");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn the_url_fits_the_address_and_the_port() {
        for (address, port, url) in [
            ("127.0.0.1:1", 8443, "https://localhost:8443"),
            ("0.0.0.0:1", 443, "https://localhost"),
            ("[::1]:1", 8443, "https://localhost:8443"),
            ("127.0.0.2:1", 8443, "https://127.0.0.2:8443"),
            ("[::ffff:10.0.0.1]:1", 8443, "https://10.0.0.1:8443"),
            ("[fd00::1]:1", 443, "https://[fd00::1]:443"),
        ] {
            assert_eq!(base_url(address.parse().unwrap(), port), url);
        }
    }
}
