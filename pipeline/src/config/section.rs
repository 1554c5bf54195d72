//! A section: one table of the config, and how it becomes a typed spec with *every* problem reported.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{Place, Problems, Secret, did_you_mean};
use crate::parse_message::parse_message;

/// A table that is being read.
#[derive(Clone)]
pub struct Section<'s> {
    table: DeTable<'s>,
    place: Place,
    /// Keys that are read by another reader of the same table.
    also_known: Vec<String>,
}

/// The places of a section's keys, for problems found after it was read.
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
        Self { table, place, also_known: Vec::new() }
    }

    /// The place of the section.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// The place of each value. After [`renamed`](Self::renamed) it is under the new key.
    #[must_use]
    pub fn places(&self) -> Places {
        let keys = self.table.iter().map(|(key, value)| (key.get_ref().to_string(), value.span())).collect();
        Places { section: self.place.clone(), keys }
    }

    /// Declares that the key `old` is now called `new`; call it before the section is read.
    ///
    /// Its value is read as that of `new`, with a warning. If both are set, the later one counts: so an override works
    /// whichever name the file uses. The old key works for one release.
    pub fn renamed(&mut self, old: &str, new: &'static str, problems: &mut Problems) {
        let Some((old_key, value)) = self.table.remove_entry(old) else { return };
        let place = old_key.span();
        if let Some(other) = self.table.get(new) {
            let message = format!("`{old}` and `{new}` are both set, and mean the same; the later one counts");
            problems.warn(place.clone(), message, format!("remove `{old}`"));
            if other.span().start > value.span().start {
                return;
            }
            self.table.remove(new);
            self.table.insert(Spanned::new(place, new.into()), value);
            return;
        }
        let remedy = format!("write `{new}`; `{old}` still works in this release, and will not in the next");
        problems.warn(place.clone(), format!("`{old}` is now called `{new}`"), remedy);
        self.table.insert(Spanned::new(place, new.into()), value);
    }

    /// Whether there is such a key, right or wrong.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The names in the table under `key`, whatever they stand for.
    #[must_use]
    pub fn names_under(&self, key: &str) -> BTreeSet<String> {
        let Some(DeValue::Table(members)) = self.table.get(key).map(Spanned::get_ref) else { return BTreeSet::new() };
        members.iter().map(|(name, _)| name.get_ref().to_string()).collect()
    }

    /// Every `{ env = "NAME" }` and `{ file = "PATH" }` below the keys `within`, with its place.
    #[must_use]
    pub fn secrets(&self, within: &[&str]) -> Vec<(Place, Secret)> {
        let mut found = Vec::new();
        for (_, value) in self.table.iter().filter(|(key, _)| within.contains(&key.get_ref().as_ref())) {
            collect_secrets(value, &mut found);
        }
        found
    }

    /// Removes and returns the table under `key`; `None` if there is none.
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
            let remedy = format!("write its header in double brackets, as in [[{key}]] or [[flow.NAME.{key}]]");
            problems.add(
                place,
                format!("{key} is a list: each of its members begins with a header of its own"),
                remedy,
            );
            return Vec::new();
        };
        items.into_iter().filter_map(|item| as_section(name.get_ref(), item, problems)).collect()
    }

    /// Removes and reads the value under `key`; `None` if it is absent or wrong, which is reported.
    pub fn take<T: DeserializeOwned>(&mut self, key: &str, problems: &mut Problems) -> Option<T> {
        let (_, value) = self.table.remove_entry(key)?;
        let place = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                problems.add(
                    error.span().unwrap_or(place),
                    format!("{key}: {}", parse_message(&error.message())),
                    remedy(&error, &[]),
                );
                None
            }
        }
    }

    /// Reads a copy of the value under `key`; `None` if it is absent or of another type, which reading the section reports.
    #[must_use]
    pub fn peek<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        T::deserialize(ValueDeserializer::from(self.table.get(key)?.clone())).ok()
    }

    /// Moves several keys to a section of their own, for two readers that share one table.
    #[must_use]
    pub fn split_off(&mut self, keys: &[&str]) -> Section<'s> {
        let taken = keys.iter().filter_map(|key| self.table.remove_entry(*key)).collect();
        self.also_known.extend(keys.iter().map(|key| (*key).to_owned()));
        Section::new(taken, self.place.clone())
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
                    problems.add(self.place.clone(), parse_message(&error.message()), remedy(&error, &self.also_known));
                }
                return None;
            };
            clean = false;
            problems.add(place, parse_message(&error.message()), remedy(&error, &self.also_known));
            table.remove(culprit.as_str());
        }
    }

    /// Reports every remaining key as unknown; for tables that were taken apart key by key.
    pub fn expect_empty(self, known: &str, problems: &mut Problems) {
        for (key, _) in self.table {
            let names = known.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|name| !name.is_empty());
            let remedy = did_you_mean(key.get_ref(), names, &format!("use one of: {known}"));
            problems.add(key.span(), format!("unknown key `{}`", key.get_ref()), remedy);
        }
    }
}

