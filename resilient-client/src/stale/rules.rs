//! What HTTP allows: RFC 9111 for storing, age and freshness, RFC 5861 for giving a stale answer.
//!
//! The rules are those of the crate `http-cache-semantics`, as a private cache. It knows nothing of
//! `stale-if-error`, but it does of `max-stale`, which says of any request what `stale-if-error`
//! says of one that failed: so it is asked in those words. It is shown only the fields it decides
//! by, brought into a form it reads rightly, because version 3.0.0
//!
//! - takes directive names for case-sensitive, so that `No-Store` would be stored: they are shown
//!   in lower case;
//! - skips values that aren't plain ASCII, a `no-store` among them: such answers aren't stored;
//! - adds to `Age` without a check, which panics for a huge one: it is capped;
//! - leaves out what `Date` says of the age (RFC 9111 section 4.2.3): it goes into the `Age` it is
//!   shown;
//! - compares the first of several values under `Vary`: that is done here, for all;
//! - rewrites `Date`, and keeps one of several values, in the heads it hands back: they aren't
//!   used.

use std::time::{Duration, SystemTime};

use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, DATE, EXPIRES, PRAGMA, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};

use crate::invalid::LONGEST;
use crate::time::Tick;

/// What concerns one connection (RFC 9110 section 7.6.1) or one moment. A cookie set anew would
/// bring an old session back.
const LEFT_OUT: [HeaderName; 11] = [
    AGE,
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("warning"),
];

/// What an entry costs beyond its bytes: its slot, its places in the maps, its allocations. An
/// estimate: with it, 16 MiB as counted were 20.5 MiB of memory in the story of 100,000 URLs,
/// connections included.
const OVERHEAD: usize = 768;
/// What a header costs beyond its bytes.
const PER_HEADER: usize = 192;

/// One moment on both clocks. The monotonic one stands still while a machine sleeps and the other
/// can be set back; an answer is as old as the one says by which it is older.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) tick: Tick,
    pub(super) wall: SystemTime,
}

impl Moment {
    fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        self.tick.since(earlier.tick).max(wall)
    }
}

/// The head of an answer, and what is needed to judge it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) status: StatusCode,
    /// What is given with it.
    pub(super) headers: HeaderMap,
    /// What the rules go by, as the crate reads it.
    shown: HeaderMap,
    /// The request headers that `Vary` names.
    asked: HeaderMap,
    /// How long past its freshness it may be given, if the server says.
    window: Option<u64>,
    /// When the call that brought it began, the safe side of when it was answered.
    pub(super) began: Moment,
}

impl Kept {
    /// About how many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        let maps = [&self.headers, &self.shown, &self.asked];
        let headers = maps.iter().flat_map(|map| map.iter());
        OVERHEAD + headers.map(|(name, value)| PER_HEADER + name.as_str().len() + value.len()).sum::<usize>()
    }

    fn policy(&self) -> CachePolicy {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        response.headers_mut().clone_from(&self.shown);
        // Fresh is what the server says is fresh.
        let options = CacheOptions {
            shared: false,
            cache_heuristic: 0.0,
            immutable_min_time_to_live: Duration::ZERO,
            ignore_cargo_cult: false,
        };
        CachePolicy::new_options(&Request::new(()), &response, self.began.wall, options)
    }

    /// How old it is, if it may be given to a request with these directives within `window`.
    fn within(&self, directives: &str, window: Option<u64>, now: Moment) -> Option<Duration> {
        let mut question = Request::new(());
        let asked =
            window.map_or_else(|| directives.to_owned(), |window| format!("{directives},max-stale={window}"));
        question.headers_mut().insert(CACHE_CONTROL, HeaderValue::try_from(asked).ok()?);
        let now = self.began.wall.checked_add(now.since(self.began))?;
        let policy = self.policy();
        match policy.before_request(&question, now) {
            BeforeRequest::Fresh(_) => Some(policy.age(now)),
            BeforeRequest::Stale { .. } => None,
        }
    }
}

