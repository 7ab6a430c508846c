//! Small helpers for text forms: canonical numbers, shortened quotes, serde through `Display` and `FromStr`.

/// A decimal number without sign, leading zero or blank, not above `max`.
pub(crate) fn decimal(text: &str, max: u64) -> Option<u64> {
    let canonical = !text.is_empty()
        && text.len() <= 20
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return None;
    }
    text.parse().ok().filter(|number| *number <= max)
}

/// At most the first 80 characters, control characters escaped: for messages that quote what came from outside.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        quoted.push('…');
    }
    quoted
}

/// Implements serde by the text form.
macro_rules! serde_by_text {
    ($($name:ty),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use serde_by_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        assert_eq!(decimal("0", 0), Some(0));
        assert_eq!(decimal("18446744073709551615", u64::MAX), Some(u64::MAX));
        for wrong in
            ["", "00", "01", "-0", "+1", "1 ", "1_0", "١", "18446744073709551616", "1000000000000000000000"]
        {
            assert_eq!(decimal(wrong, u64::MAX), None, "{wrong}");
        }
        assert_eq!(decimal("11", 10), None);
    }

    #[test]
    fn quotes_are_short_and_cannot_write_to_a_terminal() {
        assert_eq!(quote("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(quote(&"x".repeat(100)), format!("{}…", "x".repeat(80)));
    }
}
