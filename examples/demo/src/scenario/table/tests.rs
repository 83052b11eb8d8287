use std::time::Duration;

use super::super::Act;
use super::*;

#[test]
fn every_scenario_keeps_its_promises_and_fits_its_lines() {
    for scenario in SCENARIOS {
        let name = scenario.name;
        assert!(std::ptr::eq(Scenario::named(name).expect(name), scenario), "{name}: two of one name");
        assert!(name.len() <= 18 && scenario.about.len() <= 61, "{name}");
        assert!(scenario.limit(false) <= Duration::from_secs(70), "{name}: {:?}", scenario.limit(false));
        assert!(scenario.limit(true) <= Duration::from_secs(30), "{name}: {:?}", scenario.limit(true));
        assert!(!scenario.rules.is_empty() && !scenario.shows.is_empty(), "{name}");
        assert!(scenario.phases.len() <= 6, "{name}: the tables have six columns");
        assert_eq!(scenario.phases[0].mood, Well, "{name}");
        assert_eq!(scenario.phases.last().map(|phase| phase.mood), Some(Back), "{name}");
        for phase in scenario.phases {
            assert!(phase.name.len() <= 8 && phase.says.len() <= 75, "{name}: {}", phase.name);
        }
        let shown: Vec<_> = scenario.phases.iter().map(|phase| phase.name).collect();
        assert!(shown.iter().all(|name| shown.iter().filter(|other| other == &name).count() == 1));
    }
}

#[test]
fn rules_and_steps_name_phases_and_user_services_that_there_are() {
    for scenario in SCENARIOS {
        let here = |phase: &str| assert!(scenario.phase(phase).is_some(), "{}: {phase}", scenario.name);
        scenario.rules.iter().flat_map(|rule| rule.phases()).for_each(here);
        if let Control::Collapses { phase, .. } = scenario.control {
            here(phase);
        }
        for (_, act) in scenario.phases.iter().flat_map(|phase| phase.steps) {
            let (Act::Faults(which, _)
            | Act::Stop(which)
            | Act::Continue(which)
            | Act::Kill(which)
            | Act::Terminate(which)
            | Act::Start(which)) = *act;
            assert!(which < scenario.user_services, "{}: {act:?}", scenario.name);
        }
    }
}

#[test]
fn with_replicas_in_each_phase_the_bad_one_was_good_before() {
    let bad: Vec<_> = REPLICAS.phases[1..5]
        .iter()
        .map(|phase| match phase.steps[0].1 {
            Act::Faults(which, _) | Act::Stop(which) | Act::Kill(which) => which,
            _ => panic!("{} doesn't begin with a fault", phase.name),
        })
        .collect();
    assert!(bad.windows(2).all(|pair| pair[0] != pair[1]), "{bad:?}");
}

#[test]
fn a_default_run_takes_a_minute() {
    let seconds: u64 = ISOLATION.phases.iter().map(|phase| phase.full).sum();
    assert!(seconds <= 50, "{seconds} s, and start, audit and a few seconds until all is resolved");
}
