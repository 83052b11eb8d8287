//! The migration guides, compiled: each block of `docs/swap.md`, `docs/testing.md` and
//! `docs/migrate/` is a test of this crate's documentation. What they say of behaviour is in
//! `tests/`.

#[cfg(doctest)]
#[doc = include_str!("../../docs/swap.md")]
struct WhatChanges;

#[cfg(doctest)]
#[doc = include_str!("../../docs/migrate/reqwest.md")]
struct FromReqwest;

#[cfg(doctest)]
#[doc = include_str!("../../docs/migrate/reqwest-middleware.md")]
struct FromReqwestMiddleware;

#[cfg(doctest)]
#[doc = include_str!("../../docs/migrate/backoff.md")]
struct FromBackoff;

#[cfg(doctest)]
#[doc = include_str!("../../docs/migrate/failsafe.md")]
struct FromFailsafe;

#[cfg(doctest)]
#[doc = include_str!("../../docs/migrate/tower-resilience.md")]
struct FromTowerResilience;

#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
struct Testing;
