//! Query parameters of a route, for example
//! `query = { limit = { default = 10, min = 1, max = 100 }, format = { default = "pdf", one_of = ["pdf", "odt"] } }`.

use serde::Deserialize;

/// Default limit of a text parameter, in bytes.
const DEFAULT_MAX_LENGTH: usize = 256;

/// One query parameter of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryParam {
    /// Its name in the URL and among the event's parameters.
    pub name: String,
    /// Its type and limits.
    pub kind: QueryKind,
}

/// Type and limits of a query parameter. Without a default, an absent parameter is absent from the event too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// A whole number.
    Integer {
        /// The value if the client gives none.
        default: Option<i64>,
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Text without control characters.
    Text {
        /// The value if the client gives none.
        default: Option<String>,
        /// Bytes.
        max_length: usize,
        /// The allowed values; empty for any.
        one_of: Vec<String>,
    },
}

/// A query parameter as written in TOML.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryToml {
    default: Option<DefaultToml>,
    min: Option<i64>,
    max: Option<i64>,
    max_length: Option<usize>,
    #[serde(default)]
    one_of: Vec<String>,
}

/// `default` as written in TOML.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DefaultToml {
    Integer(i64),
    Text(String),
}

impl QueryToml {
    /// The parameter it describes; the error is a message and a remedy.
    pub fn resolve(self, name: String) -> Result<QueryParam, (String, String)> {
        let textual = self.max_length.is_some() || !self.one_of.is_empty();
        let numeric = self.min.is_some() || self.max.is_some();
        let kind = match self.default {
            Some(DefaultToml::Integer(_)) if textual => return Err(mixed(&name)),
            Some(DefaultToml::Text(_)) if numeric => return Err(mixed(&name)),
            None if textual && numeric => return Err(mixed(&name)),
            Some(DefaultToml::Integer(default)) => integer(&name, Some(default), self.min, self.max)?,
            None if numeric => integer(&name, None, self.min, self.max)?,
            Some(DefaultToml::Text(default)) => text(&name, Some(default), self.max_length, self.one_of)?,
            None => text(&name, None, self.max_length, self.one_of)?,
        };
        Ok(QueryParam { name, kind })
    }
}

fn mixed(name: &str) -> (String, String) {
    let message = format!("query parameter {name} is declared as a number and as text at once");
    (message, "use min and max for whole numbers, max_length and one_of for text".into())
}

fn integer(
    name: &str,
    default: Option<i64>,
    min: Option<i64>,
    max: Option<i64>,
) -> Result<QueryKind, (String, String)> {
    let (min, max) = (min.unwrap_or(i64::MIN), max.unwrap_or(i64::MAX));
    if min > max {
        return Err((format!("query parameter {name} has min {min} above max {max}"), "swap them".into()));
    }
    if let Some(default) = default.filter(|default| !(min..=max).contains(default)) {
        let message = format!("query parameter {name} has the default {default}, which is not from {min} to {max}");
        return Err((message, "give a default within its own limits".into()));
    }
    Ok(QueryKind::Integer { default, min, max })
}

fn text(
    name: &str,
    default: Option<String>,
    max_length: Option<usize>,
    one_of: Vec<String>,
) -> Result<QueryKind, (String, String)> {
    if let Some(default) = &default
        && !one_of.is_empty()
        && !one_of.contains(default)
    {
        let message = format!("query parameter {name} has the default {default:?}, which is not in one_of");
        return Err((message, "add it to one_of or choose another default".into()));
    }
    Ok(QueryKind::Text { default, max_length: max_length.unwrap_or(DEFAULT_MAX_LENGTH), one_of })
}
