//! `Retry-After`: how long the server asks us to wait (RFC 9110, section 10.2.3).
//!
//! The header comes from outside and steers when we send again, so every value it can hold means
//! one thing:
//!
//! | value | meaning |
//! |---|---|
//! | `120` (digits only) | that many seconds |
//! | `1.5` (digits, a point, digits) | that many seconds, though the RFC has no fractions: what is meant is clear |
//! | an HTTP-date in any of its three forms, `Sun, 06 Nov 1994 08:49:37 GMT` | the time from now until then |
//! | spaces or tabs around either | ignored |
//! | zero | zero: the server sets no floor, ordinary backoff applies |
//! | a date that has passed | zero |
//! | more than 24 hours, in seconds or as a date, whatever the number of digits | 24 hours |
//! | a sign, a point without digits on both sides, an exponent, `NaN`, other text, nothing | no answer, as if the header were absent |
//! | bytes that aren't ASCII; a date before 1970 | no answer |
//! | the header several times | the longest valid answer |
//! | a comma-joined list, as proxies make of repeated headers | the longest valid answer in it |
//!
//! None of them is an instant retry: no answer and zero both leave the ordinary backoff in place.
//!
//! One caveat: a date is read against our wall clock. When ours runs behind the server's, the wait
//! is longer by as much.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The longest wait returned. Far beyond any call's deadline, and small enough for any sum.
pub(crate) const LONGEST: Duration = Duration::from_secs(86_400);

/// The wait asked for, at most 24 hours; `None` when there is no valid `Retry-After`. The module's
/// table says what each value means.
pub fn parse(headers: &HeaderMap, wall_now: SystemTime) -> Option<Duration> {
    headers.get_all(RETRY_AFTER).iter().filter_map(|value| longest(value.to_str().ok()?, wall_now)).max()
}

/// The longest valid answer in a comma-joined list, which may be a list of one.
fn longest(list: &str, wall_now: SystemTime) -> Option<Duration> {
    let mut longest = None;
    let mut rest = Some(list);
    while let Some(values) = rest {
        let (value, after) = split_at_comma(values);
        // Most dates have a comma of their own, after the day's name.
        let with_next = after.map(|after| &values[..value.len() + 1 + split_at_comma(after).0.len()]);
        longest = longest.max(one(value, wall_now)).max(with_next.and_then(|date| one(date, wall_now)));
        rest = after;
    }
    longest
}

fn split_at_comma(list: &str) -> (&str, Option<&str>) {
    list.split_once(',').map_or((list, None), |(value, after)| (value, Some(after)))
}

fn one(value: &str, wall_now: SystemTime) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let wait = if is_number(whole) && is_number(fraction) {
        // All digits, so all that can be wrong is that there are too many.
        whole.parse().map_or(LONGEST, Duration::from_secs).saturating_add(nanos(fraction))
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(wall_now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The digits after the point, as far as nanoseconds go.
fn nanos(fraction: &str) -> Duration {
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    Duration::from_nanos(digits.fold(0, |nanos, digit| nanos * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    fn wall() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn parse_all(values: &[&[u8]]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RETRY_AFTER, HeaderValue::from_bytes(value).unwrap());
        }
        parse(&headers, wall())
    }

    fn seconds(value: &str) -> Option<u64> {
        parse_all(&[value.as_bytes()]).map(|wait| wait.as_secs())
    }

    #[test]
    fn each_row_of_the_table_holds() {
        for (value, expected) in [
            ("120", Some(120)),
            ("007", Some(7)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            ("Sunday, 06-Nov-94 08:51:37 GMT", Some(120)),
            ("Sun Nov  6 08:51:37 1994", Some(120)),
            ("  120\t", Some(120)),
            (" Sun, 06 Nov 1994 08:51:37 GMT ", Some(120)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("86400", Some(86_400)),
            ("86401", Some(86_400)),
            ("18446744073709551615", Some(86_400)),
            ("18446744073709551616", Some(86_400)),
            ("99999999999999999999999999999999999999", Some(86_400)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400)),
            ("-1", None),
            ("+1", None),
            ("1.5", Some(1)),
            ("86400.5", Some(86_400)),
            ("1.", None),
            (".5", None),
            ("1.5.2", None),
            ("1.-5", None),
            ("1e3", None),
            ("0x10", None),
            ("NaN", None),
            ("inf", None),
            ("soon", None),
            ("1 2", None),
            ("", None),
            ("   ", None),
            ("Sun, 06 Nov 1994", None),
            ("Sun, 32 Nov 1994 08:51:37 GMT", None),
            ("Wed, 31 Dec 1969 23:59:59 GMT", None),
            ("1, 5", Some(5)),
            ("5,1", Some(5)),
            (",,7,", Some(7)),
            (",", None),
            ("soon, 3", Some(3)),
            ("-9, 3, 2.5", Some(3)),
            ("60, Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            ("Sun, 06 Nov 1994 08:51:37 GMT, 240", Some(240)),
            ("Sun, 06 Nov 1994 08:51:37 GMT,Sun, 06 Nov 1994 08:52:37 GMT", Some(180)),
        ] {
            assert_eq!(seconds(value), expected, "{value:?}");
        }
    }

    #[test]
    fn absent_is_no_answer() {
        assert_eq!(parse_all(&[]), None);
    }

    #[test]
    fn bytes_that_are_not_ascii_are_no_answer() {
        assert_eq!(parse_all(&["１２０".as_bytes()]), None);
        assert_eq!(parse_all(&[b"120\xff"]), None);
        assert_eq!(parse_all(&[b"\xff", b"3"]), Some(Duration::from_secs(3)));
    }

    #[test]
    fn of_several_headers_the_longest_valid_one_wins() {
        assert_eq!(parse_all(&[b"1", b"30", b"2"]), Some(Duration::from_secs(30)));
        assert_eq!(parse_all(&[b"-1", b"0", b"soon"]), Some(Duration::ZERO));
        assert_eq!(parse_all(&[b"-1", b"soon"]), None);
    }

    #[test]
    fn a_date_counts_to_the_fraction_of_a_second() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:38 GMT"));
        let wait = parse(&headers, wall() + Duration::from_millis(250));
        assert_eq!(wait, Some(Duration::from_millis(750)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]
        #[test]
        fn any_bytes_give_an_answer_of_a_day_at_most_and_never_a_panic(
            values in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    "[-+0-9., \tA-Za-z:]{0,40}".prop_map(String::into_bytes),
                    "(Sun, |Sunday, |Sun )?[0-9]{1,2}[ -][A-Z][a-z]{2}[ -][0-9]{2,4} [0-9]{2}:[0-9]{2}:[0-9]{2}( GMT)?"
                        .prop_map(String::into_bytes),
                ],
                0..4,
            ),
            wall_seconds in 0_u64..1 << 40,
        ) {
            let mut headers = HeaderMap::new();
            for value in &values {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(RETRY_AFTER, value);
                }
            }
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(wall_seconds);
            prop_assert!(parse(&headers, wall).is_none_or(|wait| wait <= LONGEST));
        }

        #[test]
        fn whole_seconds_and_dates_mean_what_they_say(wait in 0_u64..=86_400) {
            prop_assert_eq!(seconds(&wait.to_string()), Some(wait));
            let date = httpdate::fmt_http_date(wall() + Duration::from_secs(wait));
            prop_assert_eq!(seconds(&date), Some(wait));
            let fraction = parse_all(&[format!("{wait}.25").as_bytes()]);
            prop_assert_eq!(fraction, Some(Duration::from_millis(wait * 1_000 + 250).min(LONGEST)));
        }
    }
}