/// Whether a request has anything to do with a store at all: it doesn't forbid it, in words we can
/// read.
pub(super) fn allows(request: &HeaderMap) -> bool {
    directives(request).is_some_and(|directives| !has(&directives, "no-store"))
}

/// The answer, if it may be stored and could ever be given.
pub(super) fn keep(
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    default_window: Option<u64>,
    began: Moment,
) -> Option<Kept> {
    let (said, asked) = (directives(response)?, directives(request)?);
    let pragma = response.get(PRAGMA).is_some_and(|pragma| said.is_empty() && contains(pragma, "no-cache"));
    // A stale answer is forbidden by these two whatever else is said (RFC 9111 section 4.2.4).
    if !status.is_success() || has(&said, "no-store") || has(&said, "no-cache") || pragma {
        return None;
    }
    let mut shown = HeaderMap::new();
    shown.insert(AGE, HeaderValue::from(initial_age(response, began.wall)));
    shown.insert(CACHE_CONTROL, HeaderValue::try_from(&said).ok()?);
    for name in [DATE, EXPIRES] {
        if let Some(value) = response.get(&name) {
            shown.insert(name, copied(value));
        }
    }
    let allowed = window(&said);
    let kept = Kept {
        status,
        headers: given(response),
        shown,
        asked: named(request, response)?,
        window: allowed,
        began,
    };
    let ever = window(&asked).or(allowed).or(default_window);
    (kept.policy().is_storable() && kept.within("", ever, began).is_some()).then_some(kept)
}

/// How old the answer is, if it may be given to this request now.
pub(super) fn may_answer(
    kept: &Kept,
    request: &HeaderMap,
    default_window: Option<u64>,
    now: Moment,
) -> Option<Duration> {
    let same = |name: &HeaderName| kept.asked.get_all(name).iter().eq(request.get_all(name).iter());
    // `keep` left a mark for each name, so that a header that wasn't there mustn't be there now.
    if !vary(&kept.headers)?.iter().all(same) {
        return None;
    }
    let asked = directives(request)?;
    if has(&asked, "no-store")
        || request.get(PRAGMA).is_some_and(|pragma| asked.is_empty() && contains(pragma, "no-cache"))
    {
        return None;
    }
    let window = window(&asked).or(kept.window).or(default_window);
    // The request's own `max-stale` is about answers when nothing is wrong.
    let plain = asked.split(',').filter(|one| !matches!(name_of(one), "max-stale" | "stale-if-error"));
    kept.within(&plain.collect::<Vec<_>>().join(","), window, now)
}

/// All cache directives in lower case; `None` when they can't be read, in which case they could
/// forbid anything.
fn directives(headers: &HeaderMap) -> Option<String> {
    let mut all = String::new();
    for value in headers.get_all(CACHE_CONTROL) {
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(&value.to_str().ok()?.to_ascii_lowercase());
    }
    Some(all)
}

fn name_of(directive: &str) -> &str {
    directive.split_once('=').map_or(directive, |(name, _)| name).trim()
}

fn has(directives: &str, name: &str) -> bool {
    directives.split(',').any(|one| name_of(one) == name)
}

/// The seconds of `stale-if-error`: the least of several, and none at all where they can't be read.
fn window(directives: &str) -> Option<u64> {
    let windows = directives.split(',').filter(|one| name_of(one) == "stale-if-error");
    let seconds = windows.map(|one| {
        let (_, value) = one.split_once('=').unwrap_or_default();
        value.trim().trim_matches('"').parse().unwrap_or(0)
    });
    seconds.min()
}

fn contains(value: &HeaderValue, token: &str) -> bool {
    // Unreadable counts as yes: it is asked about what forbids.
    value.to_str().map_or(true, |value| value.to_ascii_lowercase().contains(token))
}

