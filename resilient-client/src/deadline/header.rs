//! The time left, as services tell each other.
//!
//! Two headers are read: `x-envoy-expected-rq-timeout-ms` ([Envoy]; the name can be another), a
//! number of milliseconds, and `grpc-timeout` ([gRPC over HTTP/2]), one to eight digits and a unit.
//! The first is written, and by calls of gRPC the second, too. Both come from outside, so every
//! value they can hold means one thing:
//!
//! | value | meaning |
//! |---|---|
//! | `250` (digits only, any number of them) | that many milliseconds |
//! | `grpc-timeout`: `250m` (`H` `M` `S` `m` `u` `n`, upper and lower case apart) | hours to nanoseconds |
//! | zero | no time left: the request is shed |
//! | more than 24 hours, whatever the number of digits | 24 hours |
//! | spaces or tabs around a value | ignored |
//! | a sign, also a minus: some mean "too late" by it, others "no limit" | no answer, as if the header were absent |
//! | a fraction, an exponent, other text, nothing; bytes that aren't ASCII | no answer |
//! | `grpc-timeout`: no unit, another one, more than eight digits, a space inside | no answer |
//! | a header several times, or a comma-joined list, as proxies make of repeated headers | the shortest valid answer |
//! | both headers | the shorter |
//!
//! An answer only ever shortens: it is one more bound beside the local ones.
//!
//! One caveat: the time on the way isn't counted, so each hop adds its own. Writing rounds down,
//! which takes off up to a millisecond.
//!
//! ```
//! use std::time::Duration;
//! use resilient_client::deadline::header;
//!
//! let mut headers = http::HeaderMap::new();
//! headers.insert(header::EXPECTED_TIMEOUT, header::value(Duration::from_micros(250_900)).unwrap());
//! headers.insert(header::GRPC_TIMEOUT, "1S".parse().unwrap());
//! assert_eq!(header::parse(&headers), Some(Duration::from_millis(250)));
//! ```
//!
//! [Envoy]: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter
//! [gRPC over HTTP/2]: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that is written and, unless another is named, read: `x-envoy-expected-rq-timeout-ms`.
pub const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// gRPC's header, which is read too: `grpc-timeout`.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The longest time read or written. Far beyond what anybody waits for, and small enough for any
/// sum.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The time left, at most 24 hours; `None` when no header says. The module's table says what each
/// value means.
pub fn parse(headers: &HeaderMap) -> Option<Duration> {
    parse_named(headers, &EXPECTED_TIMEOUT)
}

/// The same, with milliseconds read from the header `name`.
pub fn parse_named(headers: &HeaderMap, name: &HeaderName) -> Option<Duration> {
    let plain = shortest(headers, name, milliseconds);
    let grpc = shortest(headers, &GRPC_TIMEOUT, with_unit);
    plain.into_iter().chain(grpc).min()
}

/// The value to send: `remaining` in whole milliseconds, rounded down, at most 24 hours. `None`
/// when that is zero: the call is over, and the answer would come too late.
///
/// Up to 10 s it takes no allocation; a longer one takes one. A thread that asks for the same
/// again, as it does for nearly every attempt, gets a clone.
pub fn value(remaining: Duration) -> Option<HeaderValue> {
    let ms = remaining.min(LONGEST).as_millis() as u64;
    if ms == 0 {
        return None;
    }
    let again = |last: &RefCell<(u64, HeaderValue)>| {
        let mut last = last.try_borrow_mut().ok()?;
        if last.0 != ms {
            *last = (ms, made(ms as usize)?);
        }
        Some(last.1.clone())
    };
    // Err: the thread is ending.
    LAST.try_with(again).ok().flatten().or_else(|| made(ms as usize))
}

thread_local! {
    /// The value made last, and of what.
    static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("0"))) };
}

fn made(ms: usize) -> Option<HeaderValue> {
    if ms > TABLE_UP_TO {
        return HeaderValue::from_maybe_shared(Bytes::from(ms.to_string())).ok();
    }
    // Digits: UTF-8, and valid in a header.
    std::str::from_utf8(in_table(ms)).ok().map(HeaderValue::from_static)
}

