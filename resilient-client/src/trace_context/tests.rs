use proptest::prelude::*;

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn parent(text: &str) -> Option<TraceContext> {
    TraceContext::of(&headers(&[("traceparent", text)]))
}

#[test]
fn a_context_is_written_as_it_was_read() {
    let given =
        headers(&[("traceparent", PARENT), ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")]);
    let context = TraceContext::of(&given).unwrap();
    assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
    assert!(context.is_sampled());
    let mut written = HeaderMap::new();
    context.write(&mut written);
    assert_eq!(written, given);
}

/// The cases of the standard, section 3.2.
#[test]
fn what_the_standard_calls_invalid_is_as_if_it_was_not_there() {
    for bad in [
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "0 -0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01what",
        "\u{fc}-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert_eq!(parent(bad), None, "{bad}");
    }
    let twice = headers(&[("traceparent", PARENT), ("traceparent", PARENT)]);
    assert_eq!(TraceContext::of(&twice), None);
    assert_eq!(TraceContext::of(&headers(&[("tracestate", "a=1")])), None, "no state without a parent");
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known_and_unknown_flags_are_not_handed_on() {
    for later in [
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-holds",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fd",
    ] {
        let mut written = HeaderMap::new();
        parent(later).unwrap().write(&mut written);
        assert_eq!(written[TRACEPARENT], PARENT, "{later}");
    }
}

#[test]
fn a_state_that_breaks_a_rule_is_dropped_whole_and_the_trace_goes_on() {
    let state = |given: &[&str]| {
        let mut given: Vec<_> = given.iter().map(|state| ("tracestate", *state)).collect();
        given.push(("traceparent", PARENT));
        TraceContext::of(&headers(&given)).unwrap().state().map(str::to_owned)
    };
    assert_eq!(state(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"), "several headers are one list");
    assert_eq!(state(&[" a=1 ,\t,b=2,"]).as_deref(), Some("a=1,b=2"));
    assert_eq!(state(&["t@v=x y"]).as_deref(), Some("t@v=x y"));
    let many: Vec<_> = (0..33).map(|n| format!("k{n}=1")).collect();
    assert!(state(&[&many[..32].join(",")]).is_some());
    for bad in ["a", "a=1,a=2", "A=1", "=1", "a=", "a=b=c", "a=\u{fc}", &many.join(",")] {
        assert_eq!(state(&[bad]), None, "{bad}");
    }
    assert_eq!(state(&[]), None);
}

#[tokio::test]
async fn a_scope_holds_while_it_is_polled_and_is_handed_over_to_what_is_spawned() {
    let context = TraceContext::new();
    assert_eq!(current(), None);
    let inner = context.child();
    scope(context.clone(), async {
        tokio::task::yield_now().await;
        assert_eq!(current().as_ref(), Some(&context));
        scope(inner.clone(), async { assert_eq!(current().as_ref(), Some(&inner)) }).await;
        let (bare, carried) = (tokio::spawn(async { current() }), tokio::spawn(carried(async { current() })));
        assert_eq!(bare.await.unwrap(), None);
        assert_eq!(carried.await.unwrap().as_ref(), Some(&context));
    })
    .await;
    assert_eq!(current(), None);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_a_span_of_its_own_below_the_current_one() {
    use crate::hook::Hook;
    use crate::testkit::rig::Rig;
    use crate::testkit::script::answer;

    let hook = Some(Hook::new(PropagateTrace));
    let rig = Rig::with(crate::Policy::standard().into(), hook, [answer(503), answer(503), answer(200)]);
    let context = TraceContext::of(&headers(&[("traceparent", PARENT), ("tracestate", "a=1")])).unwrap();
    scope(context.clone(), rig.get()).await.unwrap();
    let sent: Vec<_> = rig.script.headers().iter().map(|it| TraceContext::of(it).unwrap()).collect();
    assert_eq!(sent.len(), 3);
    for (n, attempt) in sent.iter().enumerate() {
        assert_eq!((attempt.trace, attempt.flags), (context.trace, context.flags));
        assert_eq!(attempt.state(), Some("a=1"));
        assert_ne!(attempt.span, context.span);
        assert!(sent[..n].iter().all(|earlier| earlier.span != attempt.span), "{sent:?}");
    }
    rig.get().await.unwrap();
    assert_eq!(TraceContext::of(rig.script.headers().last().unwrap()), None, "none where there is none");
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_dropped_and_what_is_written_is_read_again(
        bytes in proptest::collection::vec(0x20_u8..=0xff, 0..80),
        state in "[ -~]{0,40}",
    ) {
        let mut given = headers(&[("tracestate", state.as_str())]);
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            given.insert(TRACEPARENT, value);
        }
        let _ = TraceContext::of(&given);
        given.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
        let read = TraceContext::of(&given).unwrap();
        let mut written = HeaderMap::new();
        read.write(&mut written);
        prop_assert_eq!(TraceContext::of(&written), Some(read));
    }
}