/// How old it came, in seconds: by its `Age` or its `Date`, whichever says more, ten years at most.
fn initial_age(response: &HeaderMap, began: SystemTime) -> u64 {
    let text = |name: &HeaderName| response.get(name).and_then(|value| value.to_str().ok());
    let longest = LONGEST.as_secs();
    // One that can't be read was meant to say something: the answer passes for stale.
    let age = text(&AGE).map_or(0, |age| age.trim().parse().unwrap_or(longest));
    let date = text(&DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let apparent = date.and_then(|date| began.duration_since(date).ok()).unwrap_or_default();
    age.max(apparent.as_secs()).min(longest)
}

/// The header names under `Vary`; `None` when no request could match.
fn vary(response: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in response.get_all(VARY) {
        for name in value.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // `*` is a valid name to the parser.
            names.push(HeaderName::try_from(name).ok().filter(|name| name.as_str() != "*")?);
        }
    }
    Some(names)
}

/// The request's headers that `Vary` names.
fn named(request: &HeaderMap, response: &HeaderMap) -> Option<HeaderMap> {
    let mut asked = HeaderMap::new();
    for name in vary(response)? {
        asked.remove(&name);
        for value in request.get_all(&name) {
            asked.append(name.clone(), copied(value));
        }
    }
    Some(asked)
}

