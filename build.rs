//! Puts the git revision into the binary, so that `odometer --version` names the code it was built from.
//! A build outside a checkout says `unknown`; it must never fail because git is missing.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs");
    println!("cargo:rerun-if-env-changed=ODOMETER_GIT_REVISION");
    #[expect(
        clippy::disallowed_methods,
        reason = "a build script has no configuration but the environment"
    )]
    let revision = std::env::var("ODOMETER_GIT_REVISION").ok().or_else(git_revision);
    println!("cargo:rustc-env=ODOMETER_GIT_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}

fn git_revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let revision = text.trim();
    (output.status.success() && !revision.is_empty()).then(|| revision.to_owned())
}
