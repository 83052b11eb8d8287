//! When full service began again.

use std::time::Duration;

/// A second with more unsettled orders than this is one of an outage...
const FEW: u64 = 1;
/// ...if they are also more than this share of its orders.
const FEW_SHARE: f64 = 0.05;

/// When full service began, of orders by the time they were sent since all was well again and
/// whether they were settled at once.
pub(super) fn full_service(orders: impl Iterator<Item = (Duration, bool)>) -> Option<Duration> {
    let mut seconds: Vec<(u64, u64)> = Vec::new();
    for (at, settled) in orders {
        let second = at.as_secs() as usize;
        if seconds.len() <= second {
            seconds.resize(second + 1, (0, 0));
        }
        seconds[second].0 += 1;
        seconds[second].1 += u64::from(!settled);
    }
    let bad = |(all, unsettled): &(u64, u64)| *unsettled > FEW && *unsettled as f64 > FEW_SHARE * *all as f64;
    match seconds.iter().rposition(bad) {
        None => Some(Duration::ZERO),
        Some(last) if last + 1 == seconds.len() => None,
        Some(last) => Some(Duration::from_secs(last as u64 + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_service_begins_after_the_last_second_with_more_than_a_few_open_orders() {
        let orders = |unsettled: [u64; 4]| {
            (0..4_u64).zip(unsettled).flat_map(|(second, unsettled)| {
                (0..50).map(move |n| (Duration::from_secs(second) + Duration::from_millis(n), n >= unsettled))
            })
        };
        let second = Duration::from_secs;
        for (unsettled, begins) in [
            ([0, 0, 0, 0], Some(second(0))),
            ([50, 0, 0, 0], Some(second(1))),
            ([50, 3, 0, 0], Some(second(2))),
            ([50, 2, 1, 2], Some(second(1))),
            ([0, 0, 3, 0], Some(second(3))),
            ([0, 0, 0, 3], None),
        ] {
            assert_eq!(full_service(orders(unsettled)), begins, "{unsettled:?}");
        }
        assert_eq!(full_service(std::iter::empty()), Some(Duration::ZERO));
    }
}
