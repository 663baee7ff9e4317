//! One line of JSON into a `Row`, without a value in between: a million lines are read in a second.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::gather::{Classes, Row, Shape};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Id,
    Prediction,
    Gold,
    /// All scores, in an object or a list.
    Packed,
    /// The score of one class.
    Score(usize),
    Other,
}

/// The object of a line.
pub(crate) struct RowSeed<'r> {
    pub columns: &'r [String],
    /// Of each column.
    pub fields: &'r [Field],
    pub classes: &'r mut Classes,
    pub row: &'r mut Row,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object, one a line")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut hint = 0;
        while let Some(key) = map.next_key_seed(KeySeed { known: self.columns, hint })? {
            hint += 1;
            let field = match key {
                Key::Known(at) => self.fields.get(at).copied().unwrap_or(Field::Other),
                Key::Unknown(_) => Field::Other,
            };
            match field {
                Field::Id => map.next_value_seed(TextSeed(&mut self.row.id))?,
                Field::Prediction => map.next_value_seed(TextSeed(&mut self.row.prediction))?,
                Field::Gold => map.next_value_seed(TextSeed(&mut self.row.gold))?,
                Field::Packed => {
                    map.next_value_seed(ScoresSeed { classes: self.classes, row: self.row })?;
                }
                Field::Score(class) => {
                    let (score, bad) = map.next_value_seed(NumberSeed)?;
                    set_score(self.row, class, &self.classes.names, score, bad);
                }
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

fn set_score(row: &mut Row, class: usize, classes: &[String], score: f64, bad: Option<String>) {
    if row.scores.len() <= class {
        row.scores.resize(classes.len(), f64::NAN);
    }
    if let Some(place) = row.scores.get_mut(class) {
        *place = score;
    }
    if let (Some(bad), None) = (bad, &row.bad_score) {
        row.bad_score = Some((classes.get(class).cloned().unwrap_or_default(), bad));
    }
}

/// All scores of a row: `{"a": 0.1, "b": 0.9}` or `[0.1, 0.9]`.
pub(crate) struct ScoresSeed<'r> {
    pub classes: &'r mut Classes,
    pub row: &'r mut Row,
}

impl<'de> DeserializeSeed<'de> for ScoresSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScoresSeed<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of class names and scores, or a list of scores")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let is_first = self.classes.shape == Shape::Open;
        if is_first {
            *self.classes = Classes { names: Vec::new(), shape: Shape::Object };
        }
        if self.classes.shape != Shape::Object {
            return Err(M::Error::custom("scores in an object here, in a list in the first row"));
        }
        let names = &mut self.classes.names;
        self.row.scores.clear();
        self.row.scores.resize(names.len(), f64::NAN);
        let mut hint = 0;
        while let Some(key) = map.next_key_seed(KeySeed { known: names, hint })? {
            hint += 1;
            let class = match key {
                Key::Known(class) => class,
                Key::Unknown(name) if is_first => {
                    names.push(name);
                    self.row.scores.push(f64::NAN);
                    names.len() - 1
                }
                Key::Unknown(name) => {
                    let text = format_args!("{name:?} has a score here, but not in the first row");
                    return Err(M::Error::custom(text));
                }
            };
            if self.row.scores.get(class).is_some_and(|score| !score.is_nan()) {
                let text = format_args!("class {:?} has two scores", names[class]);
                return Err(M::Error::custom(text));
            }
            let (score, bad) = map.next_value_seed(NumberSeed)?;
            set_score(self.row, class, names, score, bad);
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        let shape = match self.classes.shape {
            Shape::Open if self.classes.names.is_empty() => Shape::Numbered,
            Shape::Open => Shape::List,
            Shape::List | Shape::Numbered => self.classes.shape,
            _ => {
                let text = "scores in a list here, in an object in the first row";
                return Err(S::Error::custom(text));
            }
        };
        let is_growing = self.classes.shape == Shape::Open && shape == Shape::Numbered;
        self.classes.shape = shape;
        self.row.scores.clear();
        while let Some((score, bad)) = list.next_element_seed(NumberSeed)? {
            let class = self.row.scores.len();
            if is_growing {
                self.classes.names.push(class.to_string());
            }
            self.row.scores.push(score);
            set_score(self.row, class, &self.classes.names, score, bad);
        }
        Ok(())
    }
}

enum Key {
    Known(usize),
    Unknown(String),
}

// Finds a key among the known without keeping its text; rows mostly have their keys in one order.
struct KeySeed<'k> {
    known: &'k [String],
    hint: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Key, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
        if self.known.get(self.hint).is_some_and(|known| known == key) {
            return Ok(Key::Known(self.hint));
        }
        let found = self.known.iter().position(|known| known == key);
        Ok(found.map_or_else(|| Key::Unknown(key.to_owned()), Key::Known))
    }
}

// An id or a class: text, a number or a boolean as its text; null is empty.
struct TextSeed<'t>(&'t mut String);

impl<'de> DeserializeSeed<'de> for TextSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.0.clear();
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for TextSeed<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("text or a number")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.0.push_str(&number.to_string());
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.0.push_str(&number.to_string());
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.0.push_str(&number.to_string());
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

// A score, and what stands there where it isn't a number.
struct NumberSeed;

impl<'de> DeserializeSeed<'de> for NumberSeed {
    type Value = (f64, Option<String>);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for NumberSeed {
    type Value = (f64, Option<String>);

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a score")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok((number, None))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok((number as f64, None))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok((number as f64, None))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((0.0, Some(format!("{text:?}"))))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok((0.0, Some(value.to_string())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok((0.0, Some("null".to_owned())))
    }
}
