//! The one thing that is read of `grpc-status-details-bin`: how long `google.rpc.RetryInfo` asks
//! for. Four messages inside each other, in base64:
//!
//! ```text
//! google.rpc.Status     details = 3, repeated
//!   google.protobuf.Any   type_url = 1, value = 2
//!     google.rpc.RetryInfo  retry_delay = 1
//!       google.protobuf.Duration  seconds = 1, nanos = 2
//! ```
//!
//! It is from outside. So what is long isn't looked at, nothing is believed of a length but what is
//! there, and what can't be read ends the reading: what was read before it stands.

use std::time::Duration;

use crate::outcome::retry_after::LONGEST;

/// The longest text that is read, in bytes.
const LONGEST_TEXT: usize = 8 * 1024;

/// The wait asked for; `None` when there is none that is positive.
pub(super) fn retry_delay(text: &[u8]) -> Option<Duration> {
    let status = (text.len() <= LONGEST_TEXT).then(|| decoded(text))??;
    let details = messages(&status, 3);
    details.filter_map(|any| retry_info(any).and_then(delay)).max()
}

/// What a `google.protobuf.Any` holds, if that is a `RetryInfo`.
fn retry_info(any: &[u8]) -> Option<&[u8]> {
    // Of a field that comes twice the last counts.
    let url = messages(any, 1).last()?;
    if url.ends_with(b"/google.rpc.RetryInfo") { messages(any, 2).last() } else { None }
}

fn delay(retry_info: &[u8]) -> Option<Duration> {
    let delay = messages(retry_info, 1).last()?;
    let number = |wanted| {
        let found = Fields(delay).filter_map(move |(field, value)| match value {
            Value::Number(number) if field == wanted => Some(number),
            _ => None,
        });
        // Signed, in two's complement of 64 bits.
        found.last().map_or(Some(0), |number| u64::try_from(number.cast_signed()).ok())
    };
    let (seconds, nanos) = (number(1)?, number(2)?);
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let wait = Duration::new(seconds.min(LONGEST.as_secs()), nanos).min(LONGEST);
    (!wait.is_zero()).then_some(wait)
}

/// The fields of this number that have a length.
fn messages(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    Fields(message).filter_map(move |(field, value)| match value {
        Value::Message(inner) if field == wanted => Some(inner),
        _ => None,
    })
}

enum Value<'a> {
    Number(u64),
    Message(&'a [u8]),
    Fixed,
}

/// The fields of a message, as far as they can be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Value::Message(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups, which nothing of this has, and what doesn't exist.
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Seven bits a byte, the lowest first, at most 64 of them.
    fn number(&mut self) -> Option<u64> {
        const MOST_BYTES: usize = 10;
        let mut number = 0_u64;
        for place in 0..MOST_BYTES {
            let byte = *self.take(1)?.first()?;
            // What a tenth byte has beyond the 64th bit is cut off, as elsewhere.
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

/// Base64 with or without its padding, as gRPC allows both.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for four in text.chunks(4) {
        let mut bits = 0_u32;
        for digit in four {
            bits = bits << 6 | u32::from(digit_of(*digit)?);
        }
        match four.len() {
            4 => bytes.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 => bytes.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
            2 => bytes.push((bits >> 4) as u8),
            // Six bits are no byte.
            _ => return None,
        }
    }
    Some(bytes)
}

