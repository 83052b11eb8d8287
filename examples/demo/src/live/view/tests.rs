use super::*;

fn spark(settled: u64, later: u64, failed: u64, p99_ms: f64) -> Spark {
    Spark { settled, later, failed, p99_ms: Some(p99_ms) }
}

fn standing() -> Standing {
    let naive = TwinStanding {
        seconds: vec![spark(50, 0, 0, 5.0), spark(25, 0, 25, 990.0), spark(0, 0, 50, 5000.0)],
        failed: 75,
        in_vain: 9,
        in_flight: 123,
        ..TwinStanding::default()
    };
    let resilient = TwinStanding {
        seconds: vec![spark(50, 0, 0, 5.0), spark(40, 10, 0, 310.0), Spark::default()],
        later: 10,
        in_flight: 2,
        streams: 4,
        ..TwinStanding::default()
    };
    Standing {
        elapsed: Duration::from_secs(28),
        limit: Duration::from_secs(56),
        says: "SIGSTOP to user-service: it takes connections and never answers",
        phase: "hang",
        naive: "loop",
        twins: [naive, resilient],
        breaker: Some(Breaker::HalfOpen),
        budget: Some(73),
        streams: true,
    }
}

#[test]
fn both_twins_stand_side_by_side() {
    let lines = draw(&standing(), 79, Colours::plain(), true);
    assert_eq!(
        lines,
        [
            "[##########..........] 28 s of at most 56 s  hang: SIGSTOP to user-service: it ",
            "              naive: loop                     resilient",
            "answered      0 %     █▄▁                     -       ██",
            "order p99     5.0 s   ▂▆█                     -       ▂▅",
            "turned away   75                              0",
            "for later     0                               10",
            "in flight     123                             2",
            "work in vain  9                               0",
            "streams alive 0 of 4                          4 of 4",
            "breaker       none                            half-open",
            "retry budget  none                            #######... 73 tokens",
        ]
    );
}

#[test]
fn no_line_is_wider_than_it_may_be_however_long_it_has_been_going_on() {
    let mut standing = standing();
    let long = vec![spark(499, 499, 2499, 9999.0); 3600];
    for twin in &mut standing.twins {
        twin.seconds.clone_from(&long);
        (twin.failed, twin.later, twin.in_vain, twin.in_flight) = (u64::MAX, u64::MAX, u64::MAX, usize::MAX);
    }
    for (width, unicode) in [(79, true), (79, false), (119, true)] {
        for line in draw(&standing, width, Colours::plain(), unicode) {
            assert!(line.chars().count() <= width, "{width}: {line}");
            assert!(unicode || line.is_ascii(), "{line}");
        }
    }
}

#[test]
fn colours_add_no_width_and_without_them_there_are_no_codes() {
    let plain = draw(&standing(), 79, Colours::plain(), true);
    assert!(!plain.iter().any(|line| line.contains('\x1b')));
    let coloured = draw(&standing(), 79, Colours::on(), true);
    assert!(coloured.iter().any(|line| line.contains("\x1b[31m")));
    let stripped: Vec<_> = coloured.iter().map(|line| strip(line).trim_end().to_owned()).collect();
    let plain: Vec<_> = plain.iter().map(|line| line.trim_end().to_owned()).collect();
    assert_eq!(stripped, plain);
}

/// Without the codes for colours.
fn strip(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn without_an_end_there_is_no_bar_and_what_isnt_known_is_said() {
    let nothing = Standing { phase: "yours", naive: "no-timeout", ..Standing::default() };
    let lines = draw(&nothing, 79, Colours::plain(), true);
    assert_eq!(lines[0], "0 s  yours");
    assert!(lines.iter().any(|line| line.ends_with("one for each user-service")));
    assert!(!lines.iter().any(|line| line.contains("streams") || line.contains("in vain")));
    let late = Standing { elapsed: Duration::from_secs(99), limit: Duration::from_secs(9), ..nothing };
    assert!(draw(&late, 79, Colours::plain(), true)[0].starts_with("[####################] 99 s"));
}
