//! Whether a gRPC server wants to be asked again, and when.

use std::time::Duration;

#[cfg(any(test, feature = "server"))]
use http::HeaderValue;
use http::{HeaderMap, HeaderName};

use super::details;
use crate::outcome::retry_after::LONGEST;

/// What gRFC A6 calls pushback.
pub(crate) const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// Any number below zero.
#[cfg(any(test, feature = "server"))]
pub(crate) const PUSHBACK_NEVER: HeaderValue = HeaderValue::from_static("-1");
/// A `google.rpc.Status`, in base64.
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushback {
    Nothing,
    /// Not at all.
    Never,
    /// Not before so long.
    After(Duration),
}

/// What headers or trailers say. See the [table](super).
pub(super) fn read(headers: &HeaderMap) -> Pushback {
    let mut wait = None;
    for value in headers.get_all(PUSHBACK) {
        let Some(ms) = milliseconds(value.as_bytes()) else { return Pushback::Never };
        wait = wait.max(Some(Duration::from_millis(ms)));
    }
    for value in headers.get_all(DETAILS) {
        // Proxies join repeated headers.
        for one in value.as_bytes().split(|byte| *byte == b',') {
            wait = wait.max(details::retry_delay(one.trim_ascii()));
        }
    }
    wait.map_or(Pushback::Nothing, |wait| Pushback::After(wait.min(LONGEST)))
}

/// A whole number that fits into 32 bits with a sign, and is none below zero.
fn milliseconds(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    // Reading it as a number would allow a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<i32>().ok().filter(|_| digits).and_then(|ms| u64::try_from(ms).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&[u8]]) -> Pushback {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PUSHBACK, HeaderValue::from_bytes(value).unwrap());
        }
        read(&headers)
    }

    fn after(ms: u64) -> Pushback {
        Pushback::After(Duration::from_millis(ms))
    }

    #[test]
    fn each_row_of_the_table_holds() {
        for (value, expected) in [
            ("0", after(0)),
            ("1500", after(1500)),
            ("0020", after(20)),
            (" 20\t", after(20)),
            ("86400001", after(86_400_000)),
            ("2147483647", after(86_400_000)),
            ("2147483648", Pushback::Never),
            ("99999999999999999999", Pushback::Never),
            ("-1", Pushback::Never),
            ("+1", Pushback::Never),
            ("1.5", Pushback::Never),
            ("1s", Pushback::Never),
            ("1,2", Pushback::Never),
            ("", Pushback::Never),
        ] {
            assert_eq!(of(&[value.as_bytes()]), expected, "{value:?}");
        }
        assert_eq!(of(&[b"\xff"]), Pushback::Never);
        assert_eq!(of(&[]), Pushback::Nothing);
        assert_eq!(of(&[b"10", b"30", b"20"]), after(30));
        assert_eq!(of(&[b"10", b"-1"]), Pushback::Never);
    }

    #[test]
    fn of_pushback_and_retry_info_the_longer_holds_and_a_refusal_before_both() {
        let both = |pushback: &'static str| {
            let headers = [
                (PUSHBACK, HeaderValue::from_static(pushback)),
                (DETAILS, details::tests::retry_info(2, 500_000_000)),
            ];
            read(&HeaderMap::from_iter(headers))
        };
        assert_eq!((both("100"), both("9000")), (after(2500), after(9000)));
        assert_eq!(both("-1"), Pushback::Never);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_day_at_most_and_never_a_panic(
            pushbacks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..14), 0..3),
            details in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..3),
        ) {
            let mut headers = HeaderMap::new();
            for (name, values) in [(PUSHBACK, pushbacks), (DETAILS, details)] {
                for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
                    headers.append(&name, value);
                }
            }
            if let Pushback::After(wait) = read(&headers) {
                prop_assert!(wait <= LONGEST);
            }
        }

        #[test]
        fn a_number_of_milliseconds_means_what_it_says(ms in 0..=86_400_000_u64) {
            prop_assert_eq!(of(&[ms.to_string().as_bytes()]), after(ms));
        }
    }
}
