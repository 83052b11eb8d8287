//! What calls that cross each other leave in the store.

use http::header::{AUTHORIZATION, CACHE_CONTROL};

use super::*;

fn cache() -> Arc<Cache> {
    Arc::new(Cache::new(StaleIfError::new().compile(false).unwrap()))
}

fn asked(cache: &Arc<Cache>, method: &Method, user: &'static str) -> Option<Asked> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static(user));
    Asked::new(cache, method, &"http://users:3000/me".parse().unwrap(), &headers, None, false)
}

fn read(cache: &Arc<Cache>, user: &'static str) -> Read {
    match asked(cache, &Method::GET, user) {
        Some(Asked::Read(read)) => *read,
        _ => panic!("a GET reads"),
    }
}

fn draft(read: Read) -> Draft {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("stale-if-error=600"));
    read.answered(StatusCode::OK, &headers, None, true, came(0, 0)).expect("may be stored")
}

fn came(earliest: u64, latest: u64) -> Came {
    Came { earliest: Tick::from_nanos(earliest), latest: Tick::from_nanos(latest) }
}

fn body(cache: &Arc<Cache>, user: &'static str) -> Option<Bytes> {
    read(cache, user).look_up().map(|stored| stored.body)
}

#[test]
fn an_answer_asked_for_before_a_change_is_not_stored_after_it() {
    let cache = cache();
    draft(read(&cache, "bob")).commit(b"old");
    let on_its_way = draft(read(&cache, "ann"));
    let Some(Asked::Write { url, .. }) = asked(&cache, &Method::PATCH, "ann") else {
        panic!("a PATCH changes")
    };
    cache.changed(&url);
    on_its_way.commit(b"old");
    assert_eq!(cache.snapshot(), StaleSnapshot { entries: 0, bytes: 0 });
    draft(read(&cache, "ann")).commit(b"new");
    assert_eq!(body(&cache, "ann").unwrap(), "new");
}

#[test]
fn a_refusal_removes_what_its_asker_had_and_what_is_on_its_way_to_it() {
    let cache = cache();
    for user in ["ann", "bob"] {
        draft(read(&cache, user)).commit(user.as_bytes());
    }
    let on_its_way = draft(read(&cache, "ann"));
    assert!(
        read(&cache, "ann")
            .answered(StatusCode::FORBIDDEN, &HeaderMap::new(), None, true, came(0, 0))
            .is_none()
    );
    on_its_way.commit(b"no longer hers");
    assert_eq!(body(&cache, "ann"), None);
    assert_eq!(body(&cache, "bob").unwrap(), "bob");
}

/// Whichever call began first and whichever body was read first. Of those read inside their calls
/// only that much is known.
#[test]
fn an_answer_never_takes_the_place_of_one_that_may_have_come_after_it() {
    for (first, second, second_is_kept) in [
        (came(5, 5), came(6, 6), true),
        (came(5, 5), came(4, 4), false),
        (came(1, 5), came(5, 9), true),
        (came(1, 5), came(4, 4), false),
        (came(1, 5), came(4, 9), false),
        (came(5, 5), came(4, 9), false),
    ] {
        let cache = cache();
        let [mut one, mut two] = [(); 2].map(|()| draft(read(&cache, "ann")));
        (one.came, two.came) = (first, second);
        one.commit(b"first");
        two.commit(b"second");
        let expected = if second_is_kept { "second" } else { "first" };
        assert_eq!(body(&cache, "ann").unwrap(), expected, "{first:?} {second:?}");
    }
}

#[test]
fn a_body_too_long_to_keep_removes_nothing_that_came_after_it() {
    let cache = cache();
    let mut old = draft(read(&cache, "ann"));
    old.came = came(3, 3);
    let mut new = draft(read(&cache, "ann"));
    new.came = came(4, 4);
    new.commit(b"new");
    old.too_long();
    assert_eq!(body(&cache, "ann").unwrap(), "new");
}

#[test]
fn a_body_too_long_to_keep_removes_the_one_before() {
    let cache = cache();
    draft(read(&cache, "ann")).commit(b"short");
    let long = vec![0; cache.limits.max_entry_bytes];
    draft(read(&cache, "ann")).commit(&long);
    assert_eq!(cache.snapshot().entries, 0);
}

#[test]
fn safe_methods_change_nothing_and_others_do() {
    let cache = cache();
    for method in [Method::OPTIONS, Method::TRACE] {
        assert!(asked(&cache, &method, "ann").is_none());
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::from_bytes(b"PURGE").unwrap()] {
        assert!(matches!(asked(&cache, &method, "ann"), Some(Asked::Write { .. })), "{method}");
    }
}

#[test]
fn errors_of_the_callers_own_get_no_substitute() {
    use ErrorKind::{
        BodyTooLarge, Config, Deadline, Decode, Draining, NoEndpoint, Redirect, Request, Status,
    };
    for own in [Config, Request, Draining, BodyTooLarge, Decode, Redirect, Status] {
        assert!(!Read::stands_in_for_error(&Error::new(own)), "{own:?}");
    }
    for other in [Deadline, NoEndpoint, ErrorKind::CircuitOpen, ErrorKind::Body] {
        assert!(Read::stands_in_for_error(&Error::new(other)), "{other:?}");
    }
}
