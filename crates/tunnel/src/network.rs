use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address with the length of its network's prefix, such as `10.7.0.1/24`; without a slash, the address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    ip: IpAddr,
    prefix_bits: u8,
}

/// A text that is no address with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no network: an address, or an address, a slash and its prefix bits, such as 10.7.0.1/24 or fd07::/64"
)]
pub struct CidrError(String);

/// Longest text of a network: IPv6 with an IPv4 tail, a slash and three digits.
const MAX_TEXT_BYTES: usize = 49;

impl Cidr {
    /// `ip` with so many bits of prefix; `None` where its family has fewer.
    pub fn new(ip: IpAddr, prefix_bits: u8) -> Option<Cidr> {
        (prefix_bits <= family_bits(ip)).then_some(Cidr { ip, prefix_bits })
    }

    /// The address alone.
    pub fn host(ip: IpAddr) -> Cidr {
        Cidr { ip, prefix_bits: family_bits(ip) }
    }

    /// The address, as it was given.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Bits of its prefix.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// The whole network: the address with all bits behind the prefix zero.
    pub fn network(&self) -> Cidr {
        let ip = match self.ip {
            IpAddr::V4(_) => {
                let masked = u32::try_from(masked(self.ip, self.prefix_bits)).unwrap_or_default();
                IpAddr::V4(Ipv4Addr::from(masked))
            }
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(masked(self.ip, self.prefix_bits))),
        };
        Cidr { ip, prefix_bits: self.prefix_bits }
    }

    /// Whether `ip` is in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && masked(ip, self.prefix_bits) == masked(self.ip, self.prefix_bits)
    }
}

/// Bits of an address of this family.
pub(crate) fn family_bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The address as a number, with all bits behind the prefix zero.
pub(crate) fn masked(ip: IpAddr, prefix_bits: u8) -> u128 {
    let number = match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let behind = u32::from(family_bits(ip).saturating_sub(prefix_bits));
    if behind >= u128::BITS { 0 } else { number >> behind << behind }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError(text.chars().take(MAX_TEXT_BYTES).collect());
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let Some(bits) = bits else { return Ok(Cidr::host(ip)) };
        if bits.is_empty() || bits.len() > 3 || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let bits = bits.parse().map_err(|_| wrong())?;
        Cidr::new(ip, bits).ok_or_else(wrong)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_are_read_in_one_form() {
        for (text, network) in [
            ("10.7.0.1/24", "10.7.0.0/24"),
            ("10.7.0.1", "10.7.0.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd07::5:1/64", "fd07::/64"),
            ("fd07::1", "fd07::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().network().to_string(), network, "{text}");
        }
        for wrong in
            ["", "/", "10.7.0.1/", "10.7.0.1/33", "fd07::/129", "10.7.0/24", "10.7.0.1/+8", "10.7.0.1/008x"]
        {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_network_contains_what_shares_its_prefix(a: u32, b: u32, bits in 0_u8..=32) {
            let network = Cidr::new(IpAddr::V4(a.into()), bits).unwrap();
            let shared = bits == 0 || (a ^ b).leading_zeros() >= u32::from(bits);
            prop_assert_eq!(network.contains(IpAddr::V4(b.into())), shared);
            prop_assert!(!network.contains(IpAddr::V6(u128::from(b).into())));
            prop_assert_eq!(network.to_string().parse::<Cidr>().unwrap(), network);
        }
    }
}
