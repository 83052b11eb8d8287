//! Whose requests are let in, by their heads alone.

use http::Request;

use super::*;

const HERE: &str = "127.0.0.1:3101";

fn admits(url: &str, headers: &[(&str, &str)]) -> bool {
    let access = Access::token("open sesame").peer(|_| Some(([127, 0, 0, 1], 7).into()));
    let mut request = Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    access.admit_page(&request.body(()).unwrap().into_parts().0).is_ok()
}

#[test]
fn a_host_is_a_name_of_this_one_and_perhaps_a_port() {
    for host in [HERE, "localhost", "LOCALHOST:80", "[::1]:3101", "[::1]", "127.0.0.2:65535"] {
        assert!(admits("/", &[("host", host)]), "{host}");
    }
    // What stands behind the colon was let in, whatever it was.
    for host in [
        "localhost:3101, evil.example",
        "127.0.0.1:3101#",
        "localhost:65536",
        "localhost:+1",
        "localhost:",
        "localhost:evil.example",
        "[::1]evil.example",
        "[::1",
        "user@localhost",
        "user:secret@localhost",
        "evil.example",
        "127.0.0.1.nip.io",
        "",
    ] {
        assert!(!admits("/", &[("host", host)]), "{host}");
    }
}

/// RFC 9112, 3.2.2: what stands in the request's target is whom it is addressed to.
#[test]
fn what_a_target_names_and_host_are_the_same() {
    assert!(admits("http://127.0.0.1:3101/", &[("host", HERE)]));
    assert!(admits("http://127.0.0.1:3101/", &[]), "HTTP/2");
    assert!(admits("http://LOCALHOST/", &[("host", "localhost")]));
    assert!(!admits("http://evil.example/", &[("host", HERE)]));
    assert!(!admits("http://127.0.0.1:3101/", &[("host", "evil.example")]));
    assert!(!admits("http://evil.example/", &[]));
}

#[test]
fn an_origin_is_that_of_the_host() {
    let from = |origin| admits("/", &[("host", HERE), ("origin", origin)]);
    assert!(from("http://127.0.0.1:3101") && from("https://127.0.0.1:3101"));
    for origin in ["http://127.0.0.1:3102", "http://localhost:3101", "null", "file://", ""] {
        assert!(!from(origin), "{origin}");
    }
}
