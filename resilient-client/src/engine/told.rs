//! Whom requests tell how long their answers are waited for, and how often they were tried.
//!
//! Both help a service of one's own to shed work for nobody. A stranger learns from them how long a
//! user is kept waiting and what the services behind each other are allowed, which is nobody's
//! business; so unless somebody says otherwise only who is local is told.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::authority::Authority;
use crate::invalid::Invalid;
use crate::policy::set;

/// The hosts that are told.
#[derive(Debug)]
pub(crate) enum Told {
    Local,
    These(Vec<Entry>),
}

#[derive(Debug)]
pub(crate) enum Entry {
    Origin(Authority<'static>),
    /// Whatever ends so.
    Under(String),
    Everybody,
}

impl Told {
    pub(crate) fn of(given: Option<&[String]>) -> Result<Self, Invalid> {
        let Some(given) = given else { return Ok(Self::Local) };
        let entry = |text: &String| match (text.as_str(), text.strip_prefix("*.")) {
            ("*", _) => Ok(Entry::Everybody),
            (_, Some(suffix)) if !suffix.is_empty() => {
                Ok(Entry::Under(format!(".{}", suffix.to_lowercase())))
            }
            _ => set::origin(text).map(Entry::Origin).map_err(|invalid| invalid.of("deadline_origins")),
        };
        Ok(Self::These(given.iter().map(entry).collect::<Result<_, _>>()?))
    }

    pub(crate) fn has(&self, authority: &Authority<'_>) -> bool {
        match self {
            Self::Local => is_local(authority.host()),
            Self::These(entries) => entries.iter().any(|entry| match entry {
                Entry::Origin(origin) => origin == authority,
                Entry::Under(suffix) => authority.host().trim_end_matches('.').ends_with(suffix),
                Entry::Everybody => true,
            }),
        }
    }
}

/// This machine and the network it stands in, as far as a host's name or address tells: loopback
/// and private addresses, names of one label, and names below those that are kept for such networks
/// (RFC 6761, RFC 6762, RFC 8375, ICANN's `internal`, and what Kubernetes' search list completes).
/// The nameless, whose requests bear no host, is nobody known.
fn is_local(host: &str) -> bool {
    const UNDER: [&str; 5] = [".localhost", ".local", ".internal", ".home.arpa", ".svc"];
    if let Some(address) = host.strip_prefix('[') {
        let address = address.trim_end_matches(']').parse::<Ipv6Addr>();
        return address.is_ok_and(|address| match address.to_ipv4_mapped() {
            Some(mapped) => is_local_v4(mapped),
            None => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
        });
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return is_local_v4(address);
    }
    let host = host.trim_end_matches('.');
    !host.is_empty() && (!host.contains('.') || UNDER.iter().any(|suffix| host.ends_with(suffix)))
}

/// With what providers and overlay networks share out (RFC 6598).
fn is_local_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || (first == 100 && (64..128).contains(&second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> Authority<'static> {
        Authority::of_url(&format!("http://{host}:3000").parse().unwrap()).into_owned()
    }

    #[test]
    fn local_is_this_machine_and_the_network_it_stands_in() {
        for host in [
            "127.0.0.1",
            "127.1",
            "[::1]",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.7",
            "100.64.0.1",
            "169.254.1.1",
            "[fd00::1]",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
            "localhost",
            "users",
            "USERS",
            "users.",
            "a.localhost",
            "users.prod.svc",
            "users.prod.svc.cluster.local",
            "printer.local",
            "users.corp.internal",
            "nas.home.arpa",
        ] {
            assert!(Told::Local.has(&at(host)), "{host}");
        }
        for host in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "11.0.0.1",
            "[2001:db8::1]",
            "[::ffff:8.8.8.8]",
            "api.example",
            "example.com.",
            "local.example",
            "notlocal.example",
            "internal.example",
            "xinternal.com",
        ] {
            assert!(!Told::Local.has(&at(host)), "{host}");
        }
        assert!(!Told::Local.has(&Authority::nowhere("")), "nobody knows whom that is");
    }

    #[test]
    fn whoever_is_named_is_told_and_nobody_else() {
        let told = |entries: &[&str]| {
            Told::of(Some(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>())).unwrap()
        };
        let some = told(&["http://users:3000", "*.Corp.example"]);
        for (host, expected) in [
            ("users", true),
            ("orders", false),
            ("a.corp.example", true),
            ("corp.example", false),
            ("localhost", false),
        ] {
            assert_eq!(some.has(&at(host)), expected, "{host}");
        }
        assert!(told(&["*"]).has(&at("api.example")) && !told(&[]).has(&at("localhost")));
        let error = Told::of(Some(&["users".to_owned()])).unwrap_err();
        assert!(error.to_string().starts_with("deadline_origins: origin"), "{error}");
        assert!(Told::of(Some(&["*.".to_owned()])).is_err());
    }
}
