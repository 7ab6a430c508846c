//! The section `[network]`.

use std::str::FromStr;

use kith_actors::ktable::MAX_NODES;
use kith_identity::membership::Terms;
use kith_sansio::Span;
use serde::{Deserialize, Serialize};

use super::maybe_text;
use crate::failure::{Failure, Result};

/// How the network runs that this node issues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Network {
    /// How long an epoch lasts; an hour where it is missing.
    #[serde(with = "maybe_text", skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<Span>,
    /// How many members one adversary may control; 1%, and ten at least, where it is missing.
    #[serde(
        serialize_with = "maybe_text::serialize",
        deserialize_with = "number_or_share",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) colluding: Option<Colluding>,
}

/// How many members of a network one adversary may control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colluding {
    /// So many.
    Number(u64),
    /// So many of a thousand, rounded up, and one at least.
    PerMille(u32),
}

impl FromStr for Colluding {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Colluding, String> {
        let wrong = || format!("'{text}' is no number from 1 to {MAX_NODES}, nor a share from 0.1% to 99.9%");
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let Some(percent) = text.strip_suffix('%') else {
            let number = text.parse().ok().filter(|number| (1..=MAX_NODES).contains(number));
            return number.filter(|_| is_number(text)).map(Colluding::Number).ok_or_else(wrong);
        };
        let (whole, tenths) = percent.split_once('.').unwrap_or((percent, "0"));
        let digits = format!("{whole}{tenths}");
        let share = digits.parse().ok().filter(|share| (1..1_000).contains(share));
        let is_share = is_number(whole) && is_number(tenths) && tenths.len() == 1;
        share.filter(|_| is_share).map(Colluding::PerMille).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Colluding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Colluding::Number(number) => write!(f, "{number}"),
            Colluding::PerMille(share) if share % 10 == 0 => write!(f, "{}%", share / 10),
            Colluding::PerMille(share) => write!(f, "{}.{}%", share / 10, share % 10),
        }
    }
}

impl Network {
    /// The shortest and the longest epoch.
    const EPOCH_RANGE: (Span, Span) = (Span::secs(10), Span::secs(86_400));

    pub(super) fn is_default(&self) -> bool {
        *self == Network::default()
    }

    /// How long an epoch lasts.
    pub(crate) fn epoch(&self) -> Span {
        self.epoch.unwrap_or(Span::secs(3600))
    }

    /// What the issuer decides for all members.
    pub(crate) fn terms(&self) -> Terms {
        let epoch_secs = u32::try_from(self.epoch().as_secs()).unwrap_or(u32::MAX);
        let terms = Terms { epoch_secs, ..Terms::default() };
        match self.colluding {
            None => terms,
            Some(Colluding::Number(least)) => {
                Terms { colluding_per_mille: 0, colluding_least: least, ..terms }
            }
            Some(Colluding::PerMille(share)) => {
                Terms { colluding_per_mille: share, colluding_least: 1, ..terms }
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let (shortest, longest) = Network::EPOCH_RANGE;
        if (shortest..=longest).contains(&self.epoch()) {
            return Ok(());
        }
        let epoch = self.epoch();
        Err(Failure::failed(format!("network.epoch is {epoch}, it must be {shortest} to {longest}")))
    }
}

/// A number, or a share as text.
fn number_or_share<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<Colluding>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    let text = match Either::deserialize(from)? {
        Either::Number(number) => number.to_string(),
        Either::Text(text) => text,
    };
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn how_many_collude_is_a_number_or_a_share() {
        for (text, of_fifty, of_a_million) in
            [("3", 3, 3), ("'3'", 3, 3), ("'1%'", 1, 10_000), ("'0.5%'", 1, 5_000), ("'99.9%'", 50, 999_000)]
        {
            let config = Config::parse(&format!("[network]\ncolluding = {text}")).unwrap();
            let terms = config.network.terms();
            assert_eq!((terms.colluding(50), terms.colluding(1_000_000)), (of_fifty, of_a_million), "{text}");
            let again = Config::parse(&toml::to_string(&config).unwrap()).unwrap();
            assert_eq!(again.network, config.network);
        }
        let usual = Config::default().network.terms();
        assert_eq!((usual.colluding(50), usual.colluding(1_000_000)), (10, 10_000));
        for wrong in
            ["0", "+1", "1e3", "-1%", "0%", "0.0%", "100%", "1.25%", "1.%", ".5%", "%", "", "2000000000"]
        {
            assert!(wrong.parse::<Colluding>().is_err(), "{wrong}");
        }
    }
}
