//! The cluster's own network namespace and the two addresses by which it and the machine reach each other.
//!
//! Everything else — pod and service addresses, iptables rules, listening ports — exists inside the namespace only,
//! so the machine's own network is never changed and deleting the namespace takes all of it away.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process::{self, Failure};

/// Pod addresses, inside the namespace.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// Service addresses, inside the namespace.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The Service `default/kubernetes`: the first address of `SERVICE_CIDR`.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The Service `kube-system/kube-dns`, written into every pod's `resolv.conf`.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The four addresses of a /30: network, machine, node, broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet(Ipv4Addr);

impl Subnet {
    pub const DEFAULT: Self = Self(Ipv4Addr::new(10, 99, 0, 0));

    /// The machine's end.
    pub fn machine(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.to_bits() + 1)
    }

    /// The cluster's end: the node, and the API server as seen from the machine.
    pub fn node(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.to_bits() + 2)
    }

    fn overlaps(self, network: Ipv4Addr, prefix: u8) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(30))).unwrap_or(0);
        self.0.to_bits() & mask == network.to_bits() & mask
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/30", self.0)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a private IPv4 network of four addresses; write one as {}",
                Self::DEFAULT
            )
        };
        let (address, prefix) = parse_network(text).ok_or_else(wrong)?;
        let subnet = Self(address);
        if prefix != 30 || !address.is_private() || address.to_bits() % 4 != 0 {
            return Err(wrong());
        }
        for (cidr, what) in [(POD_CIDR, "pods"), (SERVICE_CIDR, "Services")] {
            if parse_network(cidr).is_some_and(|(network, prefix)| subnet.overlaps(network, prefix)) {
                return Err(format!(
                    "{text} lies in {cidr}, the addresses of the cluster's {what}; choose another"
                ));
            }
        }
        Ok(subnet)
    }
}

/// `10.0.0.0/8`, or a single address, as `ip route` writes them.
fn parse_network(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    Some((
        address.parse().ok()?,
        prefix.parse().ok().filter(|prefix| *prefix <= 32)?,
    ))
}

/// A route of the machine, as `ip -json route show table all` prints it.
#[derive(Debug, Deserialize)]
struct Route {
    dst: String,
    #[serde(default)]
    dev: String,
}

/// The first network of the machine that the subnet would collide with: `(network, device)`.
fn conflict(subnet: Subnet, routes: &[Route], own_device: &str) -> Option<(String, String)> {
    let taken = routes
        .iter()
        .filter(|route| route.dev != own_device && route.dst != "default");
    let mut overlapping = taken.filter(|route| {
        parse_network(&route.dst).is_some_and(|(network, prefix)| prefix > 0 && subnet.overlaps(network, prefix))
    });
    overlapping.next().map(|route| (route.dst.clone(), route.dev.clone()))
}

/// The namespace and the device of one checkout's cluster.
#[derive(Debug, Clone)]
pub struct Network {
    /// Name of the namespace, below `/run/netns`.
    pub namespace: String,
    /// The machine's end of the pair of devices; at most 15 characters.
    device: String,
    pub subnet: Subnet,
}

impl Network {
    /// `id` is unique to the checkout.
    pub fn new(id: &str, subnet: Subnet) -> Self {
        Self {
            namespace: format!("sealpod-{id}"),
            device: format!("seal{id}"),
            subnet,
        }
    }

    /// The file that stands for the namespace.
    pub fn namespace_file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// Fails when another interface of the machine, or a route of a VPN, has these addresses.
    pub fn require_free_addresses(&self) -> Result<()> {
        let json = process::capture(ip().args(["-4", "-json", "route", "show", "table", "all"]))?;
        let routes: Vec<Route> = serde_json::from_str(&json).context("`ip -json route` printed no list of routes")?;
        let Some((network, device)) = conflict(self.subnet, &routes, &self.device) else {
            return Ok(());
        };
        Err(Failure::new(format!(
            "the addresses {} of the cluster are already used on this machine: {network} at interface {device}",
            self.subnet
        ))
        .advice(
            "choose four free ones: `cargo xtask cluster up --subnet 172.31.254.0/30` (or SEALPOD_CLUSTER_SUBNET); \
             an interface named seal… is the cluster of another checkout: `cargo xtask cluster down` there",
        )
        .into())
    }

