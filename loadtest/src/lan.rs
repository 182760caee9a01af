//! A network of network namespaces on this machine, whose cables can be pulled: a bridge, with an address that servers
//! listen on, and sites, each a namespace behind a veth pair. If wanted each site has another cable, to another bridge,
//! which nobody pulls: then a pulled one cuts it off from some servers and not from others.
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
pub struct Lan {
    bridges: Vec<String>,
    sites: Vec<Site>,
}

/// A namespace and its cable.
#[derive(Clone, Debug)]
pub struct Site {
    namespace: String,
    /// The cable's end at the bridge; the other end is called [`INSIDE`].
    port: String,
    bridge: String,
    /// Its address on the cable that can be pulled.
    pub address: Ipv4Addr,
    /// Its address on the other one, if it has another.
    pub side_address: Option<Ipv4Addr>,
}

/// What this machine refuses.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// How a site is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The site's interface goes down: both ends see that the carrier is lost, and the site has no route any more.
    LinkDown,
    /// The port is taken out of the bridge: both ends believe that all is well, and nothing arrives.
    Unplugged,
}

const INSIDE: &str = "up0";
const SIDE_INSIDE: &str = "up1";

impl Lan {
    /// A network of `sites`; why there can't be one, where this machine has no namespaces for us.
    pub fn make(sites: usize) -> Result<Lan, Error> {
        Lan::make_with(sites, 1)
    }

    /// The same, with another bridge, to which each site has another cable.
    pub fn make_with_side(sites: usize) -> Result<Lan, Error> {
        Lan::make_with(sites, 2)
    }

    fn make_with(sites: usize, bridges: u8) -> Result<Lan, Error> {
        clear_leftovers();
        let pid = id();
        // Dropped where a step fails: it takes with it what is already there.
        let mut lan = Lan { bridges: Vec::new(), sites: Vec::new() };
        for network in 0..bridges {
            let bridge = format!("ms{pid}br{network}");
            lan.bridges.push(bridge.clone());
            ip(&["link", "add", &bridge, "type", "bridge"])?;
            ip(&["addr", "add", &format!("{}/24", address(network, 1)), "dev", &bridge])?;
            ip(&["link", "set", &bridge, "up"])?;
        }
        for number in 0..sites {
            let last = u8::try_from(number).expect("few sites") + 2;
            let site = Site {
                namespace: format!("mainstem-{pid}-{number}"),
                port: format!("ms{pid}v{number}"),
                bridge: lan.bridges[0].clone(),
                address: address(0, last),
                side_address: (bridges > 1).then(|| address(1, last)),
            };
            lan.sites.push(site.clone());
            let Site { namespace, port, bridge, address, side_address } = &site;
            ip(&["netns", "add", namespace])?;
            plug(namespace, INSIDE, *address, port, bridge)?;
            if let Some(address) = side_address {
                plug(namespace, SIDE_INSIDE, *address, &format!("ms{pid}v{number}s"), &lan.bridges[1])?;
            }
        }
        Ok(lan)
    }

    /// The bridge's own address, which all sites reach while their cables are plugged.
    pub fn relay_address(&self) -> Ipv4Addr {
        address(0, 1)
    }

    /// The other bridge's own address, which all sites reach always, if they have another cable.
    pub fn side_address(&self) -> Option<Ipv4Addr> {
        (self.bridges.len() > 1).then(|| address(1, 1))
    }

    /// All sites.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for site in &self.sites {
            for port in [&site.port, &format!("{}s", site.port)] {
                let _ = ip(&["link", "del", port]);
            }
            let _ = ip(&["netns", "del", &site.namespace]);
        }
        for bridge in &self.bridges {
            let _ = ip(&["link", "del", bridge]);
        }
    }
}

