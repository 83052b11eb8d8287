//! What a rule may say, and how it is told that it can't.

use super::super::*;

fn rule(json: &str) -> Result<Rule, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn refusal(json: &str) -> String {
    match rule(json) {
        Err(error) => error,
        Ok(rule) => Faults::new(Settings::new().rule(rule)).unwrap_err().to_string(),
    }
}

#[test]
fn a_kind_is_all_that_a_rule_needs() {
    for kind in [
        "delay",
        "abort",
        "hang",
        "reset_before_head",
        "reset_after_head",
        "truncate",
        "trickle",
        "garbage",
        "wrong_page",
    ] {
        let read = rule(&format!("{{\"kind\": {kind:?}}}")).unwrap();
        Faults::new(Settings::new().rule(read)).unwrap();
    }
    assert!(refusal("{}").starts_with("kind: is missing"), "{}", refusal("{}"));
}

#[test]
fn what_was_read_is_written_so_that_it_can_be_read_again() {
    for json in [
        r#"{"kind":"delay","method":"GET","path":"/users/{id}","host":"users","percentage":12.5,"delay":"1m 30s"}"#,
        r#"{"kind":"delay","percentage":100.0,"delay":{"max":"2s","min":"10ms"}}"#,
        r#"{"kind":"delay","headers":{"x-tenant":"7"},"percentage":100.0,"delay":{"median":"1s","p99":"2s"}}"#,
        r#"{"kind":"abort","percentage":1.0,"status":429,"answer_headers":{"retry-after":"2"},"body":"later"}"#,
        r#"{"kind":"hang","percentage":100.0}"#,
        r#"{"kind":"truncate","percentage":100.0,"bytes":3}"#,
        r#"{"kind":"trickle","percentage":100.0,"bytes":3,"every":"10ms"}"#,
        r#"{"kind":"wrong_page","percentage":100.0,"status":200}"#,
    ] {
        assert_eq!(serde_json::to_string(&rule(json).unwrap()).unwrap(), json);
    }
}

