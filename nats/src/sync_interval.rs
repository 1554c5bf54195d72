//! `[nats] sync`: how often the private server syncs its streams to disk.

use serde::{Deserialize, Deserializer};

/// `"always"` or an interval such as `"500ms"`, `"1s"`, `"2m"`, in the syntax of the server's config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncInterval(String);

impl Default for SyncInterval {
    /// Costs nothing measurable; the server's own default is two minutes.
    fn default() -> Self {
        Self("1s".into())
    }
}

impl SyncInterval {
    /// In the syntax of the server's config.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every acknowledgement follows an fsync.
    #[must_use]
    pub fn is_always(&self) -> bool {
        self.0 == "always"
    }
}

impl std::str::FromStr for SyncInterval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a sync interval; expected \"always\" or one such as \"500ms\", \"1s\", \"2m\"");
        if text == "always" {
            return Ok(Self(text.into()));
        }
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        match unit {
            "ms" | "s" | "m" if number > 0 => Ok(Self(text.into())),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for SyncInterval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_the_syntax_of_the_server() {
        for good in ["always", "1s", "500ms", "2m"] {
            assert_eq!(good.parse::<SyncInterval>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "1", "0s", "s", "1h30", "1s\"\n}", "-1s", "never"] {
            assert!(bad.parse::<SyncInterval>().is_err(), "{bad:?}");
        }
    }
}
