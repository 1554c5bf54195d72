//! The config loader: parses all texts and merges them into one table.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Problems, Section, Sources};

impl Sources {
    /// Parses all texts and merges them in order: tables are joined, lists of tables (`[[route]]`) appended, other values
    /// replaced by the later one. A flow or model declared twice is a problem.
    pub fn parse<'s>(&'s self, problems: &mut Problems) -> Document<'s> {
        let mut merged = DeTable::new();
        let mut is_toml = true;
        for source in &self.sources {
            let (table, errors) = DeTable::parse_recoverable(&source.padded);
            // What follows the first is often read differently because of it: an open bracket would be many problems.
            if let Some(error) = errors.iter().min_by_key(|error| error.span().map_or(0, |span| span.start)) {
                is_toml = false;
                let remedy =
                    "write it as TOML 1.0 (https://toml.io) allows; what follows is checked once this is right";
                problems.add(error.span(), error.message(), remedy);
            }
            merge(&mut merged, table.into_inner(), source.overrides, &mut Vec::new(), problems);
        }
        Document { root: Section::new(merged, 0..0), is_toml }
    }
}

/// The merged config, to be taken apart section by section.
pub struct Document<'s> {
    /// The top-level table.
    pub root: Section<'s>,
    /// Whether every text could be read; if not, the table lacks parts.
    pub is_toml: bool,
}

/// Sections whose members may be declared only once, so that two files cannot silently mix their stages.
const DECLARED_ONCE: [&str; 2] = ["flow", "model"];

fn merge<'s>(
    into: &mut DeTable<'s>,
    from: DeTable<'s>,
    overriding: bool,
    path: &mut Vec<String>,
    problems: &mut Problems,
) {
    for (key, value) in from {
        let name = key.get_ref().to_string();
        let Some(present) = into.get_mut(name.as_str()) else {
            into.insert(key, value);
            continue;
        };
        let once = !overriding && path.len() == 1 && DECLARED_ONCE.contains(&path[0].as_str());
        if once {
            let what = &path[0];
            problems.add(key.span(), format!("{what} {name:?} is declared twice"), "rename one of the two");
            continue;
        }
        path.push(name);
        merge_value(present, value, overriding, path, problems);
        path.pop();
    }
}

fn merge_value<'s>(
    present: &mut Spanned<DeValue<'s>>,
    value: Spanned<DeValue<'s>>,
    overriding: bool,
    path: &mut Vec<String>,
    problems: &mut Problems,
) {
    let span = value.span();
    match (present.get_mut(), value.into_inner()) {
        (DeValue::Table(present), DeValue::Table(more)) => merge(present, more, overriding, path, problems),
        (DeValue::Array(present), DeValue::Array(more)) if !overriding => {
            more.into_iter().for_each(|v| present.push(v))
        }
        (_, other) => *present = Spanned::new(span, other),
    }
}
