//! Traffic that was generated once and is played again and again.

use std::path::{Path, PathBuf};

use super::Error;
use crate::traffic::{
    Folder,
    generate::{Progress, generate},
    profile::Profile,
};

/// The folder with the traffic of `profile`, under `parent`; it is generated if it isn't there. A folder is there whole
/// or not at all: it gets its name when it is done.
pub fn traffic(profile: &Profile, parent: &Path, progress: impl Fn(&str)) -> Result<PathBuf, Error> {
    let json = serde_json::to_string(profile).expect("numbers under texts are JSON");
    let folder = parent.join(format!("{:08x}", crc32c::crc32c(json.as_bytes())));
    // Another profile of the same checksum, or another form of folder, gives way.
    match Folder::open(&folder) {
        Ok(found) if found.manifest().profile == *profile => return Ok(folder),
        Ok(_) | Err(_) => {}
    }
    let making = parent.join(format!("making-{}", std::process::id()));
    if making.exists() {
        std::fs::remove_dir_all(&making).map_err(Error::Cache)?;
    }
    generate(profile, &making, |Progress { doing, done, all, per_second }| {
        progress(&format!("traffic: {doing}: {done} of {all}, {per_second:.0}/s"));
    })?;
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(Error::Cache)?;
    }
    std::fs::rename(&making, &folder).map_err(Error::Cache)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_made_once_for_each_profile() {
        let parent = tempfile::tempdir().unwrap();
        let mut profile = Profile::find(Path::new("small")).unwrap();
        (profile.repos, profile.records, profile.commits) = (4, 2, 10);
        let first = traffic(&profile, parent.path(), |_| {}).unwrap();
        let made = std::fs::metadata(first.join("manifest.json")).unwrap().modified().unwrap();
        assert_eq!(traffic(&profile, parent.path(), |_| {}).unwrap(), first);
        assert_eq!(std::fs::metadata(first.join("manifest.json")).unwrap().modified().unwrap(), made);
        profile.seed += 1;
        let second = traffic(&profile, parent.path(), |_| {}).unwrap();
        assert_ne!(second, first);
        // What is left of one that was interrupted is no traffic.
        std::fs::remove_file(second.join("manifest.json")).unwrap();
        assert_eq!(traffic(&profile, parent.path(), |_| {}).unwrap(), second);
        assert_eq!(Folder::open(&second).unwrap().manifest().profile, profile);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2);
    }
}
