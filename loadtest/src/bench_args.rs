//! The options that all measurements of a relay share, and what is done with them: which program, where its data goes,
//! where the figures go.

use std::{fmt::Display, path::PathBuf};

use anyhow::Context;
use clap::Args as ClapArgs;
use loadtest::bench::Folder;
use serde_json::Value;

/// The relay that is measured, and what becomes of the figures.
#[derive(ClapArgs)]
pub(crate) struct BenchArgs {
    /// The `mainstem` program, a release build.
    #[arg(long, value_name = "PATH")]
    pub(crate) relay: PathBuf,
    /// Where the relays' data goes; that disk is measured. The folder of temporary files, if not said.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Also write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also draw the figures, as SVG files in this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// More arguments for `mainstem run`, after `--`.
    #[arg(last = true)]
    pub(crate) relay_args: Vec<String>,
}

impl BenchArgs {
    /// A new folder for the relays' data, removed with its value.
    pub(crate) fn folder(&self) -> anyhow::Result<Folder> {
        let parent = self.folder.clone().unwrap_or_else(std::env::temp_dir);
        Folder::new(&parent).context("failed to make a folder for the relay's data")
    }

    /// Prints the figures, and writes them wherever else it was said.
    pub(crate) fn show(&self, report: &impl Display, json: &Value, plots: Vec<(&str, String)>) -> anyhow::Result<()> {
        println!("\n{report}");
        if let Some(file) = &self.json {
            let text = serde_json::to_string_pretty(json)?;
            std::fs::write(file, text + "\n").with_context(|| format!("failed to write {}", file.display()))?;
        }
        let Some(folder) = &self.plots else { return Ok(()) };
        std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        for (name, svg) in plots {
            let file = folder.join(name);
            std::fs::write(&file, svg).with_context(|| format!("failed to write {}", file.display()))?;
            println!("  drawn: {}", file.display());
        }
        Ok(())
    }
}
