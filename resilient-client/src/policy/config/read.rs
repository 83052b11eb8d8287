//! Reading with messages that help: units named, unknown names answered with what was meant.
//!
//! serde's derive refuses unknown fields too, but answers with the list of known ones; at night one
//! wants the one.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::{
    F64Deserializer, I64Deserializer, MapAccessDeserializer, StrDeserializer, U64Deserializer,
};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A setting that may be off.
pub(crate) enum Switch<C> {
    Off,
    On(C),
}

impl<'de, C: Deserialize<'de>> Deserialize<'de> for Switch<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OffOr(PhantomData))
    }
}

/// Sees to `"off"` and leaves everything else, mistakes included, to the setting's own type.
struct OffOr<C>(PhantomData<C>);

impl<'de, C: Deserialize<'de>> Visitor<'de> for OffOr<C> {
    type Value = Switch<C>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"off\" or a setting")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Switch<C>, E> {
        match text {
            "off" => Ok(Switch::Off),
            text => C::deserialize(StrDeserializer::new(text)).map(Switch::On),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Switch<C>, A::Error> {
        C::deserialize(MapAccessDeserializer::new(map)).map(Switch::On)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Switch<C>, E> {
        C::deserialize(I64Deserializer::new(number)).map(Switch::On)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Switch<C>, E> {
        C::deserialize(U64Deserializer::new(number)).map(Switch::On)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Switch<C>, E> {
        C::deserialize(F64Deserializer::new(number)).map(Switch::On)
    }
}

/// Text of one kind, or a table of another.
pub(crate) enum Either<A, B> {
    Text(A),
    Table(B),
}

impl<'de, A: Deserialize<'de>, B: Deserialize<'de>> Deserialize<'de> for Either<A, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTable(PhantomData))
    }
}

struct TextOrTable<A, B>(PhantomData<(A, B)>);

impl<'de, A: Deserialize<'de>, B: Deserialize<'de>> Visitor<'de> for TextOrTable<A, B> {
    type Value = Either<A, B>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or a table")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Either<A, B>, E> {
        A::deserialize(StrDeserializer::new(text)).map(Either::Text)
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Either<A, B>, M::Error> {
        B::deserialize(MapAccessDeserializer::new(map)).map(Either::Table)
    }
}

/// A duration as people write it.
pub(crate) struct Human(pub(crate) Duration);

impl<'de> Deserialize<'de> for Human {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HumanText)
    }
}

struct HumanText;

/// The longest text of a duration in bytes, and the most digits of a number in it.
const LONGEST: usize = 64;
const MOST_DIGITS: usize = 15;

impl Visitor<'_> for HumanText {
    type Value = Human;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as \"250ms\" or \"2s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Human, E> {
        let refuse =
            |why| E::custom(format_args!("{text:?} is not a duration such as \"250ms\" or \"2s\": {why}"));
        let mut units = text.split(|letter: char| !letter.is_alphabetic());
        if units.any(|unit| unit == "M") {
            let why = "M would be a month, write m for minutes";
            return Err(E::custom(format_args!(
                "{text:?} is not a duration such as \"250ms\" or \"2s\": {why}"
            )));
        }
        // humantime panics where seconds and a whole second of nanoseconds are more than there can
        // be.
        let numbers = text.split(|letter: char| !letter.is_ascii_digit());
        if text.len() > LONGEST || numbers.into_iter().any(|number| number.len() > MOST_DIGITS) {
            return Err(E::custom(format_args!("a duration of {} bytes is too long", text.len())));
        }
        humantime::parse_duration(text).map(Human).map_err(refuse)
    }
}

/// A list of tables.
pub(crate) struct Several<T>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Several<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List(PhantomData))
    }
}

struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Several<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tables")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Several<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Several(list))
    }
}

/// The refusal of a name, with the known one it was probably meant to be.
pub(crate) fn unknown<E: Error>(name: &str, known: &[&str]) -> E {
    let nearest = known.iter().map(|known| (edits(name, known), *known)).min();
    match nearest {
        Some((edits, meant)) if edits <= (name.len() / 2).max(2) => {
            E::custom(format_args!("unknown setting `{name}`, did you mean `{meant}`?"))
        }
        _ => E::custom(format_args!("unknown setting `{name}`, known are {}", known.join(", "))),
    }
}

/// Levenshtein's distance, by the row.
pub(crate) fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A setting's value.
pub(crate) fn value<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    map: &mut A,
    _name: &str,
) -> Result<T, A::Error> {
    map.next_value()
}

/// The same, whose refusal says which setting it is about.
#[cfg(feature = "fault")]
pub(crate) fn named<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    map: &mut A,
    name: &str,
) -> Result<T, A::Error> {
    map.next_value().map_err(|error| {
        let said = error.to_string();
        // In a list: which one.
        let joint = if said.starts_with('[') { "" } else { ": " };
        A::Error::custom(format_args!("{name}{joint}{said}"))
    })
}

/// A table of settings: every one optional, none twice, none unknown.
macro_rules! table {
    // A format that says itself where in the text a refused value stands.
    ($name:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        table!($name by value { $($field: $type),+ });
    };
    ($name:ident by $read:ident { $($field:ident: $type:ty),+ $(,)? }) => {
        #[derive(Default)]
        struct $name { $($field: Option<$type>),+ }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                const KNOWN: &[&str] = &[$(stringify!($field)),+];
                struct Table;

                impl<'de> serde::de::Visitor<'de> for Table {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        write!(f, "a table of {}", KNOWN.join(", "))
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut table = $name::default();
                        while let Some(name) = map.next_key::<String>()? {
                            match name.as_str() {
                                $(stringify!($field) => {
                                    let value = $crate::policy::config::read::$read(&mut map, &name)?;
                                    if table.$field.replace(value).is_some() {
                                        return Err(serde::de::Error::duplicate_field(stringify!($field)));
                                    }
                                })+
                                other => return Err($crate::policy::config::read::unknown(other, KNOWN)),
                            }
                        }
                        Ok(table)
                    }
                }

                deserializer.deserialize_map(Table)
            }
        }
    };
}

/// One of a few names.
macro_rules! names {
    ($name:ident($type:ty) { $($text:literal => $value:expr),+ $(,)? }) => {
        struct $name($type);

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match String::deserialize(deserializer)?.as_str() {
                    $($text => Ok(Self($value)),)+
                    other => Err($crate::policy::config::read::unknown(other, &[$($text),+])),
                }
            }
        }
    };
}

pub(crate) use {names, table};
