//! `mainstem limits`: says whether a file of limits is sound, and what hosts would get by it.

use std::{fmt::Display, io::Write, num::NonZeroU64, process::ExitCode};

use atproto::syntax::{HostName, SyntaxError};
use storage::limits::{HostLimits, Rules, Source};

use super::{Error as FileError, read};
use crate::cli::{LimitsArgs, LimitsCommand};

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a host's name.
    #[error("{value:?} is not a host's name")]
    Host {
        /// What was given.
        value: String,
        /// What is wrong with it.
        #[source]
        source: SyntaxError,
    },
    /// Nobody listens.
    #[error("failed to write")]
    Write(#[from] std::io::Error),
}

/// Runs the command.
pub fn run(args: &LimitsArgs, out: &mut impl Write) -> Result<ExitCode, Error> {
    match &args.command {
        LimitsCommand::Example => out.write_all(Rules::DEFAULT_TEXT.as_bytes())?,
        LimitsCommand::Check { file, hosts } => {
            let rules = read(file)?;
            let names = hosts
                .iter()
                .map(|value| HostName::parse(value).map_err(|source| Error::Host { value: value.clone(), source }));
            let names: Vec<HostName> = names.collect::<Result<_, _>>()?;
            let count = rules.len();
            writeln!(out, "{} is sound: {count} {}", file.display(), if count == 1 { "rule" } else { "rules" })?;
            for name in names {
                let (limits, source) = rules.of(&name, false);
                writeln!(out, "\n{name}: {}", describe(&source))?;
                write_limits(out, &limits)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(source: &Source) -> String {
    match source {
        Source::Rule(pattern) => format!("by the rule for {pattern:?}"),
        Source::Local | Source::Default => "by the default".to_owned(),
    }
}

fn write_limits(out: &mut impl Write, limits: &HostLimits) -> std::io::Result<()> {
    let HostLimits { events_per_second, events_per_hour, events_per_day, bytes_per_second, accounts_max } = *limits;
    let rate = |limit: Option<NonZeroU64>| text(limit);
    for (name, value) in [
        ("events_per_second", rate(events_per_second)),
        ("events_per_hour", rate(events_per_hour)),
        ("events_per_day", rate(events_per_day)),
        ("bytes_per_second", rate(bytes_per_second)),
        ("accounts_max", text(accounts_max)),
    ] {
        writeln!(out, "  {name:<18} {value}")?;
    }
    Ok(())
}

fn text(limit: Option<impl Display>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}
