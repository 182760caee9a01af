//! A network of network namespaces on this machine, whose cables can be pulled: a bridge, with an address that the relay
//! listens on, and sites, each a namespace behind a veth pair.
//!
//! It needs root and `ip`. All names carry this process's number, and what processes that are gone have left behind is
//! cleared away first, so that a test that was killed leaves nothing for long.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    process::{Command, Output, id},
};

/// The bridge and its sites. Gone with its value; processes in the sites must have ended by then.
pub(crate) struct Lan {
    bridge: String,
    sites: Vec<Site>,
}

/// A namespace and its cable.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    namespace: String,
    /// The cable's end at the bridge; the other end is called [`INSIDE`].
    port: String,
    bridge: String,
    pub(crate) address: Ipv4Addr,
}

/// How a site is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The site's interface goes down: both ends see that the carrier is lost, and the site has no route any more.
    LinkDown,
    /// The port is taken out of the bridge: both ends believe that all is well, and nothing arrives.
    Unplugged,
}

const INSIDE: &str = "up0";

impl Lan {
    /// A network of `sites`; why there can't be one, where this machine has no namespaces for us.
    pub(crate) fn make(sites: usize) -> Result<Lan, String> {
        clear_leftovers();
        let pid = id();
        let bridge = format!("ms{pid}br");
        // Dropped where a step fails: it takes with it what is already there.
        let mut lan = Lan { bridge: bridge.clone(), sites: Vec::new() };
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", lan.relay_address()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for number in 0..sites {
            let site = Site {
                namespace: format!("mainstem-{pid}-{number}"),
                port: format!("ms{pid}v{number}"),
                bridge: bridge.clone(),
                address: address(u8::try_from(number).expect("few sites") + 2),
            };
            lan.sites.push(site.clone());
            let Site { namespace, port, bridge, address } = &site;
            ip(&["netns", "add", namespace])?;
            ip(&["link", "add", port, "type", "veth", "peer", "name", INSIDE, "netns", namespace])?;
            // No neighbour discovery: whatever goes through the cable is of our connections.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), "1");
            ip(&["link", "set", port, "master", bridge, "up"])?;
            ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", INSIDE])?;
            ip(&["-n", namespace, "link", "set", INSIDE, "up"])?;
        }
        Ok(lan)
    }

    /// The bridge's own address, which all sites reach.
    pub(crate) fn relay_address(&self) -> Ipv4Addr {
        address(1)
    }

    pub(crate) fn sites(&self) -> &[Site] {
        &self.sites
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for site in &self.sites {
            let _ = ip(&["link", "del", &site.port]);
            let _ = ip(&["netns", "del", &site.namespace]);
        }
        let _ = ip(&["link", "del", &self.bridge]);
    }
}

impl Site {
    /// A command that runs `program` in here.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Cuts it off, and makes sure that it is.
    pub(crate) fn cut(&self, cut: Cut) {
        match cut {
            Cut::LinkDown => {
                ip(&["-n", &self.namespace, "link", "set", INSIDE, "down"]).unwrap();
                assert!(!self.has_carrier(), "{} has a carrier, though its other end is down", self.port);
            }
            Cut::Unplugged => {
                ip(&["link", "set", &self.port, "nomaster"]).unwrap();
                assert!(self.has_carrier() && !self.is_plugged(), "{} should seem to be well", self.port);
            }
        }
    }

    /// Ends a cut.
    pub(crate) fn mend(&self, cut: Cut) {
        match cut {
            Cut::LinkDown => ip(&["-n", &self.namespace, "link", "set", INSIDE, "up"]),
            Cut::Unplugged => ip(&["link", "set", &self.port, "master", &self.bridge]),
        }
        .unwrap();
        assert!(self.has_carrier() && self.is_plugged(), "{} is not mended", self.port);
    }

    /// Bytes that have gone through the cable towards the site, as the kernel counts them.
    pub(crate) fn bytes_towards(&self) -> u64 {
        self.attribute("statistics/tx_bytes").parse().unwrap()
    }

    /// Bytes that the relay has given to the kernel for the site, and that have not been acknowledged.
    pub(crate) fn bytes_in_flight(&self, relay: SocketAddrV4) -> u64 {
        let (from, to) = (format!("{relay}"), self.address.to_string());
        let output = run("ss", &["-Htn", "src", &from, "dst", &to]).unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
    }

    /// Resets all connections of the site to the relay, as a middlebox does that has lost its table. Gives how many.
    pub(crate) fn reset_connections(&self, relay: SocketAddrV4) -> usize {
        let to = relay.to_string();
        let output = run("ip", &["netns", "exec", &self.namespace, "ss", "-HtnK", "dst", &to]).unwrap();
        String::from_utf8(output.stdout).unwrap().lines().count()
    }

    fn has_carrier(&self) -> bool {
        self.attribute("carrier") == "1"
    }

    fn is_plugged(&self) -> bool {
        Path::new(&format!("/sys/class/net/{}/master", self.port)).exists()
    }

    fn attribute(&self, name: &str) -> String {
        fs::read_to_string(format!("/sys/class/net/{}/{name}", self.port)).unwrap().trim().to_owned()
    }
}

/// An address of this process's network, which is one of 10.64.0.0/10 by the process's number.
fn address(last: u8) -> Ipv4Addr {
    let pid = id().to_be_bytes();
    Ipv4Addr::new(10, 64 | (pid[2] & 63), pid[3], last)
}

/// Removes the networks of processes that are gone, with all that runs in them.
fn clear_leftovers() {
    let gone = |pid: &str| pid.parse::<u32>().is_ok_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
    let namespaces = run("ip", &["netns", "list"]).map(|output| output.stdout).unwrap_or_default();
    for namespace in String::from_utf8_lossy(&namespaces).lines().filter_map(|line| line.split_whitespace().next()) {
        let pid = namespace.strip_prefix("mainstem-").and_then(|rest| rest.split_once('-'));
        if pid.is_some_and(|(pid, _)| gone(pid)) {
            let inside = run("ip", &["netns", "pids", namespace]).map(|output| output.stdout).unwrap_or_default();
            for process in String::from_utf8_lossy(&inside).lines() {
                let _ = run("kill", &["-9", process]);
            }
            let _ = ip(&["netns", "del", namespace]);
        }
    }
    for link in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = link.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix("ms").and_then(|rest| rest.strip_suffix("br").or(rest.split_once('v').map(|v| v.0)));
        if pid.is_some_and(gone) {
            let _ = ip(&["link", "del", &name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    run("ip", args).map(drop)
}

/// Runs a program; what it says where it fails.
fn run(program: &str, args: &[&str]) -> Result<Output, String> {
    let said = |what: &dyn std::fmt::Display| format!("{program} {}: {what}", args.join(" "));
    let output = Command::new(program).args(args).output().map_err(|error| said(&error))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(said(&String::from_utf8_lossy(&output.stderr).trim())),
    }
}
