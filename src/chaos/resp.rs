//! Counts the replies in a stream of bytes, however it is cut into pieces.

/// Follows the framing of RESP2 and RESP3; keeps three words whatever the replies hold.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplyCounter {
    at: At,
    /// Values still to come before the reply that has begun is complete.
    owed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    /// The byte that says what kind of value comes.
    #[default]
    Kind,
    /// The line after it: for all but simple strings, a number.
    Line {
        kind: u8,
        number: u64,
        negative: bool,
    },
    /// The bytes of a string, and its line's end.
    Body { left: u64 },
}

impl ReplyCounter {
    /// How many replies end in `bytes`, which follow those given before.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut complete = 0;
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            let ended = match self.at {
                At::Kind => {
                    if self.owed == 0 {
                        self.owed = 1;
                    }
                    self.at = At::Line {
                        kind: byte,
                        number: 0,
                        negative: false,
                    };
                    false
                }
                At::Line {
                    kind,
                    number,
                    negative,
                } if byte == b'\n' => {
                    self.line_ended(kind, if negative { None } else { Some(number) })
                }
                At::Line {
                    kind,
                    number,
                    negative,
                } => {
                    self.at = match byte {
                        b'0'..=b'9' => {
                            let digit = u64::from(byte - b'0');
                            let number = number.saturating_mul(10).saturating_add(digit);
                            At::Line {
                                kind,
                                number,
                                negative,
                            }
                        }
                        b'-' => At::Line {
                            kind,
                            number,
                            negative: true,
                        },
                        _ => self.at,
                    };
                    false
                }
                At::Body { left } => {
                    let skipped = usize::try_from(left - 1)
                        .unwrap_or(usize::MAX)
                        .min(rest.len());
                    bytes = &rest[skipped..];
                    let left = left - 1 - skipped as u64;
                    self.at = At::Body { left };
                    left == 0 && self.value_ended(0)
                }
            };
            complete += u64::from(ended);
        }
        complete
    }

    /// `number` is `None` for a negative one, which stands for "no value".
    fn line_ended(&mut self, kind: u8, number: Option<u64>) -> bool {
        match (kind, number) {
            (b'$' | b'!' | b'=', Some(length)) => {
                self.at = At::Body {
                    left: length.saturating_add(2),
                };
                false
            }
            (b'*' | b'~' | b'>', Some(values)) => self.value_ended(values),
            (b'%', Some(pairs)) => self.value_ended(pairs.saturating_mul(2)),
            // An attribute is no value itself: the one it describes still follows.
            (b'|', Some(pairs)) => self.value_ended(pairs.saturating_mul(2).saturating_add(1)),
            _ => self.value_ended(0),
        }
    }

    /// Whether that was the last one owed; `inside` are the values that an aggregate opens.
    fn value_ended(&mut self, inside: u64) -> bool {
        self.at = At::Kind;
        self.owed = (self.owed - 1).saturating_add(inside);
        self.owed == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_reply_counts_once() {
        let replies = [
            "+OK\r\n",
            "-ERR 3 no\r\n",
            ":-12\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "$5\r\n*1\r\n+\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n*2\r\n:1\r\n$1\r\na\r\n+x\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "=5\r\ntxt:a\r\n",
            "%1\r\n+key\r\n~2\r\n:1\r\n:2\r\n",
            "|1\r\n+ttl\r\n:9\r\n*1\r\n+value\r\n",
            ">2\r\n+message\r\n$2\r\nhi\r\n",
        ];
        for reply in replies {
            assert_eq!(
                ReplyCounter::default().count(reply.as_bytes()),
                1,
                "{reply:?}"
            );
        }
        assert_eq!(
            ReplyCounter::default().count(replies.concat().as_bytes()),
            16
        );
    }

    #[derive(Clone, Debug)]
    enum Value {
        Integer(i64),
        Bytes(Vec<u8>),
        Nil,
        Array(Vec<Self>),
        Map(Vec<(Self, Self)>),
    }

    impl Value {
        fn write(&self, to: &mut Vec<u8>) {
            match self {
                Self::Integer(number) => to.extend(format!(":{number}\r\n").bytes()),
                Self::Bytes(bytes) => {
                    to.extend(format!("${}\r\n", bytes.len()).bytes());
                    to.extend(bytes);
                    to.extend(b"\r\n");
                }
                Self::Nil => to.extend(b"$-1\r\n"),
                Self::Array(values) => {
                    to.extend(format!("*{}\r\n", values.len()).bytes());
                    values.iter().for_each(|value| value.write(to));
                }
                Self::Map(pairs) => {
                    to.extend(format!("%{}\r\n", pairs.len()).bytes());
                    for (key, value) in pairs {
                        key.write(to);
                        value.write(to);
                    }
                }
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::Integer),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            Just(Value::Nil),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((inner.clone(), inner), 0..3).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_changes_nothing(
            replies in prop::collection::vec(value(), 0..8),
            piece in 1_usize..40,
        ) {
            let mut bytes = Vec::new();
            replies.iter().for_each(|reply| reply.write(&mut bytes));
            let mut counter = ReplyCounter::default();
            let counted: u64 = bytes.chunks(piece).map(|piece| counter.count(piece)).sum();
            prop_assert_eq!(counted, replies.len() as u64);
        }
    }
}
