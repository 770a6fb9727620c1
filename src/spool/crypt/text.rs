//! Keys as text.

use std::str::FromStr;

use zeroize::Zeroizing;

use super::Key;

/// Text that is no key. It does not say what the text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a key: that is 32 bytes, as 64 hexadecimal digits or as 43 or 44 characters of base64; \
     `openssl rand -hex 32` makes one"
)]
#[non_exhaustive]
pub struct InvalidKey;

/// 64 hexadecimal digits, or base64 of either alphabet, with its padding or without. What is white
/// around it does not count.
impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let mut key = Zeroizing::new([0; Self::LEN]);
        let found = match text.len() {
            HEX => hex(text.as_bytes(), &mut key),
            BASE64_PADDED if text.ends_with('=') => base64(&text.as_bytes()[..BASE64], &mut key),
            BASE64 => base64(text.as_bytes(), &mut key),
            _ => None,
        };
        found.map(|()| Self::from_bytes(*key)).ok_or(InvalidKey)
    }
}

const HEX: usize = 2 * Key::LEN;
const BASE64: usize = 43;
const BASE64_PADDED: usize = BASE64 + 1;

fn hex(text: &[u8], key: &mut [u8; Key::LEN]) -> Option<()> {
    for (byte, digits) in key.iter_mut().zip(text.chunks(2)) {
        for digit in digits {
            *byte = *byte << 4 | char::from(*digit).to_digit(16)? as u8;
        }
    }
    Some(())
}

fn base64(text: &[u8], key: &mut [u8; Key::LEN]) -> Option<()> {
    let (mut bits, mut count) = (0_u32, 0);
    let mut bytes = key.iter_mut();
    for letter in text {
        bits = bits << 6 | u32::from(digit(*letter)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            *bytes.next()? = (bits >> count) as u8;
            bits &= (1 << count) - 1;
        }
    }
    // What is left of the last letter says nothing.
    (bytes.next().is_none() && bits == 0).then_some(())
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    fn to_base64(bytes: &[u8; 32]) -> String {
        let bit = |at: usize| {
            bytes
                .get(at / 8)
                .is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
        };
        let letters = (0..43).map(|letter| {
            let index = (0..6).fold(0, |sum, at| sum << 1 | usize::from(bit(letter * 6 + at)));
            char::from(ALPHABET[index])
        });
        letters.collect()
    }

    proptest! {
        #[test]
        fn a_key_is_read_from_hex_and_base64(bytes: [u8; 32]) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let base64 = to_base64(&bytes);
            for text in [
                hex.clone(),
                hex.to_uppercase(),
                format!(" {hex}\n"),
                format!("{base64}="),
                base64.replace('+', "-").replace('/', "_"),
                base64,
            ] {
                let key: Key = text.parse().unwrap();
                prop_assert_eq!(key.bytes(), &bytes);
            }
        }

        #[test]
        fn no_other_text_is_a_key(text in "\\PC{0,70}") {
            let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            prop_assume!(!is_hex);
            let letters = text.trim().trim_end_matches('=').bytes();
            prop_assume!(letters.len() != 43 || letters.clone().any(|letter| digit(letter).is_none()));
            prop_assert_eq!(text.parse::<Key>().err(), Some(InvalidKey));
        }
    }

    #[test]
    fn neither_a_key_nor_what_is_wrong_with_one_is_shown() {
        let text = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let key: Key = text.parse().unwrap();
        let keys = crate::spool::Keys::single(7, key.clone());
        let shown = format!("{key:?} {keys:?} {:?}", super::super::Cipher::new(7, &key));
        assert_eq!(
            shown,
            "Key(..) Keys { current: 7, .. } Cipher { id: 7, .. }"
        );
        let wrong = text.replace("ee", "eg").parse::<Key>().unwrap_err();
        assert!(!format!("{wrong} {wrong:?}").contains("2233"));
    }
}