fn digit_of(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn number(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7f {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn field(number_of: u64, value: u64) -> Vec<u8> {
        [number(number_of << 3), number(value)].concat()
    }

    fn message(number_of: u64, inner: &[u8]) -> Vec<u8> {
        [number(number_of << 3 | 2), number(inner.len() as u64), inner.to_vec()].concat()
    }

    fn packed(url: &str, value: &[u8]) -> Vec<u8> {
        [message(1, url.as_bytes()), message(2, value)].concat()
    }

    fn status(details: &[Vec<u8>]) -> Vec<u8> {
        let details = details.iter().map(|detail| message(3, detail));
        [field(1, 14), message(2, b"later")].into_iter().chain(details).collect::<Vec<_>>().concat()
    }

    fn asks(seconds: i64, nanos: i32) -> Vec<u8> {
        let delay = [field(1, seconds.cast_unsigned()), field(2, i64::from(nanos).cast_unsigned())].concat();
        packed("type.googleapis.com/google.rpc.RetryInfo", &message(1, &delay))
    }

    fn encoded(bytes: &[u8], padded: bool) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let mut bits = 0_u32;
            for place in 0..3 {
                bits = bits << 8 | u32::from(three.get(place).copied().unwrap_or(0));
            }
            for place in 0..4 {
                if place <= three.len() {
                    text.push(char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
                } else if padded {
                    text.push('=');
                }
            }
        }
        text
    }

    /// A header that asks for so long.
    pub(in super::super) fn retry_info(seconds: i64, nanos: i32) -> HeaderValue {
        HeaderValue::from_str(&encoded(&status(&[asks(seconds, nanos)]), false)).unwrap()
    }

    fn read(details: &[Vec<u8>]) -> Option<Duration> {
        let bytes = status(details);
        let plain = retry_delay(encoded(&bytes, false).as_bytes());
        assert_eq!(plain, retry_delay(encoded(&bytes, true).as_bytes()));
        plain
    }

    #[test]
    fn the_delay_is_found_among_other_details() {
        let other = packed("type.googleapis.com/google.rpc.ErrorInfo", &message(1, b"why"));
        assert_eq!(read(&[other.clone(), asks(1, 500_000_000)]), Some(Duration::from_millis(1500)));
        assert_eq!(read(&[asks(1, 0), asks(3, 0), asks(2, 0)]), Some(Duration::from_secs(3)));
        assert_eq!((read(&[other]), read(&[])), (None, None));
    }

    /// `{code: 14, message: "busy", details: [RetryInfo { retry_delay: 1.5 s }]}`, put together
    /// without this module.
    #[test]
    fn what_others_write_is_read() {
        let theirs = "CA4SBGJ1c3kaNgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJl\
                      dHJ5SW5mbxIKCggIARCAyrXuAQ==";
        assert_eq!(retry_delay(theirs.as_bytes()), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn what_makes_no_sense_asks_for_nothing() {
        for (seconds, nanos) in [(0, 0), (-1, 0), (1, -1), (0, 1_000_000_000), (i64::MIN, i32::MIN)] {
            assert_eq!(read(&[asks(seconds, nanos)]), None, "{seconds} {nanos}");
        }
        assert_eq!(read(&[asks(i64::MAX, 999_999_999)]), Some(LONGEST));
        // A type of another name, one that only ends like it, and a value without a type.
        let value = message(1, &field(1, 7));
        for url in ["google.rpc.RetryInfo", "type.googleapis.com/my.google.rpc.RetryInfo", ""] {
            assert_eq!(read(&[packed(url, &value)]), None, "{url}");
        }
        assert_eq!(read(&[message(2, &value)]), None);
    }

    #[test]
    fn what_is_long_or_cut_off_is_read_as_far_as_it_goes() {
        let whole = status(&[asks(1, 0), asks(9, 0)]);
        for end in 0..whole.len() {
            let found = retry_delay(encoded(&whole[..end], false).as_bytes());
            assert!(found.is_none() || found == Some(Duration::from_secs(1)), "{end}: {found:?}");
        }
        let long = status(&[packed("x", &[0; LONGEST_TEXT]), asks(1, 0)]);
        assert_eq!(retry_delay(encoded(&long, false).as_bytes()), None);
        // A length beyond what there is, and one beyond any memory.
        for length in [1_u64 << 20, u64::MAX] {
            let lie = [number(3 << 3 | 2), number(length)].concat();
            assert_eq!(retry_delay(encoded(&lie, false).as_bytes()), None);
        }
        assert_eq!(retry_delay(encoded(&[0x80; 64], false).as_bytes()), None, "a number without an end");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_048))]
        #[test]
        fn any_delay_is_read_as_it_was_written(seconds in 0..=86_400_i64, nanos in 0..1_000_000_000_i32) {
            let expected = Duration::new(seconds.cast_unsigned(), nanos.cast_unsigned()).min(LONGEST);
            prop_assert_eq!(read(&[asks(seconds, nanos)]), Some(expected).filter(|wait| !wait.is_zero()));
        }

        #[test]
        fn any_bytes_are_no_panic_and_a_day_at_most(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            flipped in 0_usize..300,
        ) {
            let text = encoded(&bytes, false);
            prop_assert_eq!(decoded(text.as_bytes()), Some(bytes.clone()));
            for text in [text.as_bytes(), &bytes] {
                prop_assert!(retry_delay(text).is_none_or(|wait| wait <= LONGEST));
            }
            let mut near = status(&[asks(1, 0)]);
            if let (Some(byte), Some(other)) = (near.get_mut(flipped), bytes.first()) {
                *byte = *other;
            }
            prop_assert!(retry_delay(encoded(&near, true).as_bytes()).is_none_or(|wait| wait <= LONGEST));
        }
    }
}
