//! Servers' programs: their jars as Maven resolves them, kept for all later runs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// What is fetched and by which name it is kept.
pub(crate) struct Package {
    /// The server: a folder of this name holds its versions.
    pub(crate) name: &'static str,
    /// Its version.
    pub(crate) version: &'static str,
    /// A Maven project that depends on all that is needed, with `VERSION` where the version goes.
    pub(crate) pom: &'static str,
}

/// Where servers are kept: `~/.cache/mainstem/servers`.
pub(crate) fn servers_dir() -> Result<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "tests know of no other place that says where caches are")]
    let (cache, home) = (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"));
    let cache = match (cache, home) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => anyhow::bail!("neither XDG_CACHE_HOME nor HOME says where servers are kept"),
    };
    Ok(cache.join("mainstem/servers"))
}

impl Package {
    /// The folder of the server's jars; fetched where it is not there yet. Processes that ask at the same time wait for
    /// the one that fetches.
    pub(crate) fn install(&self) -> Result<PathBuf> {
        let Package { name, version, pom } = *self;
        let dir = servers_dir()?.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        let libs = dir.join(format!("dist-{version}")).join("libs");
        let complete = libs.with_file_name(".complete");
        if complete.exists() {
            return Ok(libs);
        }
        let lock = File::create(dir.join("lock")).context("failed to open the installer's lock")?;
        lock.lock().context("failed to wait for the installer's lock")?;
        if complete.exists() {
            return Ok(libs);
        }
        let work = tempfile::tempdir_in(&dir).context("failed to make a folder to fetch into")?;
        let project = work.path().join("pom.xml");
        fs::write(&project, pom.replace("VERSION", version)).context("failed to write the Maven project")?;
        let fetched = work.path().join("dist/libs");
        let ran = Command::new("mvn")
            .args(["-q", "-B", "-ntp", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"])
            .arg(&project)
            .arg(format!("-DoutputDirectory={}", fetched.display()))
            .output()
            .context("failed to run mvn: scripts/setup.sh test installs it")?;
        ensure!(ran.status.success(), "mvn can't fetch {name} {version}:\n{}", String::from_utf8_lossy(&ran.stdout));
        fs::write(fetched.with_file_name(".complete"), "").context("failed to mark the server as complete")?;
        let dist = libs.parent().expect("the jars are in a folder");
        if dist.exists() {
            fs::remove_dir_all(dist).context("failed to remove what was fetched in part")?;
        }
        fs::rename(work.path().join("dist"), dist).context("failed to move what was fetched into its place")?;
        Ok(libs)
    }
}
