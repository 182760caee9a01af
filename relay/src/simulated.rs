//! The simulated network of `--simulate`, and the folder for what is relayed of it.
//!
//! A simulated network begins anew with each process, and so does its folder: seqs, cursors and repos of another run
//! would only be about hosts that are gone. A folder is emptied only where a file in it says that this program made it
//! for that.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use loadtest::network::{self, Network};
use runtime::clock::Clock;

/// The file that says what the folder is for.
const MARK: &str = "SIMULATED";

/// The simulated network can't be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder holds something else.
    #[error("{} is not empty and was not made for a simulated network; name another folder with --data-dir", .0.display())]
    NotOurs(PathBuf),
    /// The folder can't be made.
    #[error("failed to prepare {} (--data-dir)", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The network itself.
    #[error("failed to start the simulated network")]
    Network(#[from] network::Error),
}

/// Empties the folder, or makes it.
pub fn prepare(dir: &Path) -> Result<(), Error> {
    let failed = |source| Error::Folder { path: dir.to_owned(), source };
    let mark = dir.join(MARK);
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) if mark.is_file() => fs::remove_dir_all(dir).map_err(failed)?,
        Ok(false) => return Err(Error::NotOurs(dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    fs::create_dir_all(dir).map_err(failed)?;
    fs::write(&mark, "What is in this folder is made up, and goes when `mainstem run --simulate` starts again.\n")
        .map_err(failed)
}

/// Starts the network: a few hosts, their accounts, and a directory, all on this machine.
pub async fn start(clock: Clock) -> Result<Network, Error> {
    // Another story each time.
    let config = network::Config { seed: clock.now_micros(), ..network::Config::default() };
    Ok(Network::start(config, clock).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_folder_is_emptied() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("data/simulated");
        prepare(&dir).unwrap();
        fs::write(dir.join("old"), "x").unwrap();
        prepare(&dir).unwrap();
        assert!(!dir.join("old").exists() && dir.join(MARK).is_file());
        fs::remove_file(dir.join(MARK)).unwrap();
        prepare(&dir).unwrap();
        fs::remove_file(dir.join(MARK)).unwrap();
        fs::write(dir.join("precious"), "x").unwrap();
        assert!(matches!(prepare(&dir), Err(Error::NotOurs(_))));
        assert!(dir.join("precious").exists());
    }
}
