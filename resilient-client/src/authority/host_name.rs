//! One way to write a host: as the URL standard normalises it.
//!
//! `127.1`, `0x7f000001` and `2130706433` are one address, and `[0:0::1]` is `[::1]`. An upstream
//! that is known by three names has three breakers. `url::Url` normalises, `http::Uri` keeps
//! what was written.
//!
//! A trailing dot stays, as in the standard: `users.` is a name from the root, and `users` may be
//! completed by the resolver's search list, so that they can be two places.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

use url::Url;

/// The host of an `http` or `https` URI, in lower case, as the standard writes it. `None` for what
/// it doesn't allow: an address with a number too many or too large, or with a zone.
///
/// Costs a few comparisons for a name, and a look at each byte for an IPv4 address in its usual
/// form.
#[inline]
pub(crate) fn normal(host: Cow<'_, str>) -> Option<Cow<'_, str>> {
    match host.as_bytes() {
        // Only these can end in a number or an address.
        [.., b'0'..=b'9' | b'a'..=b'f' | b'x' | b'.' | b']'] if !is_usual(&host) => {
            let url = Url::parse(&format!("http://{host}/")).ok()?;
            url.host_str().map(|host| Cow::Owned(host.to_owned()))
        }
        _ => Some(host),
    }
}

/// Whether the host is a name, or an address as the standard writes it.
fn is_usual(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(is_usual_v6);
    }
    is_usual_v4(host.as_bytes()) || !ends_in_number(host)
}

/// The URL standard, "ends in a number checker".
fn ends_in_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.bytes().rposition(|byte| byte == b'.').map_or(host, |dot| &host[dot + 1..]);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match last.strip_prefix("0x") {
        Some(number) => number.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && digits(last),
    }
}

/// Four numbers below 256 without leading zeros. By hand: the standard library's reading of an
/// address costs more, on every call.
fn is_usual_v4(host: &[u8]) -> bool {
    let (mut dots, mut number, mut digits) = (0, 0_u32, 0);
    for &byte in host {
        if byte == b'.' {
            if digits == 0 || number > 255 {
                return false;
            }
            (dots, number, digits) = (dots + 1, 0, 0);
        } else if !byte.is_ascii_digit() || digits == 3 || digits > 0 && number == 0 {
            return false;
        } else {
            (number, digits) = (number * 10 + u32::from(byte - b'0'), digits + 1);
        }
    }
    dots == 3 && digits > 0 && number < 256
}

fn is_usual_v6(text: &str) -> bool {
    let Ok(address) = text.parse::<Ipv6Addr>() else { return false };
    let mut rest = Rest(text);
    // The standard library writes the end of some as IPv4 addresses, which the URL standard
    // doesn't.
    !text.contains('.') && write!(rest, "{address}").is_ok() && rest.0.is_empty()
}

/// What is left of a text, when what is written must be that text.
struct Rest<'a>(&'a str);

impl fmt::Write for Rest<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(host: &str) -> Option<String> {
        normal(Cow::Borrowed(host)).map(Cow::into_owned)
    }

    #[test]
    fn an_address_is_one_however_it_is_written() {
        for text in
            ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.", "127.0.0x1"]
        {
            assert_eq!(of(text).unwrap(), "127.0.0.1", "{text}");
        }
        for text in ["[::1]", "[0:0::1]", "[0:0:0:0:0:0:0:1]", "[::0.0.0.1]", "[0000::0001]"] {
            assert_eq!(of(text).unwrap(), "[::1]", "{text}");
        }
        assert_eq!(of("[::ffff:1.2.3.4]").unwrap(), "[::ffff:102:304]");
    }

    #[test]
    fn a_name_stays_as_it_is_and_costs_no_copy() {
        for text in [
            "users",
            "users.",
            "a1",
            "10.0.0.1",
            "[fd00::1]",
            "0xg",
            "cafe.1a",
            "a.b-1",
            "x.0x1g",
            "255.255.255.255",
        ] {
            assert!(
                matches!(normal(Cow::Borrowed(text)), Some(Cow::Borrowed(same)) if same == text),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["256.256.256.256", "1.2.3.4.5", "4294967296", "09.1.1.1", "[fe80::1%25eth0]", "[1:2]", "[::1"]
        {
            assert_eq!(of(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]
        #[test]
        fn hosts_are_normalised_as_the_url_standard_does(
            host in prop_oneof![
                "[a-z0-9.-]{1,14}",
                "(0|0x|)[0-9]{1,4}(\\.(0|0x|)[0-9a-f]{1,3}){0,4}\\.?",
                "\\[[0-9a-f:.]{2,20}\\]",
                any::<std::net::Ipv6Addr>().prop_map(|address| format!("[{address}]")),
                any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
            ],
        ) {
            // What the standard refuses of names, such as bad punycode, no lookup finds either.
            if let Ok(url) = Url::parse(&format!("http://{host}/")) {
                let read = of(&host);
                prop_assert_eq!(read.as_deref(), url.host_str());
            }
        }
    }
}
