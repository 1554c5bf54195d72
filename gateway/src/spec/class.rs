//! `[limits.class.NAME]`: a rate limit that the routes of a class share.

use std::collections::BTreeMap;

use pipeline::spec::{Problems, Section, did_you_mean};
use serde::Deserialize;

use super::{Rate, RouteSpec};

/// Class of failed authentications, counted by address.
pub const AUTH: &str = "auth";

/// Classes that need no declaration, and their default rates.
const BUILT_IN: [(&str, &str); 3] = [("ai", "60/min"), ("crud", "600/min"), (AUTH, "60/min")];

/// The rate of each class, by name.
#[derive(Clone, Debug)]
pub struct RateClasses(BTreeMap<String, Rate>);

/// `[limits.class.NAME]` as written in TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassToml {
    rate: String,
}

impl Default for RateClasses {
    fn default() -> Self {
        let rate = |text: &str| text.parse().expect("a built-in rate is valid");
        Self(BUILT_IN.iter().map(|(name, text)| ((*name).to_owned(), rate(text))).collect())
    }
}

impl RateClasses {
    /// Takes the tables of classes out of `[limits]`.
    pub fn read(limits: &mut Section<'_>, problems: &mut Problems) -> Self {
        let mut classes = Self::default();
        for (name, section) in limits.take_named("class", problems) {
            let places = section.places();
            let Some(text) = section.read::<ClassToml>(problems) else { continue };
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if name.get_ref().is_empty() || !name.get_ref().chars().all(plain) {
                problems.add(name.span(), "the name of a class may contain A-Z a-z 0-9 _ - only", "rename it");
                continue;
            }
            match text.rate.parse() {
                Ok(rate) => {
                    classes.0.insert(name.into_inner(), rate);
                }
                Err(why) => problems.add(places.of("rate"), why, "write it as \"10/min\""),
            }
        }
        classes
    }

    /// The rate of a class.
    #[must_use]
    pub fn rate(&self, name: &str) -> Option<Rate> {
        self.0.get(name).copied()
    }

    /// Every class and its rate.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Rate)> {
        self.0.iter().map(|(name, rate)| (name.as_str(), *rate))
    }

    /// Reports routes whose class is not declared, or that also have a limit of their own.
    pub fn check(&self, routes: &[RouteSpec], problems: &mut Problems) {
        for route in routes {
            let Some(class) = &route.class else { continue };
            if self.rate(class).is_none() {
                let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
                let message = format!("no class is named {class:?}");
                let otherwise = format!("use one of {}, or add [limits.class.{class}]", known.join(", "));
                let remedy = did_you_mean(class, known, &otherwise);
                problems.add(route.places.of("class"), message, remedy);
            }
            if route.limit.is_some() {
                let message = format!("the route is of class {class} and has a limit of its own");
                problems.add(route.places.of("limit"), message, "keep one of class and limit");
            }
        }
    }
}