    /// Makes the namespace and the pair of devices.
    pub fn create(&self) -> Result<()> {
        let (machine, node) = (self.subnet.machine(), self.subnet.node());
        let (namespace, device) = (self.namespace.as_str(), self.device.as_str());
        process::capture(ip().args(["netns", "add", namespace]))?;
        process::capture(ip().args([
            "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", namespace,
        ]))?;
        process::capture(ip().args(["address", "add", &format!("{machine}/30"), "dev", device]))?;
        process::capture(ip().args(["link", "set", device, "up"]))?;
        // Pods reach the machine itself (a test's mail server, say) under the node's address; nothing beyond it.
        let script = format!(
            "ip link set lo up\n\
             ip address add {node}/30 dev eth0\n\
             ip link set eth0 up\n\
             ip route add default via {machine}\n\
             echo 1 > /proc/sys/net/ipv4/ip_forward\n\
             iptables -w -t nat -A POSTROUTING -s {POD_CIDR} -o eth0 -j MASQUERADE\n"
        );
        process::capture(self.enter("sh").args(["-ec", &script]))?;
        Ok(())
    }

    /// Removes namespace and devices, as far as they are there.
    pub fn delete(&self) -> Result<()> {
        if Path::new("/sys/class/net").join(&self.device).exists() {
            process::capture(ip().args(["link", "delete", &self.device]))?;
        }
        if self.namespace_file().exists() {
            process::capture(ip().args(["netns", "delete", &self.namespace]))?;
        }
        Ok(())
    }

    /// A command that runs `program` in the namespace.
    ///
    /// Not `ip netns exec`: that mounts another /sys, in which the kubelet finds no cgroups.
    pub fn enter(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.namespace_file().display()))
            .arg("--")
            .arg(program);
        command.env("PATH", super::SYSTEM_PATH);
        command
    }
}

fn ip() -> Command {
    let mut command = Command::new("ip");
    command.env("PATH", super::SYSTEM_PATH);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[(&str, &str)]) -> Vec<Route> {
        list.iter()
            .map(|(dst, dev)| Route {
                dst: (*dst).to_string(),
                dev: (*dev).to_string(),
            })
            .collect()
    }

    #[test]
    fn a_subnet_has_an_address_for_the_machine_and_one_for_the_node() {
        let subnet: Subnet = "172.31.254.4/30".parse().unwrap();
        assert_eq!(subnet.machine().to_string(), "172.31.254.5");
        assert_eq!(subnet.node().to_string(), "172.31.254.6");
        assert_eq!(subnet.to_string(), "172.31.254.4/30");
    }

    #[test]
    fn a_subnet_that_cannot_work_is_refused_with_an_example() {
        for wrong in [
            "10.99.0.0",
            "10.99.0.0/24",
            "10.99.0.1/30",
            "8.8.8.0/30",
            "fd00::/126",
            "x/30",
            "10.99.0.0/99",
        ] {
            let error = wrong.parse::<Subnet>().unwrap_err();
            assert!(error.contains("10.99.0.0/30"), "{wrong}: {error}");
        }
        let error = "10.96.7.0/30".parse::<Subnet>().unwrap_err();
        assert!(error.contains("10.96.0.0/16") && error.contains("Services"), "{error}");
    }

    #[test]
    fn addresses_of_another_interface_or_a_vpn_are_a_conflict() {
        let at = |list: &[(&str, &str)]| conflict(Subnet::DEFAULT, &routes(list), "sealab");
        assert_eq!(
            at(&[("10.99.0.0/24", "eth1")]),
            Some(("10.99.0.0/24".into(), "eth1".into()))
        );
        assert_eq!(
            at(&[("10.0.0.0/8", "tun0")]),
            Some(("10.0.0.0/8".into(), "tun0".into()))
        );
        assert_eq!(at(&[("10.99.0.2", "lo")]), Some(("10.99.0.2".into(), "lo".into())));
    }

    #[test]
    fn other_networks_the_default_route_and_our_own_device_are_none() {
        let list = [
            ("default", "eth0"),
            ("0.0.0.0/0", "eth0"),
            ("192.0.2.0/24", "eth0"),
            ("10.99.0.4/30", "x"),
            ("10.99.0.0/30", "sealab"),
        ];
        assert_eq!(conflict(Subnet::DEFAULT, &routes(&list), "sealab"), None);
    }

    #[test]
    fn the_device_name_fits_the_kernels_limit() {
        assert!(Network::new("1a2b3c4d", Subnet::DEFAULT).device.len() <= 15);
    }
}
