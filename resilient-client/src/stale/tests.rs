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
    read.answered(StatusCode::OK, &headers, None, true).expect("may be stored")
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
    assert!(read(&cache, "ann").answered(StatusCode::FORBIDDEN, &HeaderMap::new(), None, true).is_none());
    on_its_way.commit(b"no longer hers");
    assert_eq!(body(&cache, "ann"), None);
    assert_eq!(body(&cache, "bob").unwrap(), "bob");
}

#[test]
fn of_two_calls_the_one_that_began_later_is_kept() {
    let cache = cache();
    let mut early = draft(read(&cache, "ann"));
    early.kept.began.tick = time::Tick::ZERO;
    draft(read(&cache, "ann")).commit(b"late");
    early.commit(b"early");
    assert_eq!(body(&cache, "ann").unwrap(), "late");
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
