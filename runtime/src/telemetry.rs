//! Logs: lines for people on a terminal, JSON for machines elsewhere.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError, util::TryInitError};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

/// The form of the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people where standard error is a terminal, else JSON.
    #[default]
    Auto,
    /// One line a record, coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not a list of directives.
    #[error("invalid log filter {filter:?}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Another subscriber is there already.
    #[error("logs are set up already")]
    Already(#[from] TryInitError),
}

/// Sends the process's logs to standard error, so that standard output stays for a command's result. `filter` holds
/// directives such as `info,crawler=debug`.
pub fn init(filter: &str, format: Format) -> Result<(), Error> {
    let filter =
        EnvFilter::builder().parse(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })?;
    let terminal = io::stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    if json {
        registry.with(layer.json().flatten_event(true)).try_init()?;
    } else {
        registry.with(layer.with_ansi(terminal)).try_init()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_and_logs_are_set_up_once() {
        let error = init("info,crawler=loud", Format::Auto).unwrap_err();
        assert_eq!(error.to_string(), "invalid log filter \"info,crawler=loud\"");
        init("info,crawler=debug", Format::Json).unwrap();
        assert!(matches!(init("info", Format::Text), Err(Error::Already(_))));
    }
}
