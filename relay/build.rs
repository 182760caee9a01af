//! Tells the program which commit it is built from: that of the git repository it stands in, or `MAINSTEM_COMMIT`, where
//! it is built from files alone. A debug build says that it is one: it would be built anew for each commit.

use std::process::Command;

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts by the environment")]
fn main() {
    println!("cargo::rerun-if-env-changed=MAINSTEM_COMMIT");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let told = std::env::var("MAINSTEM_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(|| is_release.then(of_the_repository).flatten());
    let commit = commit.unwrap_or_else(|| if is_release { "unknown".to_owned() } else { "debug-build".to_owned() });
    println!("cargo::rustc-env=MAINSTEM_COMMIT={commit}");
}

fn of_the_repository() -> Option<String> {
    // It has a line more with each commit that is checked out.
    let log = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
