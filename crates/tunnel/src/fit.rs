use crate::{HALF_HEADER_BYTES, Header};

/// What every link of IPv6 carries, in bytes (RFC 8200 §5).
pub const MIN_MTU: usize = 1280;

/// How a packet goes over a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// As it is.
    Whole,
    /// In two halves.
    Halves,
    /// Not at all: its sender should send packets of this size at most, in bytes.
    TooLarge(usize),
    /// Not at all, and no smaller packet would be right: the path carries less than half of what it must.
    Hopeless,
}

/// How a packet of `bytes` goes over a path that carries datagrams of `max_size` bytes.
///
/// A packet that the sender may not be asked to make smaller goes in halves: one of up to [`MIN_MTU`] bytes, and one that
/// routers may cut.
pub fn fit(header: &Header, bytes: usize, max_size: usize) -> Fit {
    if bytes <= max_size {
        return Fit::Whole;
    }
    let in_halves = bytes.div_ceil(2) + HALF_HEADER_BYTES <= max_size;
    match (bytes <= MIN_MTU || !header.is_indivisible, in_halves) {
        (true, true) => Fit::Halves,
        (true, false) if bytes <= MIN_MTU => Fit::Hopeless,
        _ => Fit::TooLarge(max_size.max(MIN_MTU)),
    }
}

/// The MTU of a device over paths that carry datagrams of these sizes: as large as all of them carry, at least
/// [`MIN_MTU`] and at most `most`; [`MIN_MTU`] where nothing is known of any path.
pub fn device_mtu(max_sizes: impl IntoIterator<Item = usize>, most: usize) -> usize {
    max_sizes.into_iter().min().unwrap_or(MIN_MTU).min(most).max(MIN_MTU)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::samples::packet;
    use proptest::prelude::*;

    #[test]
    fn a_packet_goes_whole_or_in_halves_or_is_answered_with_what_fits() {
        let v6 = Header::read(&packet("fd07::1", "fd07::2", 100)).unwrap();
        let v4 = Header::read(&packet("10.7.0.1", "10.7.0.2", 100)).unwrap();
        let firm = Header { is_indivisible: true, ..v4 };
        for (header, bytes, max_size, expected) in [
            (v6, 1160, 1160, Fit::Whole),
            (v6, 1280, 1160, Fit::Halves),
            (v6, 1281, 1160, Fit::TooLarge(1280)),
            (v6, 1500, 1398, Fit::TooLarge(1398)),
            (firm, 1500, 1398, Fit::TooLarge(1398)),
            (v4, 1500, 1398, Fit::Halves),
            (v4, 9000, 1398, Fit::TooLarge(1398)),
            (v6, 1280, 642, Fit::Hopeless),
            (v6, 1280, 643, Fit::Halves),
        ] {
            assert_eq!(fit(&header, bytes, max_size), expected, "{bytes} over {max_size}");
        }
    }

    #[test]
    fn the_device_is_as_large_as_every_path_and_as_ipv6_asks() {
        assert_eq!(device_mtu([1398, 16_000], 1500), 1398);
        assert_eq!(device_mtu([65_535], 1500), 1500);
        assert_eq!(device_mtu([1160], 1500), 1280);
        assert_eq!(device_mtu([], 9000), 1280);
    }

    proptest! {
        #[test]
        fn what_is_said_to_fit_fits(bytes in 40_usize..=65_535, max_size in 0_usize..=65_535) {
            let mut sample = packet("fd07::1", "fd07::2", 40);
            sample[4..6].copy_from_slice(&0_u16.to_be_bytes());
            let header = Header::read(&sample).unwrap();
            match fit(&header, bytes, max_size) {
                Fit::Whole => prop_assert!(bytes <= max_size),
                Fit::Halves => {
                    let both = crate::halves(0, &vec![0x60; bytes]);
                    prop_assert!(both.iter().all(|half| half.len() <= max_size));
                }
                // Whoever does as he is told gets through, unless the path is hopeless.
                Fit::TooLarge(mtu) => {
                    prop_assert!(mtu < bytes);
                    prop_assert!(!matches!(fit(&header, mtu, max_size), Fit::TooLarge(_)));
                }
                Fit::Hopeless => prop_assert!(bytes <= MIN_MTU && max_size < MIN_MTU),
            }
        }
    }
}
