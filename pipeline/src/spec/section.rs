//! One table of the config, and how it becomes a typed spec with *every* problem reported.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{Place, Problems};

/// A table that is being read.
#[derive(Clone)]
pub struct Section<'s> {
    table: DeTable<'s>,
    place: Place,
}

/// Where the keys of a section are, for problems found after it was read.
#[derive(Clone, Debug, Default)]
pub struct Places {
    section: Place,
    keys: HashMap<String, Place>,
}

impl Places {
    /// The place of `key`'s value, or of the section where the key is absent.
    #[must_use]
    pub fn of(&self, key: &str) -> Place {
        self.keys.get(key).cloned().unwrap_or_else(|| self.section.clone())
    }
}

impl<'s> Section<'s> {
    pub(super) fn new(table: DeTable<'s>, place: Place) -> Self {
        Self { table, place }
    }

    /// Where the section begins.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Where each value is.
    #[must_use]
    pub fn places(&self) -> Places {
        let keys = self.table.iter().map(|(key, value)| (key.get_ref().to_string(), value.span())).collect();
        Places { section: self.place.clone(), keys }
    }

    /// Removes and returns the table under `key`; an empty section if there is none.
    pub fn take_section(&mut self, key: &str, problems: &mut Problems) -> Option<Section<'s>> {
        let (key, value) = self.table.remove_entry(key)?;
        as_section(key.get_ref(), value, problems)
    }

    /// Removes the table of tables under `key` (`[flow.NAME]`) and returns its members by name, in order of the text.
    pub fn take_named(&mut self, key: &str, problems: &mut Problems) -> Vec<(Spanned<String>, Section<'s>)> {
        let Some(outer) = self.take_section(key, problems) else { return Vec::new() };
        let mut members: Vec<_> = outer
            .table
            .into_iter()
            .filter_map(|(name, value)| {
                let text = name.get_ref().to_string();
                let section = as_section(&text, value, problems)?;
                Some((Spanned::new(name.span(), text), section))
            })
            .collect();
        members.sort_by_key(|(name, _)| name.span().start);
        members
    }

    /// Removes the list of tables under `key` (`[[route]]`).
    pub fn take_list(&mut self, key: &str, problems: &mut Problems) -> Vec<Section<'s>> {
        let Some((name, value)) = self.table.remove_entry(key) else { return Vec::new() };
        let place = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            problems.add(place, format!("{key} must be a list of tables"), format!("write [[{key}]] above its keys"));
            return Vec::new();
        };
        items.into_iter().filter_map(|item| as_section(name.get_ref(), item, problems)).collect()
    }

    /// Removes and reads the value under `key`.
    pub fn take<T: DeserializeOwned>(&mut self, key: &str, problems: &mut Problems) -> Option<T> {
        let (_, value) = self.table.remove_entry(key)?;
        let place = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                problems.add(error.span().unwrap_or(place), format!("{key}: {}", error.message()), remedy(&error));
                None
            }
        }
    }

    /// Reads a copy of the value under `key`; `None` if it is absent or of another type, which reading the section reports.
    #[must_use]
    pub fn peek<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        T::deserialize(ValueDeserializer::from(self.table.get(key)?.clone())).ok()
    }

    /// Removes several keys into a section of their own, for keys of two readers that share one table.
    #[must_use]
    pub fn split_off(&mut self, keys: &[&str]) -> Section<'s> {
        let taken = keys.iter().filter_map(|key| self.table.remove_entry(*key)).collect();
        Section { table: taken, place: self.place.clone() }
    }

    /// Reads the whole section. Every key that is unknown or wrong is reported, not just the first.
    pub fn read<T: DeserializeOwned>(self, problems: &mut Problems) -> Option<T> {
        let mut table = self.table;
        let mut clean = true;
        loop {
            let value = Spanned::new(self.place.clone(), DeValue::Table(table.clone()));
            let error = match T::deserialize(ValueDeserializer::from(value)) {
                Ok(read) => return clean.then_some(read),
                Err(error) => error,
            };
            let place = error.span().unwrap_or_else(|| self.place.clone());
            let Some(culprit) = key_at(&table, &place) else {
                // A key that is missing because its bad value was just reported is no second problem.
                if clean {
                    problems.add(self.place.clone(), error.message(), remedy(&error));
                }
                return None;
            };
            clean = false;
            problems.add(place, error.message(), remedy(&error));
            table.remove(culprit.as_str());
        }
    }

    /// Reports whatever is left as unknown; for tables that were taken apart by hand.
    pub fn expect_empty(self, known: &str, problems: &mut Problems) {
        for (key, _) in self.table {
            problems.add(key.span(), format!("unknown key `{}`", key.get_ref()), format!("known here: {known}"));
        }
    }
}

fn as_section<'s>(key: &str, value: Spanned<DeValue<'s>>, problems: &mut Problems) -> Option<Section<'s>> {
    let place = value.span();
    match value.into_inner() {
        DeValue::Table(table) => Some(Section::new(table, place)),
        other => {
            let message = format!("{key} must be a table, it is a {}", other.type_str());
            problems.add(place, message, format!("write it as `[{key}]` with its keys below"));
            None
        }
    }
}

/// The key whose name or value covers `place`.
fn key_at(table: &DeTable<'_>, place: &Place) -> Option<String> {
    let covers = |outer: Place| outer.start <= place.start && place.end <= outer.end;
    table
        .iter()
        .find(|(key, value)| covers(key.span()) || covers(value.span()))
        .map(|(key, _)| key.get_ref().to_string())
}

/// serde's messages say what was expected; the remedy repeats it as a thing to do.
fn remedy(error: &toml::de::Error) -> String {
    let message = error.message();
    if let Some((_, known)) = message.split_once("expected one of ") {
        return format!("use one of {known}");
    }
    if let Some((_, expected)) = message.split_once("expected ") {
        return format!("give {expected}");
    }
    match message.split_once("missing field ") {
        Some((_, field)) => format!("add {field}"),
        None => "see the README of this section for what it takes".into(),
    }
}
