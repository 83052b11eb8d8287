//! What a policy would do in an outage, an overload, a slow replica, random errors and a retry
//! storm, on its own engine and a virtual clock, and which of its settings is to blame.
//!
//! ```sh
//! cargo run -p resilient-client --example what-if --features testing,config -- policy.toml
//! ```
//!
//! `--seed 7` for other calls, `--origin http://users:3000` for the policy of a host. Without a
//! file it is the standard policy. One policy is simulated; the heading says which, and which
//! others the file has.

use std::error::Error;
use std::process::ExitCode;

use resilient_client::Policy;
use resilient_client::policy::PolicySet;
use resilient_client::testing::simulate::what_if;

const USAGE: &str = "what-if [policy.toml] [--seed N] [--origin URL]";

#[derive(Debug, Default)]
struct Asked {
    file: Option<String>,
    seed: Option<u64>,
    origin: Option<String>,
}

fn asked(mut args: impl Iterator<Item = String>) -> Result<Asked, Box<dyn Error>> {
    let mut asked = Asked::default();
    while let Some(arg) = args.next() {
        match &*arg {
            "--seed" => {
                let seed = args.next().ok_or(USAGE)?.parse::<u64>();
                asked.seed = Some(seed.map_err(|error| format!("--seed: {error}"))?);
            }
            "--origin" => asked.origin = Some(args.next().ok_or(USAGE)?),
            _ if arg.starts_with('-') || asked.file.is_some() => return Err(USAGE.into()),
            _ => asked.file = Some(arg),
        }
    }
    Ok(asked)
}

fn read(file: &str) -> Result<PolicySet, Box<dyn Error>> {
    Ok(toml::from_str(&std::fs::read_to_string(file)?)?)
}

fn said(asked: &Asked) -> Result<String, Box<dyn Error>> {
    let about =
        |why: &dyn Error| format!("{}: {why}", asked.file.as_deref().unwrap_or("the standard policy"));
    let policies = match &asked.file {
        Some(file) => read(file).map_err(|why| about(&*why))?,
        None => Policy::standard().into(),
    };
    let (policy, heading) = chosen(&policies, asked)?;
    let table = what_if(policy, asked.seed.unwrap_or(1)).map_err(|why| about(&why))?;
    Ok(format!("{heading}\n\n{table}"))
}

/// The policy that is asked for, and a line that says which it is and which it isn't.
fn chosen<'a>(policies: &'a PolicySet, asked: &Asked) -> Result<(&'a Policy, String), Box<dyn Error>> {
    let of = asked.file.as_deref().unwrap_or("the standard policy");
    let others: Vec<_> = policies.origins().map(str::to_owned).chain(policies.route_names()).collect();
    let Some(origin) = &asked.origin else {
        return Ok((policies.base(), heading(of, "what holds for every host", &others)));
    };
    let Some(own) = policies.own(origin) else {
        let there = policies.origins().collect::<Vec<_>>().join(", ");
        let there = if there.is_empty() { "it has no hosts".to_owned() } else { format!("it has {there}") };
        return Err(format!("{of} has no policy for {origin}: {there}").into());
    };
    let is_it = |other: &String| policies.own(other).is_some_and(|other| std::ptr::eq(other, own));
    let others: Vec<_> = others.into_iter().filter(|other| !is_it(other)).collect();
    Ok((own, heading(of, origin, &others)))
}

fn heading(of: &str, which: &str, others: &[String]) -> String {
    match others {
        [] => format!("{of}: {which}"),
        others => format!("{of}: {which}. Not simulated: {}", others.join(", ")),
    }
}

fn main() -> ExitCode {
    match asked(std::env::args().skip(1)).and_then(|asked| said(&asked)) {
        Ok(table) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        preset = "standard"
        [[host]]
        origin = "http://users:3000"
        retry = { max_attempts = 3 }
        [[host]]
        origin = "http://orders"
        retry = { max_attempts = 2 }
        [[route]]
        origin = "http://users:3000"
        method = "GET"
        path = "/users/{id}"
        retry = "off"
    "#;

    fn chosen_of(origin: Option<&str>) -> Result<(Policy, String), String> {
        let policies: PolicySet = toml::from_str(FILE).map_err(|error| error.to_string())?;
        let asked = Asked { file: Some("policy.toml".into()), seed: None, origin: origin.map(str::to_owned) };
        let chosen = chosen(&policies, &asked).map_err(|error| error.to_string())?;
        Ok((chosen.0.clone(), chosen.1))
    }

    #[test]
    fn the_heading_says_which_policy_it_was_and_which_others_there_are() {
        let (base, said) = chosen_of(None).unwrap();
        assert_eq!(base, Policy::standard());
        let expected = "policy.toml: what holds for every host. Not simulated: http://users:3000, \
                        http://orders, GET http://users:3000/users/{id}";
        assert_eq!(said, expected);
        let (users, said) = chosen_of(Some("http://USERS:3000/")).unwrap();
        assert_ne!(users, base);
        let expected = "policy.toml: http://USERS:3000/. Not simulated: http://orders, \
                        GET http://users:3000/users/{id}";
        assert_eq!(said, expected);
    }

    #[test]
    fn an_origin_that_is_not_in_the_file_is_an_error_that_lists_those_that_are() {
        let error = chosen_of(Some("http://usres:3000")).unwrap_err();
        let expected =
            "policy.toml has no policy for http://usres:3000: it has http://users:3000, http://orders";
        assert_eq!(error, expected);
        let asked = Asked { origin: Some("http://users".into()), ..Asked::default() };
        let error = said(&asked).unwrap_err().to_string();
        assert_eq!(error, "the standard policy has no policy for http://users: it has no hosts");
    }
}
