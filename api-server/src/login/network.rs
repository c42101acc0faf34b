use std::net::IpAddr;

/// Where a request came from, as coarsely as one household, office or cloud customer gets its addresses: a /24 of IPv4
/// or a /64 of IPv6. What is counted per network is not evaded by the next address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network([u8; 9]);

impl Network {
    /// All whose address is not known are one network.
    pub fn of(ip: Option<IpAddr>) -> Self {
        let mut bytes = [0; 9];
        // An IPv4 address that came through an IPv6 socket is one of IPv4.
        match ip.map(|ip| ip.to_canonical()) {
            None => {}
            Some(IpAddr::V4(ip)) => {
                bytes[0] = 4;
                bytes[1..4].copy_from_slice(&ip.octets()[..3]);
            }
            Some(IpAddr::V6(ip)) => {
                bytes[0] = 6;
                bytes[1..].copy_from_slice(&ip.octets()[..8]);
            }
        }
        Self(bytes)
    }

    /// All that one customer of a provider may have: a /48 of IPv6, with its 65,536 networks; of IPv4 the network itself.
    #[must_use]
    pub fn site(mut self) -> Self {
        if self.0[0] == 6 {
            self.0[7..].fill(0);
        }
        self
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ip: &str) -> Network {
        Network::of(Some(ip.parse().unwrap()))
    }

    #[test]
    fn neighbours_are_one_network() {
        assert_eq!(of("203.0.113.7"), of("203.0.113.250"));
        assert_ne!(of("203.0.113.7"), of("203.0.114.7"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.9"), of("203.0.113.7"));
    }

    #[test]
    fn a_site_holds_all_networks_of_one_customer() {
        assert_eq!(of("2001:db8:1:2::1").site(), of("2001:db8:1:ffff::1").site());
        assert_ne!(of("2001:db8:1:2::1").site(), of("2001:db8:2:2::1").site());
        assert_eq!(of("203.0.113.7").site(), of("203.0.113.7"));
        assert_ne!(of("203.0.113.7").site(), of("203.0.114.7").site());
    }

    #[test]
    fn networks_of_different_kinds_differ() {
        let all = [of("0.0.0.0"), of("::"), Network::of(None)];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    }
}
