//! Labels of names in the DNS that hold bytes.

use data_encoding::HEXLOWER_PERMISSIVE;

/// 16 bytes as a label.
pub(crate) fn hex(bytes: &[u8; 16]) -> String {
    HEXLOWER_PERMISSIVE.encode(bytes)
}

/// 16 bytes from a label of 32 hexadecimal digits; names in the DNS have no case.
pub(crate) fn from_hex(label: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if label.len() != 32 {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode_mut(label, &mut bytes).ok().map(|_| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_another_length_or_alphabet_hold_no_bytes() {
        for label in ["", "00", "zz5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"] {
            assert_eq!(from_hex(label.as_bytes()), None, "{label}");
        }
        assert_eq!(from_hex(hex(&[0x5a; 16]).to_uppercase().as_bytes()), Some([0x5a; 16]));
    }
}
