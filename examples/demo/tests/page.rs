//! The page to watch a run on: what it is given, and in a real browser what it shows.
//!
//! The browser's part needs Node.js, Chromium, and `npm ci` in `tests/browser`; where they aren't
//! there it is skipped, and says so. `PAGE_SCREENSHOTS` is a folder for pictures.

#![cfg(unix)]

mod held;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use held::{Held, text};
use serde_json::Value;

const BROWSER: &str = "/usr/bin/chromium";

/// What the held demo has said of where it can be watched: the page, the admin page and its token.
fn to_watch(held: &Held) -> [String; 3] {
    ["Both twins' last orders:", "The resilient client's own:", "  its token:"].map(|what| {
        let said = held.lines.iter().find_map(|line| line.strip_prefix(what));
        said.unwrap_or_else(|| panic!("{what} {:#?}", held.lines)).trim().to_owned()
    })
}

fn get(url: &str, token: Option<&str>) -> reqwest::blocking::Response {
    let http = reqwest::blocking::Client::builder().no_proxy().build().expect("a client");
    let request = http.get(url);
    let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
    request.send().expect("an answer")
}

/// Of a twin how many orders stand how, and the numbers of those shown.
type Standings = (BTreeMap<String, usize>, Vec<u64>);

fn standings(url: &str) -> [Standings; 2] {
    let view: Value = get(&format!("{url}orders"), None).json().expect("JSON");
    let of = |twin: usize| {
        let (mut counts, mut numbers) = (BTreeMap::new(), Vec::new());
        for order in view["twins"][twin]["orders"].as_array().expect("orders") {
            *counts.entry(order["standing"].as_str().expect("a text").to_owned()).or_default() += 1;
            numbers.push(order["number"].as_u64().expect("a number"));
        }
        (counts, numbers)
    };
    [of(0), of(1)]
}

#[test]
fn it_shows_the_last_hundred_orders_of_both_and_what_an_outage_does_to_them() {
    // A hundred orders are four seconds.
    let mut held = Held::start(&["--orders", "25"]);
    let [url, admin, token] = to_watch(&held);
    held.seconds(5);
    let [(naive, first), (resilient, second)] = standings(&url);
    let numbers = [first, second];
    assert_eq!(numbers.each_ref().map(Vec::len), [100, 100]);
    assert!(numbers.iter().all(|numbers| numbers.is_sorted() && numbers[99] - numbers[0] == 99));
    let well =
        |counts: &BTreeMap<String, usize>| counts.keys().all(|how| how == "settled" || how == "waiting");
    assert!(well(&naive) && well(&resilient), "{naive:?} {resilient:?}");

    assert!(held.demo(&["fault", "user-service", "abort", "503"]).status.success());
    held.seconds(5);
    let [(naive, _), (resilient, _)] = standings(&url);
    assert!(naive.get("turned_away").is_some_and(|count| *count > 50), "{naive:?}");
    assert!(resilient.get("kept").is_some_and(|count| *count > 50), "{resilient:?}");
    assert!(!resilient.contains_key("turned_away") && !resilient.contains_key("failed"), "{resilient:?}");

    // What was kept is settled later; it is asked while somebody looks.
    held.demo(&["fault", "clear"]);
    let mut looks = 0;
    while !standings(&url)[1].0.contains_key("settled_later") {
        assert!(looks < 8, "{:#?}", held.lines);
        held.seconds(1);
        looks += 1;
    }

    let page = get(&url, None);
    let policy = page.headers()["content-security-policy"].to_str().expect("a text").to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"));
    let page = page.text().expect("a page");
    assert!(!page.contains("<script>") && !page.contains("style=") && !page.contains("http"), "{page}");
    assert!(!page.contains(&token) && !get(&format!("{url}orders"), None).text().unwrap().contains(&token));

    assert_eq!(get(&format!("{admin}/snapshot"), None).status(), 401);
    let snapshot: Value = get(&format!("{admin}/snapshot"), Some(&token)).json().expect("JSON");
    assert!(snapshot.to_string().contains("user-service"), "{snapshot}");
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/browser")
}

/// What is missing for a browser to look at the page.
fn missing() -> Option<&'static str> {
    if !Path::new(BROWSER).exists() {
        return Some("no Chromium");
    }
    if !scripts().join("node_modules/playwright-core").exists() {
        return Some("no `npm ci` in tests/browser");
    }
    Command::new("node").arg("--version").output().is_err().then_some("no Node.js")
}

#[test]
fn a_browser_shows_both_grids_and_an_outage_in_them() {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return;
    }
    // Four seconds of orders are seen at a time: more than a busy machine may need to look.
    let mut held = Held::start(&["--orders", "25"]);
    let [url, admin, _] = to_watch(&held);
    held.seconds(2);
    let output = Command::new("node")
        .args(["orders.mjs", &url, &admin, env!("CARGO_BIN_EXE_demo")])
        .env("TMPDIR", held.temporary())
        .current_dir(scripts())
        .output()
        .expect("Node.js");
    println!("{}", text(&output.stdout));
    assert!(output.status.success(), "{}", text(&output.stderr));
}
