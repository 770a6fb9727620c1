//! The hash slot of a key: which part of a Redis Cluster keeps it.

use std::borrow::Cow;

/// How many slots there are.
pub(crate) const SLOTS: u16 = 16_384;

/// The slot of a key.
pub(crate) fn slot(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

/// The part of a key that decides its slot: what stands between the first `{` and the next `}`, or
/// all of it.
pub(crate) fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else {
        return key;
    };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        Some(close @ 1..) => &rest[..close],
        _ => key,
    }
}

/// What a key has in braces that is to fall into the hash slot of `queue`.
pub(crate) fn tag_of(queue: &str) -> Cow<'_, str> {
    let tag = String::from_utf8_lossy(hash_tag(queue.as_bytes()));
    if tag.contains('}') || tag.is_empty() {
        // In braces it would mean something else, so a number of the same slot stands for it.
        let home = slot(queue.as_bytes());
        let stands_for_it = |number: &String| slot(number.as_bytes()) == home;
        let number = (0..u32::MAX)
            .map(|number| number.to_string())
            .find(stands_for_it);
        return Cow::Owned(number.unwrap_or_default());
    }
    tag
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = (at as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            let carry = crc & 0x8000 != 0;
            crc <<= 1;
            if carry {
                crc ^= 0x1021;
            }
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"bar"), 5_061);
        assert_eq!(slot(b""), 0);
    }

    #[test]
    fn only_a_hash_tag_with_something_in_it_counts() {
        assert_eq!(hash_tag(b"emails"), b"emails");
        assert_eq!(hash_tag(b"app:{emails}:high"), b"emails");
        assert_eq!(hash_tag(b"{a}{b}"), b"a");
        assert_eq!(hash_tag(b"{}emails"), b"{}emails");
        assert_eq!(hash_tag(b"{emails"), b"{emails");
        assert_eq!(hash_tag(b"{{a}}"), b"{a");
    }

    #[test]
    fn a_queues_tag_falls_into_its_slot() {
        assert_eq!(tag_of("emails"), "emails");
        assert_eq!(tag_of("app:{emails}:high"), "emails");
        assert_eq!(tag_of("{emails"), "{emails");
        for queue in [
            "emails",
            "app:{emails}:high",
            "{}emails",
            "{emails",
            "a}b",
            "{a",
            "}",
            "{{a}}",
            "",
        ] {
            let key = format!("seawall:{{{}}}:lane:1", tag_of(queue));
            assert_eq!(
                slot(key.as_bytes()),
                slot(queue.as_bytes()),
                "{queue}: {key}"
            );
        }
    }
}