/// The time that `grpc-timeout` alone says.
#[cfg(feature = "grpc")]
pub(crate) fn parse_grpc(headers: &HeaderMap) -> Option<Duration> {
    shortest(headers, &GRPC_TIMEOUT, with_unit)
}

/// The value of `grpc-timeout`: `remaining` in microseconds, or in milliseconds from 100 s on,
/// rounded down, at most 24 hours. Never zero, which isn't allowed: what is less than a microsecond
/// is `1n`.
#[cfg(feature = "grpc")]
pub(crate) fn grpc_value(remaining: Duration) -> HeaderValue {
    // Eight digits.
    const MOST: u128 = 99_999_999;
    let remaining = remaining.min(LONGEST);
    let text = match remaining.as_micros() {
        0 => "1n".to_owned(),
        micros @ 1..=MOST => format!("{micros}u"),
        _ => format!("{}m", remaining.as_millis()),
    };
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("1n"))
}

/// The shortest valid answer in every line and list of this header.
fn shortest(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl Fn(&[u8]) -> Option<Duration>,
) -> Option<Duration> {
    let lines = headers.get_all(name).iter();
    let values = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    values.filter_map(|value| read(trimmed(value))).min().map(|time| time.min(LONGEST))
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn milliseconds(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_millis)
}