#[test]
fn what_cannot_work_is_refused_by_the_name_of_its_setting() {
    for (json, expected) in [
        (r#"{"kind":"dealy"}"#, "kind: unknown setting `dealy`, did you mean `delay`?"),
        (r#"{"kind":"delay","dealy":"1s"}"#, "unknown setting `dealy`, did you mean `delay`?"),
        (r#"{"kind":"delay","delay":5}"#, "delay: "),
        (r#"{"kind":"delay","delay":"5"}"#, "delay: \"5\" is not a duration"),
        (r#"{"kind":"delay","delay":{"min":"1s"}}"#, "delay: must be a duration, `min` and `max`"),
        (r#"{"kind":"delay","delay":"31s"}"#, "rules[0]: delay must be at most max_delay (30s), got 31s"),
        (r#"{"kind":"delay","delay":{"min":"2s","max":"1s"}}"#, "rules[0]: delay.min must be at most"),
        (r#"{"kind":"delay","delay":{"median":"0s","p99":"1s"}}"#, "rules[0]: delay.median must be longer"),
        (r#"{"kind":"delay","delay":{"median":"2s","p99":"1s"}}"#, "rules[0]: delay.p99 must be at least"),
        (r#"{"kind":"delay","status":500}"#, "status: not a setting of the kind \"delay\""),
        (r#"{"kind":"hang","percentage":"half"}"#, "percentage: invalid type: string \"half\", expected f64"),
        (r#"{"kind":"hang","percentage":100.5}"#, "rules[0]: percentage must be from 0 to 100, got 100.5"),
        (r#"{"kind":"hang","percentage":-1}"#, "rules[0]: percentage must be from 0 to 100, got -1"),
        (r#"{"kind":"hang","method":"get"}"#, "rules[0]: method must be a method in capitals, got \"get\""),
        (r#"{"kind":"hang","path":"users"}"#, "rules[0]: path must begin with /"),
        (r#"{"kind":"hang","path":"/a*"}"#, "rules[0]: path has a *"),
        (
            r#"{"kind":"hang","host":"http://users"}"#,
            "rules[0]: host must be a host's name without a port, got \"http://users\"",
        ),
        (r#"{"kind":"hang","headers":{"a b":"c"}}"#, "rules[0]: headers must be headers, got \"a b\""),
        (r#"{"kind":"abort","status":42}"#, "status: must be from 200 to 599, got 42"),
        (r#"{"kind":"abort","status":101}"#, "rules[0]: status must be from 200 to 599, got 101"),
        (r#"{"kind":"abort","answer_headers":{"a":"b\n"}}"#, "answer_headers: not a header"),
        (
            r#"{"kind":"abort","answer_headers":{"content-length":"9"}}"#,
            "rules[0]: answer_headers must leave content-length",
        ),
        (r#"{"kind":"trickle","bytes":0}"#, "rules[0]: bytes must be at least 1"),
        (r#"{"kind":"trickle","every":"1h"}"#, "rules[0]: every must be at most max_delay"),
        (r#"{"kind":"truncate","bytes":-1}"#, "bytes: invalid value"),
    ] {
        let found = refusal(json);
        assert!(found.starts_with(expected), "{json}\n  {found}\n  {expected}");
    }
    let long = Rule::new(Kind::Abort {
        status: http::StatusCode::OK,
        headers: http::HeaderMap::new(),
        body: vec![0; 65 * 1024].into(),
    });
    let found = Faults::new(Settings::new().rule(long)).unwrap_err();
    assert_eq!(found.setting(), "body");
}

#[test]
fn a_file_may_say_all_settings_and_limits_have_limits() {
    let read: Settings = toml::from_str(
        "seed = 7\nenvoy_headers = true\nmax_active = 3\nmax_delay = \"2s\"\nmax_bytes = 100\n\
         [[rules]]\nkind = \"delay\"\ndelay = \"2s\"\n[[rules]]\nkind = \"hang\"\n",
    )
    .unwrap();
    let limits = Limits::standard().max_active(3).max_delay(std::time::Duration::from_secs(2)).max_bytes(100);
    let expected = Settings::new()
        .rule(Rule::delay(std::time::Duration::from_secs(2)))
        .rule(Rule::new(Kind::Hang))
        .seed(7)
        .limits(limits)
        .envoy_headers(true);
    assert_eq!(read, expected);
    for (json, expected) in [
        (r#"{"max_active": 0}"#, "max_active must be between 1 and 100000, got 0"),
        (r#"{"max_delay": "0s"}"#, "max_delay must be longer than zero"),
        (r#"{"max_delay": "61m"}"#, "max_delay must be at most 3600s, got 3660s"),
        (r#"{"max_bytes": 99999999}"#, "max_bytes must be at most 16777216, got 99999999"),
    ] {
        let settings: Settings = serde_json::from_str(json).unwrap();
        assert!(Faults::new(settings).unwrap_err().to_string().starts_with(expected), "{json}");
    }
}

#[test]
fn of_several_rules_a_refusal_says_which() {
    for (json, expected) in [
        (r#"{"rules":[{"kind":"hang"},{"kind":"delay","delay":"5"}]}"#, "rules[1].delay: \"5\" is not"),
        (r#"{"rules":[{"kind":"hang"},{"knid":"hang"}]}"#, "rules[1]: unknown setting `knid`"),
        (r#"{"rules":[{}]}"#, "rules[0].kind: is missing"),
        (r#"{"rules":{"kind":"hang"}}"#, "rules: invalid type: map, expected a list of rules"),
    ] {
        let found = serde_json::from_str::<Settings>(json).unwrap_err().to_string();
        assert!(found.starts_with(expected) && found.contains(" at line 1 column "), "{json}: {found}");
    }
}

#[test]
fn a_file_is_read_and_one_that_cannot_work_named() {
    let path = std::env::temp_dir().join(format!("faults-{}.json", std::process::id()));
    std::fs::write(&path, r#"{"rules": [{"kind": "hang"}]}"#).unwrap();
    assert_eq!(Faults::from_file(&path).unwrap().snapshot().rules.len(), 1);
    std::fs::write(&path, r#"{"rules": [{"kind": "hang", "percentage": 101}]}"#).unwrap();
    let error = Faults::from_file(&path).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.is_config() && error.to_string().contains("faults-"), "{error}");
    assert!(source.contains("rules[0]: percentage"), "{source}");
    std::fs::remove_file(&path).unwrap();
    assert!(Faults::from_file(&path).unwrap_err().is_config());
}
