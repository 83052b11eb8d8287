//! Faults that a request asks for itself, by the headers of Envoy's fault filter.
//!
//! | header | |
//! |---|---|
//! | `x-envoy-fault-delay-request` | how long it waits, in milliseconds |
//! | `x-envoy-fault-abort-request` | the status it is answered with, 200 to 599 |
//! | `x-envoy-fault-delay-request-percentage`, `x-envoy-fault-abort-request-percentage` | the share of such requests, 0 to 100; all by default |
//! | `x-envoy-fault-throughput-response` | how fast the answer's body comes, in KiB a second |
//!
//! A value that can't be read, or lies outside, is as if it weren't there; a delay is at most
//! [`Limits::max_delay`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::limits::Limits;
use super::machine::{Act, Answer, Spoil};
use crate::rng::Rng;

const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_SHARE: &str = "x-envoy-fault-delay-request-percentage";
const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_SHARE: &str = "x-envoy-fault-abort-request-percentage";
const THROUGHPUT: &str = "x-envoy-fault-throughput-response";

/// A slow body comes so often.
const EVERY: Duration = Duration::from_millis(50);

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Wish {
    /// How long, and its chance.
    delay: Option<(Duration, f64)>,
    abort: Option<(StatusCode, f64)>,
    throughput: Option<Pace>,
}

/// Bytes at a time, and for how long at most.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    bytes: u64,
    most: Duration,
}

impl Wish {
    /// `None` when it asks for nothing.
    pub(super) fn read(headers: &HeaderMap, limits: &Limits) -> Option<Self> {
        let number = |name| number(headers, name);
        let share = |name| number(name).map_or(1.0, |percent| percent.min(100) as f64 / 100.0);
        let delay = number(DELAY).map(|millis| Duration::from_millis(millis).min(limits.max_delay));
        let status = number(ABORT).and_then(|status| u16::try_from(status).ok());
        let status = status.filter(|status| (200..600).contains(status));
        let abort = status.and_then(|status| StatusCode::from_u16(status).ok());
        let throughput = number(THROUGHPUT).filter(|kib| *kib > 0);
        let throughput = throughput.map(|kib| Pace {
            bytes: (kib.saturating_mul(1024) / (1000 / EVERY.as_millis() as u64)).max(1),
            most: limits.max_delay,
        });
        (delay.is_some() || abort.is_some() || throughput.is_some()).then(|| Self {
            delay: delay.map(|delay| (delay, share(DELAY_SHARE))),
            abort: abort.map(|status| (status, share(ABORT_SHARE))),
            throughput,
        })
    }

    /// `None` when nothing is drawn.
    pub(super) fn draw(self, rng: &mut Rng) -> Option<(Duration, Act)> {
        let mut drawn = |chance: f64| rng.unit() < chance;
        let delay = self.delay.filter(|(_, chance)| drawn(*chance)).map(|(delay, _)| delay);
        let abort = self.abort.filter(|(_, chance)| drawn(*chance)).map(|(status, _)| status);
        let act = match (abort, self.throughput) {
            (Some(status), _) => {
                Act::Answer(Arc::new(Answer { status, headers: HeaderMap::new(), body: Bytes::new() }))
            }
            (None, Some(Pace { bytes, most })) => Act::Spoil(Spoil::Trickle { bytes, every: EVERY, most }),
            (None, None) => {
                delay?;
                Act::Serve
            }
        };
        Some((delay.unwrap_or_default(), act))
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(headers: &[(&'static str, &str)]) -> Option<Wish> {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        Wish::read(&headers.collect(), &Limits::standard())
    }

    #[test]
    fn what_cannot_be_read_is_not_there_and_what_is_too_long_is_cut() {
        for nothing in
            [&[][..], &[(DELAY, "soon")], &[(ABORT, "99")], &[(ABORT, "600")], &[(THROUGHPUT, "0")]]
        {
            assert_eq!(wish(nothing), None, "{nothing:?}");
        }
        let long = wish(&[(DELAY, "99999999999")]).unwrap();
        assert_eq!(long.delay, Some((Duration::from_secs(30), 1.0)));
    }

    #[test]
    fn delay_and_abort_have_shares_of_their_own() {
        let both = || wish(&[(DELAY, "10"), (ABORT, "503"), (ABORT_SHARE, "25")]).unwrap();
        let drawn = (0..4000).filter_map(|n| both().draw(&mut Rng::seeded(n)));
        let aborted = drawn
            .map(|(delay, act)| {
                assert_eq!(delay, Duration::from_millis(10));
                usize::from(matches!(act, Act::Answer(_)))
            })
            .sum::<usize>();
        assert!((900..1100).contains(&aborted), "{aborted}");
        assert!(wish(&[(DELAY, "10"), (DELAY_SHARE, "0")]).unwrap().draw(&mut Rng::seeded(1)).is_none());
    }
}