fn with_unit(value: &[u8]) -> Option<Duration> {
    const MOST_DIGITS: usize = 8;
    let (unit, digits) = value.split_last()?;
    if digits.len() > MOST_DIGITS {
        return None;
    }
    // Eight digits of hours are 3.6e11 seconds: no product overflows.
    let n = number(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Digits, at least one and nothing else. Too many of them make the largest number there is.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// The standard total: what nearly every call has left lies below it. The table costs 38 KiB of the
/// binary, and memory only where it is read.
const TABLE_UP_TO: usize = 10_000;

/// `1`, `2` ... `10000`, one after the other. A number of `d` digits is `d` bytes, so its place can
/// be computed.
static TABLE: [u8; place(TABLE_UP_TO) + 5] = {
    let mut table = [0; place(TABLE_UP_TO) + 5];
    let mut ms = 1;
    while ms <= TABLE_UP_TO {
        let (mut at, mut rest) = (place(ms) + digits(ms), ms);
        while rest > 0 {
            at -= 1;
            table[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        ms += 1;
    }
    table
};

const fn digits(ms: usize) -> usize {
    ms.ilog10() as usize + 1
}

/// Where `ms` begins: after the 9 numbers of one digit, the 90 of two and so on, and those of as
/// many digits before it.
const fn place(ms: usize) -> usize {
    let (mut shorter, mut first, mut digits) = (0, 1, 1);
    while first * 10 <= ms {
        shorter += 9 * first * digits;
        first *= 10;
        digits += 1;
    }
    shorter + (ms - first) * digits
}

/// Empty, so refused by nobody and read by nobody, beyond the table.
fn in_table(ms: usize) -> &'static [u8] {
    let place = place(ms);
    TABLE.get(place..place + digits(ms)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const DAY: Duration = Duration::from_secs(86_400);

    fn headers(plain: &[&[u8]], grpc: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let lines = plain.iter().map(|value| (EXPECTED_TIMEOUT, value));
        for (name, value) in lines.chain(grpc.iter().map(|value| (GRPC_TIMEOUT, value))) {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn each_row_of_the_table_holds_for_milliseconds() {
        for (value, expected) in [
            ("250", Some(250 * MS)),
            ("007", Some(7 * MS)),
            ("0", Some(Duration::ZERO)),
            ("000", Some(Duration::ZERO)),
            (" 250\t", Some(250 * MS)),
            ("86400000", Some(DAY)),
            ("86400001", Some(DAY)),
            ("18446744073709551615", Some(DAY)),
            ("18446744073709551616", Some(DAY)),
            ("99999999999999999999999999999999999999999999", Some(DAY)),
            ("-1", None),
            ("-0", None),
            ("+1", None),
            ("2.5", None),
            ("1e3", None),
            ("0x10", None),
            ("250ms", None),
            ("250m", None),
            ("NaN", None),
            ("inf", None),
            ("soon", None),
            ("1 2", None),
            ("", None),
            ("  ", None),
            ("300, 250", Some(250 * MS)),
            ("300,,soon,-1", Some(300 * MS)),
            (",", None),
        ] {
            assert_eq!(parse(&headers(&[value.as_bytes()], &[])), expected, "{value:?}");
        }
    }

    #[test]
    fn each_row_of_the_table_holds_for_grpc() {
        for (value, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("2M", Some(Duration::from_secs(120))),
            ("2S", Some(2_000 * MS)),
            ("250m", Some(250 * MS)),
            ("250u", Some(Duration::from_micros(250))),
            ("250n", Some(Duration::from_nanos(250))),
            ("0S", Some(Duration::ZERO)),
            ("99999999m", Some(DAY)),
            ("99999999H", Some(DAY)),
            ("00000001S", Some(1_000 * MS)),
            ("000000001S", None),
            ("100000000n", None),
            ("1", None),
            ("S", None),
            ("1s", None),
            ("1h", None),
            ("1 S", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("1SS", None),
            ("", None),
            (" 1S ", Some(1_000 * MS)),
            ("1S, 100m", Some(100 * MS)),
        ] {
            assert_eq!(parse(&headers(&[], &[value.as_bytes()])), expected, "{value:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_ascii_are_no_answer() {
        assert_eq!(parse(&headers(&["２５０".as_bytes()], &["１S".as_bytes()])), None);
        assert_eq!(parse(&headers(&[b"250\xff"], &[b"\xffS"])), None);
        assert_eq!(parse(&headers(&[b"\xff", b"3"], &[])), Some(3 * MS));
    }

    #[test]
    fn the_shortest_wins_within_a_header_and_between_them() {
        assert_eq!(parse(&headers(&[b"300", b"100", b"200"], &[])), Some(100 * MS));
        assert_eq!(parse(&headers(&[b"300"], &[b"1S", b"200m"])), Some(200 * MS));
        assert_eq!(parse(&headers(&[b"300"], &[b"1S"])), Some(300 * MS));
        assert_eq!(parse(&headers(&[b"soon"], &[b"1S"])), Some(1_000 * MS));
        assert_eq!(parse(&HeaderMap::new()), None);
    }

    #[test]
    fn another_name_can_be_given() {
        let name = HeaderName::from_static("x-time-left-ms");
        let mut headers = headers(&[b"100"], &[]);
        assert_eq!(parse_named(&headers, &name), None);
        headers.insert(&name, HeaderValue::from_static("200"));
        assert_eq!(parse_named(&headers, &name), Some(200 * MS));
    }

    #[test]
    fn what_is_left_is_rounded_down_and_nothing_is_not_sent() {
        for (remaining, expected) in [
            (Duration::ZERO, None),
            (Duration::from_nanos(999_999), None),
            (MS, Some("1")),
            (Duration::from_nanos(1_999_999), Some("1")),
            (10_000 * MS, Some("10000")),
            (10_001 * MS, Some("10001")),
            (DAY, Some("86400000")),
            (Duration::MAX, Some("86400000")),
        ] {
            let value = value(remaining);
            assert_eq!(value.as_ref().map(|value| value.to_str().unwrap()), expected, "{remaining:?}");
        }
    }

    #[test]
    fn every_number_in_the_table_is_itself() {
        for ms in 1..=TABLE_UP_TO + 1 {
            let value = value(Duration::from_millis(ms as u64)).unwrap();
            assert_eq!(value.to_str().unwrap(), ms.to_string());
        }
        assert_eq!(TABLE.len(), 38_894);
    }

    /// The same rules by other means.
    fn expected(value: &str) -> Option<Duration> {
        let value = value.trim_matches([' ', '\t']);
        let digits = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
        digits.then(|| value.parse().map_or(DAY, |ms| Duration::from_millis(ms).min(DAY)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]
        #[test]
        fn any_bytes_give_an_answer_of_a_day_at_most_and_never_a_panic(
            plain in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
            grpc in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                "[0-9 ]{0,10}[HMSmunhs]?".prop_map(String::into_bytes),
            ], 0..4),
        ) {
            let mut headers = HeaderMap::new();
            let lines = plain.iter().map(|value| (EXPECTED_TIMEOUT, value));
            for (name, value) in lines.chain(grpc.iter().map(|value| (GRPC_TIMEOUT, value))) {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(name, value);
                }
            }
            prop_assert!(parse(&headers).is_none_or(|time| time <= DAY));
        }

        /// Whatever the header is called, also when it's called as gRPC's is, and whatever else is
        /// said beside it.
        #[test]
        fn any_name_and_any_bytes_give_an_answer_of_a_day_at_most_and_never_a_panic(
            name in prop_oneof![
                4 => "[a-z][a-z0-9-]{0,30}",
                1 => Just(GRPC_TIMEOUT.as_str().to_owned()),
                1 => Just(EXPECTED_TIMEOUT.as_str().to_owned()),
            ],
            values in prop::collection::vec(
                (any::<bool>(), prop_oneof!["[-+0-9., \\t]{0,30}[HMSmunhsx]?", "\\PC{0,20}"]), 0..5),
        ) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            let mut headers = HeaderMap::new();
            for (grpc, value) in &values {
                if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                    headers.append(if *grpc { GRPC_TIMEOUT } else { name.clone() }, value);
                }
            }
            let read = parse_named(&headers, &name);
            prop_assert!(read.is_none_or(|time| time <= DAY));
            // Another header's values are never taken for this one's.
            headers.remove(&name);
            headers.remove(GRPC_TIMEOUT);
            prop_assert_eq!(parse_named(&headers, &name), None);
        }

        #[test]
        fn one_more_value_never_raises_the_answer(
            values in prop::collection::vec("[-+0-9., \ta-z]{0,24}", 1..6),
        ) {
            let mut so_far = HeaderMap::new();
            let mut least: Option<Duration> = None;
            for value in values {
                so_far.append(EXPECTED_TIMEOUT, HeaderValue::from_str(&value).unwrap());
                least = value.split(',').filter_map(expected).chain(least).min();
                prop_assert_eq!(parse(&so_far), least);
            }
        }

        #[test]
        fn what_is_sent_is_read_back_never_longer_and_less_than_a_millisecond_shorter(nanos in 0..90_000_000_000_000_u64) {
            let remaining = Duration::from_nanos(nanos).min(DAY);
            let read = value(remaining).map_or(Some(Duration::ZERO), |value| {
                parse(&HeaderMap::from_iter([(EXPECTED_TIMEOUT, value)]))
            });
            let read = read.unwrap();
            prop_assert!(read <= remaining && remaining < read + MS);
        }
    }

    #[cfg(feature = "grpc")]
    #[test]
    fn grpcs_value_has_eight_digits_at_most_and_never_says_more() {
        let text = |time| grpc_value(time).to_str().unwrap().to_owned();
        for (time, expected) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(999), "1n"),
            (Duration::from_nanos(1999), "1u"),
            (Duration::from_millis(2995), "2995000u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_micros(100_000_999), "100000m"),
            (Duration::from_secs(86_400), "86400000m"),
            (Duration::MAX, "86400000m"),
        ] {
            assert_eq!(text(time), expected);
        }
    }

    #[cfg(feature = "grpc")]
    proptest! {
        #[test]
        fn what_grpcs_value_says_is_read_as_no_more(nanos in 1_000_u64..=86_400_000_000_000) {
            let time = Duration::from_nanos(nanos);
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, grpc_value(time));
            let read = parse_grpc(&headers).unwrap();
            let unit = Duration::from_nanos(if nanos < 100_000_000_000 { 1_000 } else { 1_000_000 });
            prop_assert!(read <= time && time < read + unit, "{:?} of {:?}", read, time);
            prop_assert!(headers[GRPC_TIMEOUT].len() <= 9);
        }
    }
}
