//! Masking (RFC 6455 §5.3).

/// XORs `bytes` in place with `key`, beginning at the payload's byte number `offset`. The same call masks
/// and unmasks.
pub(super) fn apply(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    let word = u64::from(u32::from_ne_bytes(key));
    let word = word | word << 32;
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let masked = u64::from_ne_bytes((&*chunk).try_into().expect("a chunk of 8 bytes")) ^ word;
        chunk.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_rfc_formula_from_any_offset(mut bytes: Vec<u8>, key: [u8; 4], offset in 0_usize..100) {
            let expected: Vec<u8> =
                bytes.iter().enumerate().map(|(i, b)| b ^ key[(i + offset) % 4]).collect();
            super::apply(&mut bytes, key, offset);
            prop_assert_eq!(bytes, expected);
        }
    }
}
