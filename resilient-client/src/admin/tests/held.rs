//! Who holds a body for longer than the call may take: by that call's own time, whoever set it.

use crate::CallOptions;
use crate::deadline::{self, Deadline};
use crate::policy::timeout::TimeoutPolicy;

use super::*;

/// An answer whose body never comes, and which somebody holds and doesn't read.
async fn held(layer: &ResilienceLayer, url: &str, options: CallOptions) -> impl Sized + use<> {
    let answer = service_fn(|_: Request<String>| async {
        Ok::<_, std::convert::Infallible>(Response::new(http_body_util::StreamBody::new(Never)))
    });
    let mut request = Request::get(url).body(String::new()).unwrap();
    request.extensions_mut().insert(options);
    layer.layer(answer).oneshot(request).await.unwrap()
}

async fn old(router: &Router) -> Vec<String> {
    let calls = &get(router, "/snapshot").await["clients"][0]["calls"];
    let rows = calls["old_bodies"].as_array().unwrap().iter();
    rows.map(|row| row["upstream"].as_str().unwrap().trim_start_matches("http://").to_owned()).collect()
}

/// It went by the client's total, whatever the host's or the call's was.
#[tokio::test(start_paused = true)]
async fn a_body_is_old_by_its_own_calls_time() {
    let seconds = Duration::from_secs;
    let total = |total| {
        Policy::standard().timeout(TimeoutPolicy::standard().attempt(seconds(1)).total(seconds(total)))
    };
    let policies =
        PolicySet::new(total(10)).host("http://quick", |_| total(2)).host("http://slow", |_| total(100));
    let layer = ResilienceLayer::new(policies).unwrap();
    let router = router(&layer);
    let options = CallOptions::new;
    let _held = (
        held(&layer, "http://usual/", options()).await,
        held(&layer, "http://quick/", options()).await,
        held(&layer, "http://slow/", options()).await,
        held(&layer, "http://own/", options().timeout(seconds(4))).await,
        held(&layer, "http://stream/", options().streaming()).await,
        deadline::scope(Deadline::within(seconds(6)), held(&layer, "http://ambient/", options())).await,
    );
    let mut seen = Vec::new();
    for _ in 0..6 {
        tokio::time::sleep(seconds(2)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        seen.push(old(&router).await.len());
    }
    assert_eq!(seen, [1, 2, 3, 3, 4, 4], "quick after 2 s, own after 4, ambient after 6, usual after 10");
    tokio::time::sleep(seconds(100)).await;
    let mut all = old(&router).await;
    all.sort();
    assert_eq!(all, ["ambient", "own", "quick", "slow", "usual"], "a stream may take its time");
}

/// A hundred older streams hid it.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_held_is_found_behind_any_number_of_older_calls() {
    let layer = layer();
    let router = router(&layer);
    let mut held_bodies = Vec::new();
    for _ in 0..150 {
        held_bodies.push(held(&layer, "http://stream/", CallOptions::new().streaming()).await);
    }
    let _late = held(&layer, "http://users/", CallOptions::new()).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(old(&router).await, ["users"]);
}

#[tokio::test]
async fn connections_are_told_of_by_a_transport_that_knows_and_are_nothing_else() {
    let snapshot = async |admin: Admin| {
        let router = Router::new().nest("/admin", admin.router().unwrap());
        get(&router, "/snapshot").await["clients"][0]["connections"].clone()
    };
    let admin = || Admin::new(Access::token(TOKEN));
    assert_eq!(snapshot(admin().client("layer", &layer())).await, Value::Null);
    #[cfg(feature = "reqwest")]
    {
        let reqwest = crate::Client::builder().transport(reqwest::ClientBuilder::no_proxy).build().unwrap();
        assert_eq!(snapshot(admin().client("reqwest", &reqwest)).await, Value::Null);
    }
    #[cfg(feature = "hyper")]
    {
        let hyper = crate::hyper::Client::builder().build().unwrap();
        let told = snapshot(admin().client("hyper", &hyper)).await;
        assert_eq!((&told["made"], &told["open"]), (&json!(0), &json!(0)), "{told}");
    }
}
