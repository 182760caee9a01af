//! Certificates of servers that speak TLS.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The name of the file with a server's key, in its folder, for Java.
pub(crate) const KEYS: &str = "keys.p12";
/// Guards a key that is worth nothing.
pub(crate) const KEYS_PASSWORD: &str = "mainstem";

/// The PEM file with the certificate of the server in this folder.
pub(crate) fn file_in(dir: &Path) -> PathBuf {
    dir.join("certificate.pem")
}

/// Makes a key, and a certificate that it has signed itself, for the address.
pub(crate) fn make(address: Ipv4Addr, dir: &Path) -> Result<()> {
    let keytool = |args: &[&str]| {
        let ran = Command::new("keytool")
            .args(args)
            .args(["-storetype", "PKCS12", "-storepass", KEYS_PASSWORD, "-alias", "server", "-keystore"])
            .arg(dir.join(KEYS))
            .output()
            .context("failed to run keytool: it comes with java")?;
        ensure!(ran.status.success(), "keytool can't make a key:\n{}", String::from_utf8_lossy(&ran.stdout));
        Ok(ran.stdout)
    };
    let name = format!("san=ip:{address}");
    let key = ["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "30"];
    keytool(&[&key[..], &["-dname", "CN=a test's server", "-ext", &name]].concat())?;
    fs::write(file_in(dir), keytool(&["-exportcert", "-rfc"])?).context("failed to write a certificate")
}
