//! Where a request came from.

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const V4_BITS: u32 = 32;
const V6_BITS: u32 = 128;
/// Bits of an address that name one source: a whole IPv4 address; of IPv6 the network that one subscriber gets.
const V6_SOURCE_BITS: u32 = 64;

/// Sets of addresses, as `SEALPOD_TRUSTED_PROXIES` names them. IPv4 and the same addresses mapped into IPv6 are one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    first: u128,
    /// Bits that all its addresses share, of 128.
    prefix: u32,
}

/// What is wrong with a list of networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotANetwork {
    #[error("entry {0} is neither an address nor a network such as 10.0.0.0/8 or 2001:db8::/32")]
    Form(usize),
    #[error("entry {0} has bits set behind its prefix; the network is {1}")]
    HostBits(usize, String),
}

/// Whether somebody on the way says for whom it speaks.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED_FOR)
}

impl Networks {
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0
            .iter()
            .any(|network| (bits ^ network.first) & mask(network.prefix) == 0)
    }
}

impl FromStr for Networks {
    type Err = NotANetwork;

    /// Addresses and networks, separated by commas; white space and empty entries count for nothing.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let entries = text
            .split(',')
            .map(str::trim)
            .enumerate()
            .filter(|(_, entry)| !entry.is_empty());
        entries
            .map(|(at, entry)| Network::parse(at + 1, entry))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Network {
    fn parse(at: usize, entry: &str) -> Result<Self, NotANetwork> {
        let form = || NotANetwork::Form(at);
        let (address, prefix) = match entry.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (entry, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let bits_of_kind = if address.is_ipv4() { V4_BITS } else { V6_BITS };
        let length = match prefix {
            None => bits_of_kind,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|length| *length <= bits_of_kind)
                .ok_or_else(form)?,
            Some(_) => return Err(form()),
        };
        let prefix = length + (V6_BITS - bits_of_kind);
        let given = bits(address);
        let first = given & mask(prefix);
        if first != given {
            let network = std::net::Ipv6Addr::from_bits(first);
            let network = if address.is_ipv4() {
                network.to_canonical()
            } else {
                IpAddr::V6(network)
            };
            return Err(NotANetwork::HostBits(at, format!("{network}/{length}")));
        }
        Ok(Self { first, prefix })
    }
}

/// An address as IPv6, where IPv4 has a range of its own.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(prefix: u32) -> u128 {
    // A shift by all bits would be one by none.
    u128::MAX.checked_shl(V6_BITS - prefix).unwrap_or(0)
}

/// The network that counts as one source.
pub(super) fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => bits(address),
        IpAddr::V6(address) => address.to_bits() & mask(V6_SOURCE_BITS),
    }
}