fn collect_secrets(value: &Spanned<DeValue<'_>>, found: &mut Vec<(Place, Secret)>) {
    match value.get_ref() {
        DeValue::Table(table) => match Secret::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(secret) => found.push((value.span(), secret)),
            Err(_) => table.iter().for_each(|(_, member)| collect_secrets(member, found)),
        },
        DeValue::Array(items) => items.iter().for_each(|item| collect_secrets(item, found)),
        _ => {}
    }
}

fn as_section<'s>(key: &str, value: Spanned<DeValue<'s>>, problems: &mut Problems) -> Option<Section<'s>> {
    let place = value.span();
    match value.into_inner() {
        DeValue::Table(table) => Some(Section::new(table, place)),
        other => {
            let message = format!("{key} must be a table, and is of type {}", other.type_str());
            problems.add(place, message, format!("write its header in single brackets, with its keys below: [{key}]"));
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

/// serde's messages say what was expected; the remedy repeats it as a thing to do. `also_known` are keys that were taken out
/// of the section before.
fn remedy(error: &toml::de::Error, also_known: &[String]) -> String {
    let message = parse_message(&error.message());
    if message.starts_with("unknown ") {
        let mut quoted = message.split('`').skip(1).step_by(2);
        let wrong = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.chain(also_known.iter().map(String::as_str)).collect();
        let otherwise = if known.is_empty() { "remove it".into() } else { format!("use one of {}", known.join(", ")) };
        return did_you_mean(wrong, known, &otherwise);
    }
    if message.contains("socket address") {
        return "give an IP address and a port, as in \"127.0.0.1:4222\"".into();
    }
    if let Some((_, expected)) = message.split_once("expected ") {
        return format!("give {expected}");
    }
    match message.split_once("missing field ") {
        Some((_, field)) => format!("add {field}"),
        None => "see the README of this section for what it takes".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config::Sources;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Spec {
        new: u32,
    }

    /// Reads a text whose key `old` is now `new`.
    fn read(text: &str) -> (Option<Spec>, Problems) {
        let mut sources = Sources::default();
        sources.add("a.toml", text);
        let mut problems = Problems::default();
        let mut section = sources.parse(&mut problems).root;
        section.renamed("old", "new", &mut problems);
        (section.read(&mut problems), problems)
    }

    #[test]
    fn the_new_key_alone_is_read_without_a_word() {
        let (spec, problems) = read("new = 1");
        assert_eq!(spec, Some(Spec { new: 1 }));
        assert!(problems.is_empty() && problems.warnings().is_empty());
    }

    #[test]
    fn the_old_key_alone_is_read_with_a_warning_at_its_place() {
        let (spec, problems) = read("\nold = 1");
        assert_eq!(spec, Some(Spec { new: 1 }));
        assert!(problems.is_empty());
        let warnings = problems.warnings();
        assert_eq!((warnings.len(), warnings[0].place.clone()), (1, Some(1..4)));
        assert!(warnings[0].message.contains("`old` is now called `new`"));
        assert!(warnings[0].remedy.contains("still works in this release"));
    }

    #[test]
    fn of_both_keys_the_later_one_counts() {
        assert_eq!(read("new = 1\nold = 2").0, Some(Spec { new: 2 }));
        assert_eq!(read("old = 2\nnew = 1").0, Some(Spec { new: 1 }));
    }

    #[test]
    fn both_keys_are_a_warning_at_the_old_one() {
        let (_, problems) = read("new = 1\nold = 2");
        let warnings = problems.warnings();
        assert_eq!((warnings.len(), warnings[0].place.clone()), (1, Some(8..11)));
        assert!(warnings[0].remedy.contains("remove `old`"));
    }

    #[test]
    fn a_wrong_value_of_the_old_key_is_an_error_at_that_value() {
        let (spec, problems) = read("old = true");
        assert_eq!(spec, None);
        assert_eq!(problems.sorted()[0].place, Some(6..10));
    }

    #[test]
    fn places_know_the_value_under_the_new_key() {
        let mut sources = Sources::default();
        sources.add("a.toml", "old = 1");
        let mut problems = Problems::default();
        let mut section = sources.parse(&mut problems).root;
        section.renamed("old", "new", &mut problems);
        assert_eq!(section.places().of("new"), 6..7);
    }
}