/// The headers that are given with a stored answer.
fn given(response: &HeaderMap) -> HeaderMap {
    let nominated = response.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let nominated: Vec<_> = nominated.flat_map(|value| value.split(',')).map(str::trim).collect();
    let stays = |name: &HeaderName| {
        !LEFT_OUT.contains(name) && !nominated.iter().any(|one| one.eq_ignore_ascii_case(name.as_str()))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in response.iter().filter(|(name, _)| stays(name)) {
        headers.append(name.clone(), copied(value));
    }
    headers
}

/// A copy with bytes of its own: a value from the wire keeps the whole buffer alive that it was
/// read into.
fn copied(value: &HeaderValue) -> HeaderValue {
    let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) else { return value.clone() };
    copy.set_sensitive(value.is_sensitive());
    copy
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: Option<u64> = None;

    fn at(seconds: u64) -> Moment {
        Moment {
            tick: Tick::ZERO.after(Duration::from_secs(seconds)),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds),
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        map
    }

    fn kept(response: &[(&str, &str)]) -> Option<Kept> {
        keep(&HeaderMap::new(), StatusCode::OK, &headers(response), DEFAULT, at(0))
    }

    fn given_at(kept: &Kept, request: &[(&str, &str)], seconds: u64) -> bool {
        may_answer(kept, &headers(request), DEFAULT, at(seconds)).is_some()
    }

    #[test]
    fn an_answer_is_given_while_fresh_and_for_its_window_after() {
        let kept = kept(&[("cache-control", "max-age=60, stale-if-error=600")]).unwrap();
        for (seconds, given) in
            [(0, true), (59, true), (60, true), (659, true), (660, false), (100_000, false)]
        {
            assert_eq!(given_at(&kept, &[], seconds), given, "after {seconds} s");
        }
        assert_eq!(may_answer(&kept, &HeaderMap::new(), None, at(100)), Some(Duration::from_secs(100)));
    }

    #[test]
    fn without_a_word_of_the_server_nothing_is_kept_unless_the_user_has_a_default() {
        assert!(kept(&[]).is_none());
        assert!(
            kept(&[("last-modified", "Tue, 14 Nov 2000 00:00:00 GMT")]).is_none(),
            "freshness isn't guessed"
        );
        assert!(kept(&[("cache-control", "immutable")]).is_none());
        let none = HeaderMap::new();
        let kept = keep(&none, StatusCode::OK, &none, Some(30), at(0)).unwrap();
        assert!(may_answer(&kept, &none, Some(30), at(29)).is_some());
        assert!(may_answer(&kept, &none, Some(30), at(30)).is_none());
    }

    #[test]
    fn what_the_server_forbids_is_never_kept_however_it_is_written() {
        for control in [
            "no-store, max-age=60, stale-if-error=600",
            "No-Store, max-age=60, stale-if-error=600",
            "NO-CACHE, stale-if-error=600",
            "no-cache=\"set-cookie\", stale-if-error=600",
            "must-revalidate, stale-if-error=600",
            "Must-Revalidate, max-age=0, stale-if-error=600",
            "stale-if-error=600, private=\"x,no-store,y\"",
            "stale-if-error=600, x=\u{e9}",
            "max-age=0, stale-if-error=0",
            "stale-if-error=many",
            "stale-if-error=-1",
            "stale-if-error",
            "stale-if-error=600, stale-if-error=0",
        ] {
            assert!(kept(&[("cache-control", control)]).is_none(), "{control}");
        }
        assert!(kept(&[("cache-control", "stale-if-error=600"), ("cache-control", "no-store")]).is_none());
        assert!(kept(&[("cache-control", "stale-if-error=600"), ("vary", "*")]).is_none());
        assert!(kept(&[("pragma", "No-Cache"), ("expires", "Tue, 14 Nov 2034 00:00:00 GMT")]).is_none());
    }

    #[test]
    fn must_revalidate_lets_go_when_the_answer_turns_stale() {
        let kept = kept(&[("cache-control", "max-age=60, must-revalidate, stale-if-error=600")]).unwrap();
        assert!(given_at(&kept, &[], 59));
        assert!(!given_at(&kept, &[], 60));
    }

    #[test]
    fn a_private_answer_is_kept_and_so_is_one_for_an_authorised_request() {
        assert!(kept(&[("cache-control", "private, stale-if-error=600")]).is_some());
        let request = headers(&[("authorization", "Bearer x")]);
        let response = headers(&[("cache-control", "stale-if-error=600")]);
        assert!(keep(&request, StatusCode::OK, &response, None, at(0)).is_some());
    }

    #[test]
    fn only_whole_successes_are_kept() {
        let response = headers(&[("cache-control", "max-age=60, stale-if-error=600")]);
        for (status, expected) in [
            (200, true),
            (203, true),
            (204, true),
            (201, false),
            (206, false),
            (301, false),
            (404, false),
            (500, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let kept = keep(&HeaderMap::new(), status, &response, None, at(0));
            assert_eq!(kept.is_some(), expected, "{status}");
        }
    }

    #[test]
    fn the_request_has_the_last_word() {
        let kept = kept(&[("cache-control", "max-age=60, stale-if-error=600")]).unwrap();
        for (control, seconds, given) in [
            ("no-cache", 10, false),
            ("No-Cache", 10, false),
            ("no-store", 10, false),
            ("max-age=30", 29, true),
            ("max-age=30", 31, false),
            ("min-fresh=30", 31, false),
            ("stale-if-error=0", 59, true),
            ("stale-if-error=0", 61, false),
            ("Stale-If-Error=6000", 700, true),
            ("max-stale", 700, false),
            ("max-stale=10000", 700, false),
        ] {
            assert_eq!(
                given_at(&kept, &[("cache-control", control)], seconds),
                given,
                "{control} at {seconds}"
            );
        }
        assert!(!given_at(&kept, &[("pragma", "no-cache")], 10));
        assert!(!allows(&headers(&[("cache-control", "NO-STORE")])));
        assert!(!allows(&headers(&[("cache-control", "x=\u{e9}")])));
        assert!(allows(&headers(&[("cache-control", "no-cache")])));
    }

    #[test]
    fn a_request_can_ask_for_a_window_the_server_never_named() {
        let request = headers(&[("cache-control", "stale-if-error=100")]);
        let kept = keep(&request, StatusCode::OK, &HeaderMap::new(), None, at(0)).unwrap();
        assert!(may_answer(&kept, &request, None, at(99)).is_some());
        assert!(may_answer(&kept, &HeaderMap::new(), None, at(1)).is_none());
    }

    #[test]
    fn vary_compares_every_value_and_their_absence() {
        let response = headers(&[("cache-control", "stale-if-error=600"), ("vary", "user-agent, X-Lang")]);
        let asked = [("user-agent", "a"), ("x-lang", "de"), ("x-lang", "en")];
        let kept = keep(&headers(&asked), StatusCode::OK, &response, None, at(0)).unwrap();
        assert!(given_at(&kept, &asked, 1));
        for other in [
            &[("user-agent", "b"), ("x-lang", "de"), ("x-lang", "en")][..],
            &[("user-agent", "a"), ("x-lang", "de"), ("x-lang", "fr")],
            &[("user-agent", "a"), ("x-lang", "de")],
            &[("user-agent", "a")],
            &[],
        ] {
            assert!(!given_at(&kept, other, 1), "{other:?}");
        }
    }

    #[test]
    fn an_answer_that_came_old_is_old() {
        let control = ("cache-control", "max-age=60, stale-if-error=600");
        for old in [
            ("age", "661"),
            ("age", "18446744073709551615"),
            ("age", "99999999999999999999999"),
            ("age", "soon"),
            ("date", "Tue, 14 Nov 2023 22:00:00 GMT"),
        ] {
            assert!(kept(&[control, old]).is_none(), "{old:?}");
        }
        let kept = kept(&[control, ("age", "600")]).unwrap();
        assert_eq!(may_answer(&kept, &HeaderMap::new(), None, at(59)), Some(Duration::from_secs(659)));
        assert!(!given_at(&kept, &[], 60));
    }

    #[test]
    fn the_clock_by_which_it_is_older_counts() {
        let kept = kept(&[("cache-control", "stale-if-error=600")]).unwrap();
        let set_back = Moment { wall: at(0).wall - Duration::from_secs(9999), ..at(601) };
        let slept = Moment { tick: at(1).tick, ..at(601) };
        for now in [set_back, slept] {
            assert!(may_answer(&kept, &HeaderMap::new(), None, now).is_none());
        }
    }

    #[test]
    fn what_belongs_to_one_connection_or_session_is_left_out() {
        let kept = kept(&[
            ("cache-control", "stale-if-error=600"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("set-cookie", "sid=old"),
            ("link", "<a>"),
            ("link", "<b>"),
            ("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ])
        .unwrap();
        for gone in ["connection", "x-hop", "set-cookie"] {
            assert!(!kept.headers.contains_key(gone), "{gone}");
        }
        assert_eq!(kept.headers.get_all("link").iter().count(), 2);
        assert_eq!(kept.headers.get("date").unwrap(), "Tue, 14 Nov 2023 22:13:20 GMT");
    }

    proptest! {
        /// Nothing a server or a caller can say panics, and nothing is given past the widest window
        /// named.
        #[test]
        fn no_header_breaks_the_rules(
            control in "(max-age|stale-if-error|Age|no-cache|x|,|=|\"| |[0-9]{1,22}|;){0,12}",
            asked in "(max-age|stale-if-error|min-fresh|max-stale|no-cache|,|=|\"| |[0-9]{1,22}){0,12}",
            age in "[0-9]{0,22}", expires in ".{0,30}", vary in "[a-z*, ]{0,8}", seconds in 0_u64..u64::MAX / 4,
        ) {
            let value = |text: &str| HeaderValue::from_bytes(text.as_bytes());
            let mut response = HeaderMap::new();
            for (name, text) in [(CACHE_CONTROL, &control), (AGE, &age), (EXPIRES, &expires), (VARY, &vary)] {
                if let Ok(value) = value(text) {
                    response.insert(name, value);
                }
            }
            let request = headers(&[("cache-control", &asked)]);
            let Some(kept) = keep(&request, StatusCode::OK, &response, Some(60), at(0)) else { return Ok(()) };
            prop_assert!(!has(&control.to_ascii_lowercase(), "no-cache"));
            // Ages by the wall are bounded by what a `SystemTime` holds.
            let now = Moment { tick: Tick::ZERO.after(Duration::from_secs(seconds)), wall: at(0).wall };
            let _ = may_answer(&kept, &request, Some(60), now);
        }
    }
}