/// The rightmost address that no trusted proxy has: each proxy appends the address that it was called from, so what
/// stands left of one that nobody vouches for can be anybody's invention. Where a trusted proxy wrote what is no
/// address, the last address before it counts.
pub(super) fn client(trusted: &Networks, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut client = peer.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR);
    // Several lines are one list, in the order of the lines.
    let elements = lines
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|b| *b == b','));
    for element in elements {
        if !trusted.contains(client) {
            break;
        }
        match address(element) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:443`.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?.trim();
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| Some(text.parse::<std::net::SocketAddr>().ok()?.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn networks(text: &str) -> Networks {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn from(trusted: &str, peer: &str, lines: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        client(&networks(trusted), ip(peer), &headers).to_string()
    }

    #[test]
    fn addresses_and_networks_of_both_kinds_are_taken() {
        let set = networks(" 10.0.0.0/8, 192.0.2.1 ,,2001:db8::/32,::1,");
        for inside in [
            "10.0.0.0",
            "10.255.255.255",
            "192.0.2.1",
            "2001:db8:ffff::1",
            "::1",
            "::ffff:10.1.2.3",
        ] {
            assert!(set.contains(ip(inside)), "{inside}");
        }
        for outside in [
            "11.0.0.0",
            "192.0.2.2",
            "2001:db9::",
            "::2",
            "::ffff:11.0.0.1",
            "::a00:1",
        ] {
            assert!(!set.contains(ip(outside)), "{outside}");
        }
        assert!(!networks("").contains(ip("127.0.0.1")));
        assert!(networks("0.0.0.0/0").contains(ip("203.0.113.9")) && !networks("0.0.0.0/0").contains(ip("::1")));
        assert!(networks("::/0").contains(ip("203.0.113.9")));
        assert!(networks("::ffff:10.0.0.0/104").contains(ip("10.1.2.3")));
    }

    #[test]
    fn what_is_no_network_is_named_by_its_place() {
        for bad in [
            "x",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "fe80::1%eth0",
        ] {
            assert_eq!(
                format!("::1,{bad}").parse::<Networks>(),
                Err(NotANetwork::Form(2)),
                "{bad}"
            );
        }
        let why = "10.1.2.3/8".parse::<Networks>().unwrap_err().to_string();
        assert!(why.contains("10.0.0.0/8"), "{why}");
        let why = "2001:db8::1/32".parse::<Networks>().unwrap_err().to_string();
        assert!(why.contains("2001:db8::/32"), "{why}");
    }

    #[test]
    fn only_a_trusted_peer_is_asked_for_the_clients_address() {
        assert_eq!(from("10.0.0.0/8", "203.0.113.1", &[b"198.51.100.7"]), "203.0.113.1");
        assert_eq!(from("", "10.0.0.1", &[b"198.51.100.7"]), "10.0.0.1");
        assert_eq!(from("10.0.0.0/8", "10.0.0.1", &[b"198.51.100.7"]), "198.51.100.7");
        assert_eq!(from("10.0.0.0/8", "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(
            from("10.0.0.0/8", "::ffff:10.0.0.1", &[b"::ffff:198.51.100.7"]),
            "198.51.100.7"
        );
    }

    #[test]
    fn the_rightmost_untrusted_address_counts_whatever_stands_left_of_it() {
        let of = |lines: &[&[u8]]| from("10.0.0.0/8", "10.0.0.1", lines);
        assert_eq!(of(&[b"1.1.1.1, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(
            of(&[b"1.1.1.1", b"198.51.100.7,10.0.0.2", b" 10.0.0.3 "]),
            "198.51.100.7"
        );
        assert_eq!(of(&[b"garbage, 198.51.100.7"]), "198.51.100.7");
        // All of them are proxies: the farthest.
        assert_eq!(of(&[b"10.0.0.9, 10.0.0.2"]), "10.0.0.9");
    }

    #[test]
    fn what_is_no_address_ends_the_walk() {
        let of = |lines: &[&[u8]]| from("10.0.0.0/8", "10.0.0.1", lines);
        for garbage in [
            &b"unknown"[..],
            b"",
            b"198.51.100.7 x",
            b"\xff",
            b"_hidden",
            b"[::1",
            b"1.2.3.4:port",
        ] {
            let line = [b"198.51.100.7, ", garbage, b", 10.0.0.2"].concat();
            assert_eq!(of(&[&line]), "10.0.0.2", "{garbage:?}");
        }
    }

    #[test]
    fn addresses_may_come_with_ports_and_brackets() {
        for (element, address) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
        ] {
            assert_eq!(from("10.0.0.1", "10.0.0.1", &[element.as_bytes()]), address);
        }
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
        assert_ne!(network(ip("192.0.2.1")), network(ip("192.0.2.2")));
        assert_eq!(network(ip("192.0.2.1")), network(ip("::ffff:192.0.2.1")));
        assert_eq!(network(ip("2001:db8:0:1::1")), network(ip("2001:db8:0:1:ffff::2")));
        assert_ne!(network(ip("2001:db8:0:1::1")), network(ip("2001:db8:0:2::1")));
    }

    proptest! {
        /// Whatever a stranger sends to the proxy stands left of the stranger's own address, and changes nothing.
        #[test]
        fn nobody_outside_chooses_the_address(
            invented in prop::collection::vec("[ -~]{0,20}", 0..4),
            stranger in any::<u32>(),
        ) {
            let stranger = std::net::Ipv4Addr::from(stranger);
            prop_assume!(!networks("10.0.0.0/8").contains(stranger.into()));
            let line = [invented, vec![stranger.to_string()]].concat().join(",");
            prop_assert_eq!(from("10.0.0.0/8", "10.0.0.1", &[line.as_bytes()]), stranger.to_string());
        }

        /// Raw bytes never panic, and what is not trusted is never asked.
        #[test]
        fn any_header_is_survived(line in prop::collection::vec(any::<u8>(), 0..100)) {
            let Ok(value) = HeaderValue::from_bytes(&line) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.append(FORWARDED_FOR, value);
            client(&networks("0.0.0.0/0,::/0"), ip("10.0.0.1"), &headers);
            prop_assert_eq!(client(&networks("10.0.0.2"), ip("10.0.0.1"), &headers), ip("10.0.0.1"));
        }
    }
}
