use kith_identity::{Blinding, Identity, KeyError};
use kith_sansio::SeededRng;
use proptest::prelude::*;

fn identity(seed: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(seed))
}

#[test]
fn the_number_one_is_no_disguise_and_the_order_of_the_group_wraps() {
    let mut one = [0; 64];
    one[0] = 1;
    assert_eq!(identity(1).public().blinded(&Blinding::from_uniform(&one)), identity(1).public());
    // 2^252 + 27742317777372353535851937790883648493, and one more.
    let mut order = [0; 64];
    order[..16].copy_from_slice(&[
        0xee, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    ]);
    order[31] = 0x10;
    assert!(Blinding::from_uniform(&order) == Blinding::from_uniform(&one));
}

/// With one nonce under two keys whose ratio the reader knows, two signatures would tell the secret scalar.
#[test]
fn no_two_keys_of_an_identity_sign_with_one_nonce() {
    let identity = identity(1);
    let nonce = |number: u8| {
        let signature = identity.blinded(&Blinding::from_uniform(&[number; 64])).sign(b"message");
        *signature.first_chunk::<32>().unwrap()
    };
    let own = *identity.sign(b"message").first_chunk::<32>().unwrap();
    assert_eq!(nonce(1), nonce(1));
    assert!(nonce(1) != nonce(2) && nonce(1) != own && nonce(2) != own);
}

proptest! {
    #[test]
    fn what_the_blinded_identity_signs_verifies_under_the_blinded_key_alone(
        seed: u64,
        number: [u8; 32],
        other: [u8; 32],
        message: Vec<u8>,
    ) {
        let wide = |bytes: [u8; 32]| Blinding::from_uniform(&std::array::from_fn(|at| bytes[at % 32]));
        let (identity, by) = (identity(seed), wide(number));
        prop_assume!(number != other);
        let key = identity.public().blinded(&by);
        prop_assert_eq!(key, identity.blinded(&by).public());
        let signature = identity.blinded(&by).sign(&message);
        prop_assert_eq!(key.verify(&message, &signature), Ok(()));
        prop_assert_eq!(identity.public().verify(&message, &signature), Err(KeyError::Signature));
        let another = identity.public().blinded(&wide(other));
        prop_assert_eq!(another.verify(&message, &signature), Err(KeyError::Signature));
        prop_assert_eq!(key.verify(&message, &identity.sign(&message)), Err(KeyError::Signature));
    }
}