impl Site {
    /// A command that runs `program` in here.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Cuts it off, and makes sure that it is.
    pub fn cut(&self, cut: Cut) -> Result<(), Error> {
        match cut {
            Cut::LinkDown => {
                ip(&["-n", &self.namespace, "link", "set", INSIDE, "down"])?;
                self.should(!self.has_carrier(), "should have no carrier when its other end is down")
            }
            Cut::Unplugged => {
                ip(&["link", "set", &self.port, "nomaster"])?;
                self.should(self.has_carrier() && !self.is_plugged(), "should seem to be well")
            }
        }
    }

    /// Ends a cut.
    pub fn mend(&self, cut: Cut) -> Result<(), Error> {
        match cut {
            Cut::LinkDown => ip(&["-n", &self.namespace, "link", "set", INSIDE, "up"])?,
            Cut::Unplugged => ip(&["link", "set", &self.port, "master", &self.bridge])?,
        }
        self.should(self.has_carrier() && self.is_plugged(), "should be mended")
    }

    /// Bytes that have gone through the cable towards the site, as the kernel counts them.
    pub fn bytes_towards(&self) -> u64 {
        self.attribute("statistics/tx_bytes").parse().unwrap_or(0)
    }

    /// Bytes that the relay has given to the kernel for the site, and that have not been acknowledged.
    pub fn bytes_in_flight(&self, relay: SocketAddrV4) -> Result<u64, Error> {
        let (from, to) = (format!("{relay}"), self.address.to_string());
        let output = run("ss", &["-Htn", "src", &from, "dst", &to])?;
        let lines = String::from_utf8_lossy(&output.stdout);
        Ok(lines.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum())
    }

    /// Resets all connections of the site to the relay, as a middlebox does that has lost its table. Gives how many.
    pub fn reset_connections(&self, relay: SocketAddrV4) -> Result<usize, Error> {
        let to = relay.to_string();
        let output = run("ip", &["netns", "exec", &self.namespace, "ss", "-HtnK", "dst", &to])?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().count())
    }

    fn should(&self, does: bool, what: &str) -> Result<(), Error> {
        does.then_some(()).ok_or_else(|| Error(format!("{} {what}", self.port)))
    }

    fn has_carrier(&self) -> bool {
        self.attribute("carrier") == "1"
    }

    fn is_plugged(&self) -> bool {
        Path::new(&format!("/sys/class/net/{}/master", self.port)).exists()
    }

    fn attribute(&self, name: &str) -> String {
        let attribute = fs::read_to_string(format!("/sys/class/net/{}/{name}", self.port));
        attribute.unwrap_or_default().trim().to_owned()
    }
}

/// Gives a namespace a cable to a bridge.
fn plug(namespace: &str, inside: &str, address: Ipv4Addr, port: &str, bridge: &str) -> Result<(), Error> {
    ip(&["link", "add", port, "type", "veth", "peer", "name", inside, "netns", namespace])?;
    // No neighbour discovery: whatever goes through the cable is of our connections.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{port}/disable_ipv6"), "1");
    ip(&["link", "set", port, "master", bridge, "up"])?;
    ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", inside])?;
    ip(&["-n", namespace, "link", "set", inside, "up"])
}

/// An address of this process's networks: the first is one of 10.64.0.0/10 by the process's number, the second of
/// 10.128.0.0/10.
fn address(network: u8, last: u8) -> Ipv4Addr {
    let pid = id().to_be_bytes();
    Ipv4Addr::new(10, (64 * (network + 1)) | (pid[2] & 63), pid[3], last)
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
            name.strip_prefix("ms").and_then(|rest| rest.split_once("br").or(rest.split_once('v')).map(|(pid, _)| pid));
        if pid.is_some_and(gone) {
            let _ = ip(&["link", "del", &name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), Error> {
    run("ip", args).map(drop)
}

/// Runs a program; what it says where it fails.
fn run(program: &str, args: &[&str]) -> Result<Output, Error> {
    let said = |what: &dyn std::fmt::Display| Error(format!("{program} {}: {what}", args.join(" ")));
    let output = Command::new(program).args(args).output().map_err(|error| said(&error))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(said(&String::from_utf8_lossy(&output.stderr).trim())),
    }
}
