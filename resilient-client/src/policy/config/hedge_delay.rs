//! A hedge's delay: a text or a table.

use serde::de::Deserialize;

use serde::de::Deserializer;

use super::Change;
use super::read::{Either, Human, table};
use crate::policy::hedge::Delay;

table!(PercentileDelay { quantile: f64, multiplier: f64, floor: Human });

/// `"50ms"`, always that; or what is usual, as a table.
pub(super) struct HedgeDelay(pub(super) Delay);

impl<'de> Deserialize<'de> for HedgeDelay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Either::<Human, PercentileDelay>::deserialize(deserializer)? {
            Either::Text(Human(delay)) => Ok(Self(Delay::Fixed(delay))),
            Either::Table(table) => Ok(Self(table.apply(Delay::standard()))),
        }
    }
}

impl Change<Delay> for PercentileDelay {
    fn apply(self, to: Delay) -> Delay {
        let Delay::Percentile { mut quantile, mut multiplier, mut floor } = to else { return to };
        quantile = self.quantile.unwrap_or(quantile);
        multiplier = self.multiplier.unwrap_or(multiplier);
        floor = self.floor.map_or(floor, |Human(floor)| floor);
        Delay::Percentile { quantile, multiplier, floor }
    }
}
