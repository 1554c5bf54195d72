//! Rate limit of a route: `limit = { rate = "10/min", per = "client" }`.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};

/// How often one client may send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests that a client may send at once after a pause.
    pub count: NonZeroU32,
    /// The time in which `count` more requests become free.
    pub period: Duration,
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a rate, expected a number above 0 per s, min, hour or day, as in \"10/min\"");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "min" => 60,
            "hour" => 3_600,
            "day" => 86_400,
            _ => return Err(wrong()),
        };
        let count = count.trim().parse().map_err(|_| wrong())?;
        Ok(Self { count, period: Duration::from_secs(seconds) })
    }
}

/// A rate limit as written in TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateToml {
    rate: String,
    #[serde(default)]
    #[expect(dead_code, reason = "so far there is one way to tell clients apart; the key names it")]
    per: Per,
}

/// What the limit counts by.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Per {
    #[default]
    Client,
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RateToml::deserialize(deserializer)?.rate.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_per_unit() {
        let rate: Rate = "10/min".parse().unwrap();
        assert_eq!((rate.count.get(), rate.period), (10, Duration::from_secs(60)));
    }

    #[test]
    fn a_malformed_rate_is_refused() {
        for wrong in ["10", "0/min", "-1/s", "ten/min", "10/week", "10/"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
    }
}
