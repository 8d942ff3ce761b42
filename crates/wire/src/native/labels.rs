//! Labels from JSON, each name once: serde's maps take the last of two.

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

type Labels = BTreeMap<String, String>;

/// Reads labels.
pub(super) fn each_once<'de, D: Deserializer<'de>>(from: D) -> Result<Labels, D::Error> {
    from.deserialize_map(Each)
}

/// Reads labels, or null.
pub(super) fn each_once_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Labels>, D::Error> {
    from.deserialize_option(OrNone)
}

struct Each;

impl<'de> Visitor<'de> for Each {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of names and values that are strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
        let mut labels = Labels::new();
        while let Some((name, value)) = map.next_entry()? {
            if labels.insert(name, value).is_some() {
                return Err(A::Error::duplicate_field("labels"));
            }
        }
        Ok(labels)
    }
}

struct OrNone;

impl<'de> Visitor<'de> for OrNone {
    type Value = Option<Labels>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Each.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        each_once(from).map(Some)
    }
}
