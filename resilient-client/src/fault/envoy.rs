//! Faults that a request asks for itself, by the headers of Envoy's fault filter.
//!
//! | header | |
//! |---|---|
//! | `x-envoy-fault-delay-request` | how long it waits, in milliseconds |
//! | `x-envoy-fault-abort-request` | the status it is answered with, 200 to 599 |
//! | `x-envoy-fault-throughput-response` | how fast the answer's body comes, in KiB a second |
//! | each of these with `-percentage` after it | the share of such requests: a whole number, 0 to 100; all by default |
//!
//! A value that can't be read, or lies outside, is as if it weren't there, and a log line at debug
//! level names its header. So a share of `0.5` is all: Envoy's filter has its own percentage then,
//! and here that is 100, of 100. A delay is at most [`Limits::max_delay`].

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
const THROUGHPUT_SHARE: &str = "x-envoy-fault-throughput-response-percentage";

/// A slow body comes so often.
const EVERY: Duration = Duration::from_millis(50);

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Wish {
    /// How long, and its chance.
    delay: Option<(Duration, f64)>,
    abort: Option<(StatusCode, f64)>,
    throughput: Option<(Pace, f64)>,
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
        let share = |name| value(headers, name, Some).map_or(1.0, |percent| percent.min(100) as f64 / 100.0);
        let status = |number| {
            let status = u16::try_from(number).ok().filter(|status| (200..600).contains(status))?;
            StatusCode::from_u16(status).ok()
        };
        let pace = |kib: u64| {
            let bytes = (kib.saturating_mul(1024) / (1000 / EVERY.as_millis() as u64)).max(1);
            (kib > 0).then_some(Pace { bytes, most: limits.max_delay })
        };
        let delay = |millis| Some(Duration::from_millis(millis).min(limits.max_delay));
        let wish = Self {
            delay: value(headers, DELAY, delay).map(|delay| (delay, share(DELAY_SHARE))),
            abort: value(headers, ABORT, status).map(|status| (status, share(ABORT_SHARE))),
            throughput: value(headers, THROUGHPUT, pace).map(|pace| (pace, share(THROUGHPUT_SHARE))),
        };
        let asks = wish.delay.is_some() || wish.abort.is_some() || wish.throughput.is_some();
        asks.then_some(wish)
    }

    /// `None` when nothing is drawn.
    pub(super) fn draw(self, rng: &mut Rng) -> Option<(Duration, Act)> {
        let mut drawn = |chance: f64| rng.unit() < chance;
        let delay = self.delay.filter(|(_, chance)| drawn(*chance)).map(|(delay, _)| delay);
        let abort = self.abort.filter(|(_, chance)| drawn(*chance)).map(|(status, _)| status);
        let pace = self.throughput.filter(|(_, chance)| drawn(*chance)).map(|(pace, _)| pace);
        let act = match (abort, pace) {
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

/// A whole number that means something. Whoever sends another wonders what it did.
fn value<T>(headers: &HeaderMap, name: &str, meaning: impl FnOnce(u64) -> Option<T>) -> Option<T> {
    let text = headers.get(name)?;
    let read = text.to_str().ok().and_then(|text| text.trim().parse().ok()).and_then(meaning);
    if read.is_none() {
        tracing::debug!(
            target: "resilient_client",
            header = name,
            "a header that asks for a fault has a value that can't be read, and is ignored"
        );
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;

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
        let slow = wish(&[(THROUGHPUT, "10"), (THROUGHPUT_SHARE, "0")]);
        assert!(slow.unwrap().draw(&mut Rng::seeded(1)).is_none());
    }

    /// Without its own fields: those of the headers that were ignored.
    #[derive(Clone, Default)]
    struct Ignored(Arc<Mutex<Vec<String>>>);

    impl tracing::field::Visit for Ignored {
        fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}

        fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
            self.0.lock().extend((field.name() == "header").then(|| value.to_owned()));
        }
    }

    impl tracing::Subscriber for Ignored {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn event(&self, event: &tracing::Event<'_>) {
            event.record(&mut self.clone());
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// As in Envoy, whose filter has its own percentage then. Nobody was told why all requests were
    /// hit.
    #[test]
    fn a_share_that_cannot_be_read_is_all_and_its_header_is_told_of() {
        for (value, chance) in
            [("0.5", 1.0), ("-1", 1.0), ("half", 1.0), ("", 1.0), ("101", 1.0), ("0", 0.0), (" 7 ", 0.07)]
        {
            let ignored = Ignored::default();
            let (abort, delay, slow) = tracing::subscriber::with_default(ignored.clone(), || {
                let shares = [(ABORT_SHARE, value), (DELAY_SHARE, value), (THROUGHPUT_SHARE, value)];
                let wish = wish(&[&shares[..], &[(ABORT, "503"), (DELAY, "1"), (THROUGHPUT, "1")]].concat());
                let Wish { delay, abort, throughput } = wish.unwrap();
                (abort.unwrap().1, delay.unwrap().1, throughput.unwrap().1)
            });
            assert_eq!((abort, delay, slow), (chance, chance, chance), "{value}");
            let known = value.trim().parse::<u64>().is_ok();
            let told = if known { vec![] } else { vec![DELAY_SHARE, ABORT_SHARE, THROUGHPUT_SHARE] };
            assert_eq!(*ignored.0.lock(), told, "{value}");
        }
    }
}
