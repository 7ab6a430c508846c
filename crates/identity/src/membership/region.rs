/// How many members the region R3 of a member holds, about: it knows all of them.
pub const REGION_MEMBERS: usize = 512;

/// The share of the space that holds about `size` of `members` nodes: how many first bits its places have in common.
/// A block holds between 0.7 and 1.4 times as many.
pub fn region_bits(members: u64, size: usize) -> u8 {
    let wanted = (size as u64).max(1).saturating_mul(7);
    let fits = |bits: &u8| (members >> bits).saturating_mul(5) <= wanted;
    (0..63).find(fits).unwrap_or(63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_holds_about_as_many_as_it_should() {
        assert_eq!(region_bits(0, 512), 0);
        assert_eq!(region_bits(716, 512), 0);
        assert_eq!(region_bits(720, 512), 1);
        assert_eq!(region_bits(1_000, 32), 5);
        assert_eq!(region_bits(10_000, 512), 4);
        assert_eq!(region_bits(100_000, 512), 8);
        assert_eq!(region_bits(10_000_000, 512), 14);
        assert_eq!(region_bits(u64::MAX, 1), 63);
    }
}
